"""Modules that change what others compute with, or end the process, for the tests of `alone`."""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class Perceptron(nn.Module):
    """As it should be."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(torch.relu(self.first(x)))
        return y


_kept: list[Any] = []


def _enter(manager: Any) -> None:
    manager.__enter__()
    _kept.append(manager)


CHANGES: dict[str, Callable[[], object]] = {
    "gradients": lambda: torch.set_grad_enabled(False),
    "default type": lambda: torch.set_default_dtype(torch.float64),
    "default device": lambda: torch.set_default_device("meta"),
    "threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "deterministic": lambda: torch.use_deterministic_algorithms(True),
    "inference": lambda: _enter(torch.inference_mode()),
    "autocast": lambda: _enter(torch.autocast("cpu", torch.bfloat16)),
    "oneDNN": lambda: setattr(torch.backends.mkldnn, "enabled", False),
    "precision": lambda: torch.set_float32_matmul_precision("medium"),
    "precision of all": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
    "denormals": lambda: torch.set_flush_denormal(not _flushes()),
    "anomalies": lambda: torch.autograd.set_detect_anomaly(True),
    "a mode": lambda: _enter(TorchDispatchMode()),
    "recursion": lambda: sys.setrecursionlimit(sys.getrecursionlimit() + 1000),
    "environment": lambda: os.environ.update(RIDGELINE_OF_A_TEST="set"),
    "warnings": lambda: warnings.simplefilter("ignore"),
    "folder": lambda: os.chdir("/"),
    "numpy's errors": lambda: np.seterr(all="raise"),
}


def _flushes() -> bool:
    tiny = torch.full((), torch.finfo(torch.float32).tiny, dtype=torch.float32)
    return float(tiny * 0.5) == 0


def state() -> dict[str, Any]:
    """What the changes change."""
    return {
        "gradients": torch.is_grad_enabled(),
        "default type": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "oneDNN": torch.backends.mkldnn.enabled,
        "precision": torch.get_float32_matmul_precision(),
        "precision of all": torch.backends.fp32_precision,
        "denormals": _flushes(),
        "anomalies": torch.is_anomaly_enabled(),
        "a mode": torch._C._len_torch_dispatch_stack(),
        "recursion": sys.getrecursionlimit(),
        "environment": dict(os.environ),
        "warnings": [*warnings.filters],
        "folder": os.getcwd(),
        "numpy's errors": np.geterr(),
    }


class ChangesAtBuild(Perceptron):
    def __init__(self, change: str) -> None:
        super().__init__()
        CHANGES[change]()


class ChangesInForward(Perceptron):
    def __init__(self, change: str) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        CHANGES[self.change]()
        return y


EXITS: dict[str, Callable[[], BaseException]] = {
    "exit": lambda: SystemExit("no licence"),
    "cancelled": lambda: asyncio.CancelledError("by the loop"),
    "interrupt": lambda: KeyboardInterrupt(),
}


class Exits(Perceptron):
    def __init__(self, how: str, at_build: bool) -> None:
        super().__init__()
        self.how = how
        if at_build:
            raise EXITS[how]()

    def forward(self, x: Tensor) -> Tensor:
        raise EXITS[self.how]()
