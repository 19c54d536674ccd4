"""Trainers that do what an order's `task` says, instead of training."""

from __future__ import annotations

import ctypes
import gc
import logging
import math
import os
import signal
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

from ridgeline.search.events import (
    Began,
    Event,
    Failed,
    HandedBack,
    NeverTrains,
    Over,
    Reported,
    Saved,
)
from ridgeline.service.protocol import DatasetInfo, RunOrder, StudyRules
from ridgeline.service.worker.messages import Checkpoint, Key, key_of
from ridgeline.service.worker.training import DeviceSpec, Trainer

PROGRAM = "scripted/1"

_log = logging.getLogger(__name__)


def state_of(run: int, epoch: int) -> bytes:
    """The content of a checkpoint."""
    return f"run {run} after epoch {epoch}".encode() * 1_000


@dataclass(frozen=True)
class Epoch:
    epoch: int
    metrics: dict[str, float]


@dataclass
class Outcome:
    state: Literal["complete", "diverged", "pruned", "stopped"] = "complete"
    value: float | None = 0.5
    kept_epoch: int | None = 1
    diverged_epoch: int | None = None
    metrics: dict[str, float] = field(default_factory=lambda: {"test_accuracy": 0.25})
    rule_version: int | None = None
    measures: object | None = None


class ScriptedTrainer:
    """Trains `num_slots` runs at once, an epoch of each at a time.

    A run has `epochs` epochs whose metrics tell the process, and then does what `end` says: it
    completes where that is left out, or calls a method below.  It saves its state every
    `save_every` epochs, and goes on from a checkpoint of its program.  `add` is the method to call
    when it is added, `begun` a pipe to write a byte to when it begins.
    """

    def __init__(self, num_slots: int = 4) -> None:
        self.num_slots = num_slots
        self._waiting: dict[Key, RunOrder] = {}
        self._training: dict[Key, RunOrder] = {}
        self._epochs: dict[Key, int] = {}
        self._rules: dict[str, int] = {}
        self._round: Iterator[list[Event]] = iter(())
        self._turn: object | None = None

    @property
    def is_idle(self) -> bool:
        return not self._waiting and not self._training

    def add(self, order: RunOrder, checkpoint: Checkpoint | None = None) -> None:
        if "add" in order.task:
            getattr(self, order.task["add"])(key_of(order))
        if checkpoint is not None and checkpoint.program == PROGRAM:
            assert checkpoint.content == state_of(order.run, checkpoint.epoch)
            self._epochs[key_of(order)] = checkpoint.epoch
        self._waiting[key_of(order)] = order

    def remove(self, key: Key) -> bool:
        waited = self._waiting.pop(key, None)
        trained = self._training.pop(key, None)
        return waited is not None or trained is not None

    def set_rules(self, rules: StudyRules) -> None:
        self._rules[rules.study] = rules.version

    @property
    def num_idle(self) -> int:
        num_runs = len(self._training) + len(self._waiting)
        return max(0, self.num_slots - num_runs) if self._training else 0

    def turns(self) -> dict[Key, object]:
        return {} if self._turn is None else dict.fromkeys(list(self._training), self._turn)

    def advance(self) -> list[Event]:
        """A run at a time: what it came to is told before the next one may end the process."""
        events = next(self._round, None)
        if events is None:
            self._round = self._train_all()
            events = []
        return events

    def _train_all(self) -> Iterator[list[Event]]:
        while self._waiting and len(self._training) < self.num_slots:
            key, order = next(iter(self._waiting.items()))
            del self._waiting[key]
            self._training[key] = order
            self._epochs.setdefault(key, 0)
            yield [Began(key, PROGRAM)]
            if "begun" in order.task:
                Path(order.task["begun"]).write_bytes(b".")
        for key in list(self._training):
            if key in self._training:
                yield list(self._train(key))

    def _train(self, key: Key) -> Iterator[Event]:
        task = self._training[key].task
        if self._epochs[key] < task.get("epochs", 2):
            self._epochs[key] += 1
            number = self._epochs[key]
            _log.info("run %d, epoch %d", key[0], number)
            metrics = {
                "pid": float(os.getpid()),
                "niceness": float(os.nice(0)),
                "loss": key[0] / number,
            }
            yield Reported(key, Epoch(number, metrics))
            if number % task.get("save_every", math.inf) == 0:
                yield Saved(key, number, state_of(key[0], number))
        else:
            yield from getattr(self, task.get("end", "complete"))(key) or ()

    # ---- how runs end

    def complete(self, key: Key) -> Iterator[Event]:
        del self._training[key]
        yield Over(key, Outcome(value=1 / key[0]))

    def be_pruned(self, key: Key) -> Iterator[Event]:
        order = self._training.pop(key)
        yield Over(key, Outcome("pruned", rule_version=self._rules[order.study]))

    def diverge(self, key: Key) -> Iterator[Event]:
        del self._training[key]
        yield Over(key, Outcome("diverged", None, None, 3, {}))

    def fail(self, key: Key) -> Iterator[Event]:
        del self._training[key]
        yield Failed(key, ValueError("weights \0 and \ud800 do not fit"))

    def fail_oddly(self, key: Key) -> Iterator[Event]:
        del self._training[key]
        yield Failed(key, RuntimeError("an illegal memory access"))

    def run_out_of_memory(self, key: Key) -> Iterator[Event]:
        del self._training[key]
        yield Failed(key, MemoryError("3 GB needed"))

    def break_the_pack(self, _: Key) -> Iterator[Event]:
        """All that train fail together, and the one that is alone by itself."""
        keys = list(self._training)
        self._training.clear()
        error = RuntimeError("the pack is broken")
        for key in keys:
            alone = len(keys) == 1
            yield Failed(key, error) if alone else HandedBack(key, error, len(keys) // 2)

    def refuse(self, _: Key) -> None:
        raise ValueError("there is no data set x")

    def refuse_all(self, _: Key) -> None:
        raise NeverTrains("class 3 has 1 row")

    def exit(self, _: Key) -> None:
        os._exit(3)

    def segfault(self, _: Key) -> None:
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # no report of it in the tests' output
        ctypes.string_at(0)

    def hang(self, key: Key) -> None:
        """Once enough train `beside` it, nothing goes on in this process; tells the pipe `hung`."""
        task = self._training[key].task
        if len(self._training) <= task.get("beside", 0):
            return
        if "hung" in task:
            Path(task["hung"]).write_bytes(b".")
        self._turn = object()
        threading.Event().wait()

    def stop(self, key: Key) -> Iterator[Event]:
        """Nothing at all goes on in this process, until it gets a SIGCONT."""
        os.kill(os.getpid(), signal.SIGSTOP)
        return self.complete(key)

    def stop_in_a_message(self, key: Key) -> Iterator[Event]:
        """Begin to say something before that."""
        for pipe in gc.get_objects():
            if isinstance(pipe, Connection) and pipe.writable:
                os.write(pipe.fileno(), struct.pack("!i", 1_000) + b"the beginning")
        return self.stop(key)

    def hang_up(self, _: Key) -> None:
        """Close all descriptors but the standard ones, and live on."""
        # Nor does the thread that reads orders end the process.
        os._exit = lambda _: threading.Event().wait()  # type: ignore[assignment,return-value]
        os.closerange(3, 1_000)
        threading.Event().wait()

    def linger(self, _: Key) -> None:
        """Train on and on; the others go on too."""
        threading.Event().wait(0.002)


@dataclass(frozen=True)
class ScriptedBackend:
    """Two devices that train what orders say."""

    num_slots: int = 4

    def devices(self) -> tuple[str, ...]:
        return "cpu:0", "cpu:1"

    def datasets(self) -> tuple[DatasetInfo, ...]:
        return ()

    def trainer(self, device: str, spec: DeviceSpec) -> Trainer:
        return ScriptedTrainer(self.num_slots)


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
            self.die()
        return ScriptedTrainer()

    def die(self) -> None:
        os._exit(7)


class StopsOnce(DiesOnce):
    """Does not die but stops, for ever."""

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)
