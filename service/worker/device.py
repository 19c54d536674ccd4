"""The process of one device: trains the runs it is given, many at once.

It talks to nobody but the agent that started it, and ends when the agent does, however that ended.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import platform
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from ridgeline.service import logs
from ridgeline.service.processes import CPU_NICENESS, signal_at_parents_death
from ridgeline.service.protocol import DeviceInfo
from ridgeline.service.worker import printed
from ridgeline.service.worker.bench import Bench, LogTail, error_text
from ridgeline.service.worker.messages import CannotStart, FromDevice, Hello, Survey, ToDevice
from ridgeline.service.worker.pulse import Pulse
from ridgeline.service.worker.training import Backend, DeviceSpec, Trainer


class Inbox:
    """What the agent has said, taken out of its pipe by a thread.

    The agent holds the only writing end of the pipe.  Whether it lets us go or dies itself, the
    thread reads end-of-file and ends this process at once, whatever the main thread is at.
    """

    def __init__(self, pipe: Connection[Any, ToDevice], on_end: Callable[[], None]) -> None:
        self._pipe = pipe
        self._on_end = on_end
        self._messages: SimpleQueue[ToDevice] = SimpleQueue()
        threading.Thread(target=self._read, name="orders", daemon=True).start()

    def take(self, *, wait: bool) -> list[ToDevice]:
        """All there is, in the order it was said; where there is nothing, waits if told to."""
        taken = [self._messages.get()] if wait else []
        with suppress(Empty):
            while True:
                taken.append(self._messages.get_nowait())
        return taken

    def _read(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                self._messages.put(self._pipe.recv())
        self._on_end()


def main(
    spec: DeviceSpec,
    backend: Backend,
    orders: Connection[Any, ToDevice],
    events: Connection[Any, Any],
) -> None:
    """The whole life of a device process; SIGINT and SIGTERM are blocked, the agent sees to them.

    Raises:
        SystemExit: the device cannot be used, which `events` has been told.
    """
    signal_at_parents_death(signal.SIGKILL)
    faulthandler.enable()  # a segfault shows where it happened, in the worker's log
    pid = os.getpid()
    os.register_at_fork(after_in_child=partial(signal_at_parents_death, signal.SIGKILL))
    inbox = Inbox(orders, on_end=lambda: os._exit(0))
    tail = _set_up_logging(spec)
    try:
        hello, trainer = _begin(spec, backend)
    except Exception as exc:
        # A ValueError is a person's mistake, and says all there is to say.
        mistake = isinstance(exc, ValueError)
        events.send([CannotStart(str(exc) if mistake else error_text(exc))])
        raise SystemExit(1) from None
    lock = threading.Lock()

    def send(messages: Sequence[FromDevice]) -> None:
        if os.getpid() != pid:  # a person's code has forked, and the child has come back from it
            os._exit(1)
        with lock:
            events.send(messages)

    with suppress(BrokenPipeError):  # the agent has died; the inbox is about to end this process
        send([hello])
        pulse = Pulse(trainer.turns)
        pulse.start(send)
        serve(Bench(trainer, tail, send, frail=hello.info.kind == "cuda"), inbox, pulse)


def serve(bench: Bench, inbox: Inbox, pulse: Pulse) -> None:
    """Train what the inbox holds, until the device had better be started anew."""
    while not bench.is_spoilt:
        pulse.rests()
        for message in inbox.take(wait=bench.is_idle):
            pulse.works()
            bench.take(message)
        pulse.works()
        bench.advance()
    # Its next runs must not pay for that, so the agent gets to start a new process.
    bench.give_back()


def _set_up_logging(spec: DeviceSpec) -> LogTail:
    # Of libraries only what is wrong; of the engine also what takes long, and what tasks print.
    logs.set_up(
        spec.log_format,
        keep=lambda record: (
            record.levelno >= logging.WARNING
            or record.name.startswith(("ridgeline.search.", printed.__name__))
        ),
    )
    tail = LogTail()
    logging.getLogger().addHandler(tail)
    printed.log_what_is_printed()
    return tail


def _begin(spec: DeviceSpec, backend: Backend) -> tuple[Hello, Trainer]:
    devices = (spec.name,) if spec.name is not None else backend.devices()
    name = devices[0]
    logs.identify(device=name)
    kind = name.partition(":")[0]
    if kind == "cpu":
        os.nice(CPU_NICENESS)
    trainer = backend.trainer(name, spec)
    info = DeviceInfo(
        name=name,
        kind=kind,
        description=_description(name, kind),
        num_slots=trainer.num_slots,
    )
    survey = Survey(devices, backend.datasets()) if spec.survey else None
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
