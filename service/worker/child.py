"""One process of a device as the agent has it: threads wait for it, so that the agent need not.

No wait for a process is sure to end, not even with a timeout: reading goes on until a message that
has begun is whole, writing until the other side reads, and `Process.join` until a process is gone
that has closed its descriptors, as that looks like its end.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from queue import Empty, SimpleQueue
from threading import Thread

from ridgeline.search.scratch import ScratchFolder
from ridgeline.service.worker.device import main
from ridgeline.service.worker.messages import FromDevice, ToDevice
from ridgeline.service.worker.training import Backend, DeviceSpec

SCRATCH_PREFIX = "ridgeline-device-"
"""Of the folders for the temporary files of device processes."""

_log = logging.getLogger(__name__)
_spawn = multiprocessing.get_context("spawn")


class Child:
    """A process that serves a device.

    Args:
        wake: called, from another thread, when there is something to hear or the process has ended.
    """

    def __init__(self, spec: DeviceSpec, backend: Backend, wake: Callable[[], None]) -> None:
        orders, self._orders = _spawn.Pipe(duplex=False)
        self._events, events = _spawn.Pipe(duplex=False)
        self._process = _spawn.Process(target=main, args=(spec, backend, orders, events))
        self._scratch = _scratch_folder()
        # Python would look for modules in the current folder first: anybody's signal.py.
        environment = {"PYTHONSAFEPATH": "1"}
        if self._scratch is not None:
            environment["TMPDIR"] = str(self._scratch.path)
        with _environment(environment):
            # Ctrl-C, and some supervisors' SIGTERM, reach the whole process group.  It is the agent
            # that decides what becomes of a device, so its process starts with both blocked, and no
            # run is charged for it.  The tracker must run by then: starting it unblocks them.
            resource_tracker.ensure_running()
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
            try:
                self._process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        # With the other ends held by the new process alone, its death reads as end-of-file here,
        # and ours there.
        orders.close()
        events.close()
        self._wake = wake
        self._unsaid: SimpleQueue[ToDevice | None] = SimpleQueue()
        self._unheard: SimpleQueue[Sequence[FromDevice]] = SimpleQueue()
        self.has_hung_up = False
        """Whether it says no more, as all do that end."""
        self._listener = Thread(target=self._listen, name="listener", daemon=True)
        for thread in (self._listener, Thread(target=self._speak, name="speaker", daemon=True)):
            thread.start()

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return not self._process.is_alive()

    @property
    def exit_code(self) -> int | None:
        """Negative for a signal; None while the process is there."""
        return self._process.exitcode

    def say(self, message: ToDevice) -> None:
        """Tell the process something, without waiting for it to listen."""
        self._unsaid.put(message)

    def hang_up(self) -> None:
        """Tell the process to end, after all that was said before."""
        self._unsaid.put(None)

    def heard(self) -> Iterator[FromDevice]:
        """What the process has said since the last call."""
        with suppress(Empty):
            while True:
                yield from self._unheard.get_nowait()

    def kill(self) -> None:
        """End the process, whatever it is at."""
        self._process.kill()

    def wait(self, timeout_seconds: float) -> None:
        """Wait until the process has ended and all that it said can be heard."""
        self._listener.join(timeout_seconds)

    def bury(self) -> None:
        """Let go of a process that has ended, or that nothing ends."""
        self.hang_up()
        if self._scratch is not None:
            self._scratch.remove()

    # ---- the two threads

    def _listen(self) -> None:
        # What cannot be read, since it was cut off or garbled, is an end like any other.
        with self._events, suppress(Exception):
            while True:
                self._unheard.put(self._events.recv())
                self._wake()
        self.has_hung_up = True
        self._wake()
        self._process.join()
        self._wake()

    def _speak(self) -> None:
        with self._orders, suppress(OSError):  # it has died, which the listener tells
            while (message := self._unsaid.get()) is not None:
                self._orders.send(message)


def _scratch_folder() -> ScratchFolder | None:
    """A folder for what a process leaves behind, however it ends: each program that it unpacks."""
    try:
        return ScratchFolder(SCRATCH_PREFIX)
    except OSError as exc:  # a disk that is full or cannot be written to: a run needs none
        _log.warning("no folder for a device's temporary files: %s", exc)
        return None


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Processes started within have these variables too."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
