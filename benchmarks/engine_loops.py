"""The loops that the engine is held against: plain torch, one run after the other.

Both end each epoch with the accuracy on the validation set.  Neither keeps a training loss, though
the engine does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

from benchmarks.engine_data import Work
from ridgeline.search.engine import DeviceData, Mlp, RunConfig


@dataclass(frozen=True)
class Training:
    """What training some configurations took.

    Attributes:
        num_samples: training samples, each counted once an epoch.
        accuracies: on the validation set after each run's last epoch, in the order of the runs.
        programs: of the engine, that trained them.
        occupancy: the mean share of the slots that had a run.
    """

    num_samples: int
    seconds: float
    accuracies: tuple[float, ...]
    programs: frozenset[str] = frozenset()
    occupancy: float = 1.0

    @property
    def rate(self) -> float:
        """Training samples a second."""
        return self.num_samples / self.seconds


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def train_with_loader(work: Work, device: torch.device, configs: Sequence[RunConfig]) -> Training:
    """The loop that a user of Optuna writes: after its `examples/pytorch/pytorch_simple.py`."""
    train_set, validation_set = work.train.dataset(), work.validation.dataset()

    def train_one(config: RunConfig) -> float:
        model = _model(work.shape, config.dropout).to(device)
        optimizer = torch.optim.Adam(
            model.parameters(), lr=config.learning_rate, weight_decay=2 * config.l2
        )
        train_loader = DataLoader(train_set, batch_size=config.batch_size, shuffle=True)
        validation_loader = DataLoader(validation_set, batch_size=config.batch_size)
        accuracy = 0.0
        for _ in range(config.epochs):
            model.train()
            for x, y in train_loader:
                x, y = x.to(device), y.to(device)
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(x), y)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            model.eval()
            num_right = 0
            with torch.no_grad():
                for x, y in validation_loader:
                    x, y = x.to(device), y.to(device)
                    num_right += int((model(x).argmax(dim=1) == y).sum().item())
            accuracy = num_right / len(work.validation)
        return accuracy

    return _one_by_one(train_one, configs, len(work.train), device)


def train_resident(data: DeviceData, shape: Mlp, configs: Sequence[RunConfig]) -> Training:
    """The same without a loader: the data on the device, and the update in one kernel."""
    device, (train, validation) = data.device, (data.train, data.validation)

    def train_one(config: RunConfig) -> float:
        model = _model(shape, config.dropout).to(device)
        optimizer = torch.optim.Adam(
            model.parameters(), lr=config.learning_rate, weight_decay=2 * config.l2, fused=True
        )
        accuracy = torch.zeros((), device=device)
        for _ in range(config.epochs):
            model.train()
            order = torch.randperm(train.num_samples, device=device)
            for rows in torch.split(order, config.batch_size):
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(train.x[rows]), train.y[rows])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            model.eval()
            with torch.no_grad():
                accuracy = (model(validation.x).argmax(dim=1) == validation.y).float().mean()
            accuracy = accuracy.cpu()  # a user looks at each epoch
        return float(accuracy)

    return _one_by_one(train_one, configs, train.num_samples, device)


class ModuleLoop:
    """The resident loop with a module of one's own.

    One module, with new weights for each run: `torch.compile` would begin anew with each.

    Args:
        make: gives a new module.
        channels_last: of the module and of the images, once and for all.
        compiled: by `torch.compile`, as it stands, for training and evaluation.
    """

    def __init__(
        self,
        make: Callable[[], nn.Module],
        data: DeviceData,
        *,
        channels_last: bool,
        compiled: bool,
    ) -> None:
        self._make, self._data = make, data
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._module = make().to(data.device).to(memory_format=memory_format)  # type: ignore[call-overload]
        self._forward = torch.compile(self._module) if compiled else self._module
        self._train_x, self._validation_x = (
            part.x.contiguous(memory_format=memory_format) for part in (data.train, data.validation)
        )

    def train(self, configs: Sequence[RunConfig]) -> Training:
        """Train the runs one after the other."""
        return _one_by_one(
            self._train_one, configs, self._data.train.num_samples, self._data.device
        )

    def _train_one(self, config: RunConfig) -> float:
        module, forward, data = self._module, self._forward, self._data
        module.load_state_dict(self._make().state_dict())
        optimizer = torch.optim.Adam(
            module.parameters(), lr=config.learning_rate, weight_decay=2 * config.l2, fused=True
        )
        accuracy = torch.zeros((), device=data.device)
        for _ in range(config.epochs):
            module.train()
            order = torch.randperm(data.train.num_samples, device=data.device)
            for rows in torch.split(order, config.batch_size):
                optimizer.zero_grad()
                loss = functional.cross_entropy(forward(self._train_x[rows]), data.train.y[rows])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            module.eval()
            with torch.no_grad():
                right = forward(self._validation_x).argmax(dim=1) == data.validation.y
                accuracy = right.float().mean().cpu()  # a user looks at each epoch
        return float(accuracy)


def _one_by_one(
    train_one: Callable[[RunConfig], float],
    configs: Sequence[RunConfig],
    num_train: int,
    device: torch.device,
) -> Training:
    synchronise(device)
    start = time.perf_counter()
    accuracies = []
    for config in configs:
        torch.manual_seed(config.seed)
        accuracies.append(train_one(config))
    synchronise(device)
    seconds = time.perf_counter() - start
    num_samples = num_train * sum(config.epochs for config in configs)
    return Training(num_samples, seconds, tuple(accuracies))


def _model(shape: Mlp, dropout: float) -> nn.Sequential:
    modules: list[nn.Module] = []
    for i in range(len(shape.hidden)):
        modules += [nn.Linear(shape.widths[i], shape.widths[i + 1]), nn.ReLU()]
        if dropout:
            modules.append(nn.Dropout(dropout))
    return nn.Sequential(*modules, nn.Linear(shape.widths[-2], shape.num_outputs))
