"""Modules that do what no module should, and one that is odd and yet can be trained."""

from __future__ import annotations

import asyncio
import os
import sys
import threading

import torch
from torch import Tensor, nn


class Linear(nn.Module):
    """As it should be."""

    def __init__(self, num_features: int, num_outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(num_features, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y


class RaisesAtBuild(Linear):
    def __init__(self, num_features: int, num_outputs: int) -> None:
        raise RuntimeError("no licence\nfor this network")


class RaisesInForward(Linear):
    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("attention")


class Exits(Linear):
    def __init__(self, num_features: int, num_outputs: int) -> None:
        raise SystemExit("no licence")


class Cancels(Linear):
    def forward(self, x: Tensor) -> Tensor:
        raise asyncio.CancelledError("by the loop")


class RaisesPages(Linear):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("a text without end " * 1000)


class WrongShape(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, 1:]


class Nan(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * torch.nan


class Shuffles(Linear):
    """Is another network for each seed."""

    order: Tensor

    def __init__(self, num_features: int, num_outputs: int) -> None:
        super().__init__(num_features, num_outputs)
        self.register_buffer("order", torch.randperm(num_features))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, self.order])


class ByData(Linear):
    """Control flow that depends on the data."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y * 2 if bool(x.sum() > 0) else y


class HangsAtBuild(Linear):
    def __init__(self, num_features: int, num_outputs: int) -> None:
        threading.Event().wait()


class HangsInTraining(Linear):
    """Not for the few rows by which the engine finds out about a module."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 16:
            threading.Event().wait()
        return super().forward(x)


class Prints(Linear):
    """A gigabyte, in lines of several lengths and by several ways."""

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(8):
            print("so far so good\n" * 2**22)
            print("and on and on" * 2**22, file=sys.stderr)
            os.write(1, b"by other means" * 2**16)
        return super().forward(x)


class Forks(Linear):
    """Its children come back from here, or never do."""

    has_forked = False

    def forward(self, x: Tensor) -> Tensor:
        if not Forks.has_forked:
            Forks.has_forked = True
            os.fork()
            if os.fork() == 0:
                threading.Event().wait()
        return super().forward(x)


class Parameterless(nn.Module):
    def __init__(self, num_features: int, num_outputs: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :10]


def no_module(num_features: int, num_outputs: int) -> int:
    """No module."""
    return 5
