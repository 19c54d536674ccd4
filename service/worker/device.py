"""The process of one device: trains the runs it is given, one after the other.

It talks to nobody but the agent that started it, and ends when the agent does, however that ended.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import platform
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from service.protocol import DeviceInfo, RunEnded, RunOrder
from service.worker.messages import CannotStart, FromDevice, Hello, Key, Stop, Survey, key_of
from service.worker.training import (
    Backend,
    DeviceSpec,
    LogTail,
    Trainer,
    error_text,
    train,
)

CPU_NICENESS = 5

_FAILED = ("crashed", "out_of_memory")


class Inbox:
    """The orders that wait, kept up to date by a thread that reads the agent's pipe.

    The agent holds the only writing end of the pipe.  Whether it lets us go or dies itself, the
    thread reads end-of-file and ends this process at once, whatever the main thread is at.
    """

    def __init__(self, pipe: Connection[Any, RunOrder | Stop], on_end: Callable[[], None]) -> None:
        self._pipe = pipe
        self._on_end = on_end
        self._changed = threading.Condition()
        self._waiting: OrderedDict[Key, RunOrder] = OrderedDict()
        self._training: Key | None = None
        self._stopped = False
        threading.Thread(target=self._read, name="orders", daemon=True).start()

    def next(self) -> RunOrder:
        """The next run to train; waits for one."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting)
            self._training, order = self._waiting.popitem(last=False)
            self._stopped = False
            return order

    @property
    def stopped(self) -> bool:
        """Whether the run last taken is to be trained no further."""
        return self._stopped

    def _read(self) -> None:
        while True:
            try:
                message = self._pipe.recv()
            except (EOFError, OSError):
                self._on_end()
                return
            with self._changed:
                if isinstance(message, RunOrder):
                    self._waiting[key_of(message)] = message
                elif message.key == self._training:
                    self._stopped = True
                else:
                    self._waiting.pop(message.key, None)
                self._changed.notify()


def main(
    spec: DeviceSpec,
    backend: Backend,
    orders: Connection[Any, RunOrder | Stop],
    events: Connection[Any, Any],
) -> None:
    """The whole life of a device process; SIGINT and SIGTERM are blocked, the agent sees to them.

    Raises:
        SystemExit: the device cannot be used, which `events` has been told.
    """
    faulthandler.enable()  # a segfault shows where it happened, in the worker's log
    inbox = Inbox(orders, on_end=lambda: os._exit(0))
    tail = _set_up_logging(spec)
    try:
        hello, trainer = _begin(spec, backend)
    except Exception as exc:
        # A ValueError is a person's mistake, and says all there is to say.
        mistake = isinstance(exc, ValueError)
        events.send(CannotStart(str(exc) if mistake else error_text(exc)))
        raise SystemExit(1) from None
    with suppress(BrokenPipeError):  # the agent has died; the inbox is about to end this process
        events.send(hello)
        serve(hello.info.kind, trainer, inbox, tail, events.send)


def serve(
    kind: str, trainer: Trainer, inbox: Inbox, tail: LogTail, send: Callable[[FromDevice], None]
) -> None:
    """Train what the inbox holds, until the device had better be started anew."""
    while True:
        order = inbox.next()
        tail.lines.clear()
        for message in train(trainer, order, tail, lambda: inbox.stopped):
            send(message)
            failed = isinstance(message, RunEnded) and message.outcome in _FAILED
        if failed and kind == "cuda":
            # After some errors a CUDA context fails every later call, and memory stays taken.  The
            # next run must not pay for that, so the agent gets to start a new process.
            return


def _set_up_logging(spec: DeviceSpec) -> LogTail:
    console = logging.StreamHandler()
    console.setLevel(logging.WARNING)
    tail = LogTail()
    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s %(levelname)s {spec.name or 'device'}: %(message)s",
        handlers=[console, tail],
    )
    logging.captureWarnings(True)
    return tail


def _begin(spec: DeviceSpec, backend: Backend) -> tuple[Hello, Trainer]:
    devices = (spec.name,) if spec.name is not None else backend.devices()
    name = devices[0]
    kind = name.partition(":")[0]
    if kind == "cpu":
        # Training takes every core it gets; the api, which may run beside it, needs little but at
        # once, and this lets it go first.
        os.nice(CPU_NICENESS)
    trainer = backend.trainer(name, spec)
    info = DeviceInfo(
        name=name, kind=kind, description=_description(name, kind), program=trainer.program
    )
    survey = Survey(devices, backend.datasets(spec.data_root)) if spec.survey else None
    return Hello(info, survey), trainer


def _description(name: str, kind: str) -> str:
    if kind == "cuda":
        import torch

        return torch.cuda.get_device_name(name)
    return _processor()[:128]


def _processor() -> str:
    """The processor's name where the system tells it, or else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine() or "CPU"
