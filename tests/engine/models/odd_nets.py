"""Modules that train although they are unlike most, and modules that are refused by name."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.engine.models.unruly import Perceptron


class AsksForFloat32(Perceptron):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


class BeginsAtZero(nn.Module):
    """A recurrent layer that is given its first state."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.last = nn.GRU(5, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        start = torch.zeros(1, x.size(0), 16)
        y: Tensor = self.last(self.rnn(x[:, None], start)[0][:, -1])
        return y


class MakesAMask(Perceptron):
    def forward(self, x: Tensor) -> Tensor:
        mask = torch.zeros(16, 16)
        mask[2:, 2:] = 1
        y: Tensor = self.second(torch.relu(self.first(x)) @ mask)
        return y


class RoundsToHalf(Perceptron):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.half().float())


class ComputesInDouble(Perceptron):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).double().tanh().float()


class WatchesGradients(Perceptron):
    """Hooks of layers, which cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.second.register_full_backward_hook(lambda *_: None)


class FollowsItsSlope(Perceptron):
    """A gradient is part of what it gives."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = super().forward(x)
            (slope,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        return y + slope.sum(1, keepdim=True)


class HooksAGradient(Perceptron):
    def __init__(self) -> None:
        super().__init__()
        self.first.weight.register_hook(lambda gradient: gradient * 0)


class HooksAnAccumulation(Perceptron):
    def __init__(self) -> None:
        super().__init__()
        self.second.bias.register_post_accumulate_grad_hook(lambda _: None)


class IsPartlyEmpty(Perceptron):
    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(0, 5))


class HoldsAMask(Perceptron):
    def __init__(self) -> None:
        super().__init__()
        self.mask = torch.ones(16)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(torch.relu(self.first(x)) * self.mask)
        return y


class CountsItsSteps(Perceptron):
    def __init__(self) -> None:
        super().__init__()
        self.num_steps = 0

    def forward(self, x: Tensor) -> Tensor:
        self.num_steps += self.training
        return super().forward(x) * (1.0 if self.num_steps < 3 else 0.0)


STATES: dict[str, tuple[Any, Callable[[Any], object]]] = {
    "a list": ([], lambda it: it.append(1)),
    "a dict": ({"n": 0}, lambda it: it.update(n=it["n"] + 1)),
    "a set": ({0}, lambda it: it.add(len(it))),
    "a deque": (deque([0, 0], maxlen=2), lambda it: it.append(1)),
    "a list in a list": ([[0]], lambda it: it[0].append(1)),
    "a tensor": (torch.zeros(1), lambda it: it.add_(1)),
}


class KeepsState(Perceptron):
    def __init__(self, kind: str) -> None:
        super().__init__()
        start, self.change = STATES[kind]
        self.kept = start.clone() if isinstance(start, Tensor) else type(start)(start)

    def forward(self, x: Tensor) -> Tensor:
        self.change(self.kept)
        return super().forward(x)


class RemembersWhatItMade(Perceptron):
    """Keeps what it works out once, and its last activations: neither changes what it gives."""

    def __init__(self) -> None:
        super().__init__()
        self.scale: float | None = None
        self.hidden: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.scale is None:
            self.scale = 0.5
        self.hidden = torch.relu(self.first(x))
        y: Tensor = self.second(self.hidden) * self.scale
        return y


class NormsItsWeights(Perceptron):
    """By torch's parametrizations, which change buffers in each forward pass."""

    def __init__(self) -> None:
        super().__init__()
        nn.utils.parametrizations.weight_norm(self.first)
        nn.utils.parametrizations.spectral_norm(self.second)


class WritesToItsRows(Perceptron):
    """Changes what it is given in place, as `nn.ReLU(inplace=True)` in front would do."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "doubles":
            x *= 2
        elif self.kind == "clamps":
            x.clamp_(-0.1, 0.1)
        elif self.kind == "clears a part":
            x[:, :2] = 0
        elif not self.training:  # "evaluates"
            x -= 1
        return super().forward(x)


class CountsInWholeNumbers(Perceptron):
    """Counts its steps beyond what a float32 holds, in a buffer that it replaces or changes."""

    count: Tensor
    START = 2**40

    def __init__(self, replaces: bool) -> None:
        super().__init__()
        self.replaces = replaces
        self.register_buffer("count", torch.tensor([[self.START]]))
        self.register_buffer("nothing", torch.zeros(0, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.replaces:
            self.count = self.count + 1
        elif self.training:
            self.count += 1
        return super().forward(x) / (1 + (self.count - self.START).to(x.dtype))


class WritesToAParameter(Perceptron):
    """Clamps a weight while it trains; in evaluation it halves it."""

    def __init__(self, branches: bool) -> None:
        super().__init__()
        self.branches = branches

    def forward(self, x: Tensor) -> Tensor:
        if self.branches and x.sum() > 1e9:
            return super().forward(-x)
        with torch.no_grad():
            if self.training:
                self.first.weight.copy_(self.first.weight.clamp(-0.05, 0.05))
            else:
                self.first.weight.mul_(0.5)
        return super().forward(x)


class MakesABuffer(Perceptron):
    """Works something out once, as tables of angles are for texts; or counts in it."""

    def __init__(self, counts: bool) -> None:
        super().__init__()
        self.counts = counts

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "made"):
            self.register_buffer("made", torch.arange(5.0).to(x.dtype), persistent=False)
        if self.counts:
            self.made += 1
        return super().forward(x + self.made)


class GrowsABuffer(Perceptron):
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.seen = torch.cat([self.seen, x[:1, 0]])
        return super().forward(x)


class GivesNothingToLearn(Perceptron):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return {"detached": y.detach(), "whole": y.long(), "complex": y * 1j}[self.kind]


class HasNoRunningStatistics(Perceptron):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(5, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.norm(x))


class DropsAlongOtherRows(nn.Module):
    """Drops of sequences with the steps first, as torch's transformers do, or of a weight."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first, self.last = nn.Linear(1, 8), nn.Linear(8, 3)
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        flow = self.first(x.t()[:, :, None])  # [steps, rows, 8]
        if self.kind == "sequence":
            flow = functional.dropout(flow, 0.5, self.training)
            if flow.sum() > 0:  # one more, now and then
                flow = functional.dropout(flow, 0.2, self.training)
        else:
            flow = flow * functional.dropout(self.scale, 0.5, self.training)
        flow = functional.dropout(flow.mean(0), 0.5, self.training)
        y: Tensor = self.last(flow)
        return y
