"""Trainers that do what an order's `task` says, instead of training."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from service.protocol import DatasetInfo, RunOrder, StudyRules
from service.worker.messages import Key, key_of
from service.worker.training import (
    Began,
    DeviceSpec,
    Event,
    Failed,
    Over,
    Reported,
    Trainer,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Epoch:
    epoch: int
    metrics: dict[str, float]


@dataclass
class Outcome:
    state: Literal["complete", "diverged", "stopped"] = "complete"
    value: float | None = 0.5
    kept_epoch: int | None = 1
    diverged_epoch: int | None = None
    metrics: dict[str, float] = field(default_factory=lambda: {"test_accuracy": 0.25})
    rule_version: int | None = None


class ScriptedTraining:
    """`epochs` epochs whose metrics tell the process, then what `end` says.

    `end` is left out for a run that completes, or the name of a method below.  `fifo` is a pipe to
    write a byte to first.
    """

    def __init__(self, order: RunOrder) -> None:
        self._task = order.task
        self.outcome = Outcome()

    def __iter__(self) -> Iterator[Epoch]:
        if "fifo" in self._task:
            Path(self._task["fifo"]).write_bytes(b".")
        for number in range(1, self._task.get("epochs", 2) + 1):
            _log.info("epoch %d", number)
            yield Epoch(number, {"pid": float(os.getpid()), "niceness": float(os.nice(0))})
        if "end" in self._task:
            getattr(self, self._task["end"])()

    def raise_error(self) -> None:
        raise ValueError("weights \0 and \ud800 do not fit")

    def run_out_of_memory(self) -> None:
        raise MemoryError("3 GB needed")

    def diverge(self) -> None:
        self.outcome = Outcome("diverged", None, None, 3, {})

    def exit(self) -> None:
        os._exit(3)

    def segfault(self) -> None:
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # no report of it in the tests' output
        ctypes.string_at(0)

    def hang(self) -> None:
        threading.Event().wait()


class ScriptedTrainer:
    """Trains an epoch of every run in turn, and ends them as their orders say."""

    program = "scripted/1"
    num_slots = 1

    def __init__(self, device: str, spec: DeviceSpec) -> None:
        self._waiting: list[RunOrder] = []
        self._training: dict[Key, tuple[ScriptedTraining, Iterator[Epoch]]] = {}
        self._rules: dict[str, StudyRules] = {}

    @property
    def is_idle(self) -> bool:
        return not self._waiting and not self._training

    def add(self, order: RunOrder) -> None:
        self._waiting.append(order)

    def remove(self, key: Key) -> None:
        self._waiting = [order for order in self._waiting if key_of(order) != key]
        self._training.pop(key, None)

    def set_rules(self, rules: StudyRules) -> None:
        self._rules[rules.study] = rules

    def advance(self) -> list[Event]:
        events: list[Event] = []
        while self._waiting and len(self._training) < self.num_slots:
            order = self._waiting.pop(0)
            training = ScriptedTraining(order)
            self._training[key_of(order)] = training, iter(training)
            events.append(Began(key_of(order), self.program))
        if events:
            return events  # told before any of it may end this process
        for key, (training, epochs) in list(self._training.items()):
            try:
                epoch = next(epochs, None)
            except Exception as exc:
                events.append(Failed(key, exc))
            else:
                if epoch is not None:
                    events.append(Reported(key, epoch.epoch, epoch.metrics))
                    continue
                events.append(Over(key, training.outcome))
            del self._training[key]
        return events


class ScriptedPack(ScriptedTrainer):
    """Trains up to four at once."""

    num_slots = 4


class ScriptedBackend:
    """Two devices that train what orders say."""

    def devices(self) -> tuple[str, ...]:
        return "cpu:0", "cpu:1"

    def datasets(self, data_root: Path | None) -> tuple[DatasetInfo, ...]:
        return ()

    def trainer(self, device: str, spec: DeviceSpec) -> Trainer:
        return ScriptedTrainer(device, spec)


class NoDevice(ScriptedBackend):
    def trainer(self, device: str, spec: DeviceSpec) -> Trainer:
        raise ValueError(f"there is no device {device} here")


class DiesAtStart(ScriptedBackend):
    def trainer(self, device: str, spec: DeviceSpec) -> Trainer:
        os._exit(7)


class DiesOnce(ScriptedBackend):
    """Leaves a file in the data root, to know that it has died."""

    def trainer(self, device: str, spec: DeviceSpec) -> Trainer:
        assert spec.data_root is not None
        mark = spec.data_root / device
        if not mark.exists():
            mark.touch()
            os._exit(7)
        return ScriptedTrainer(device, spec)


class PackBackend(ScriptedBackend):
    """One device that trains several runs at once."""

    def devices(self) -> tuple[str, ...]:
        return ("cpu:0",)

    def trainer(self, device: str, spec: DeviceSpec) -> Trainer:
        return ScriptedPack(device, spec)
