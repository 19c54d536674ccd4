"""The agent's end of a device process: starts it, hears it out, and starts it anew when it dies."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import resource_tracker
from random import Random
from typing import Any

from service.protocol import RunOrder, StudyRules
from service.worker.backoff import backoff_seconds
from service.worker.device import main
from service.worker.messages import (
    DeviceEvent,
    Died,
    FromDevice,
    Hello,
    Key,
    Stop,
    ToDevice,
)
from service.worker.training import Backend, DeviceSpec

RESTART_CAP_SECONDS = 30.0
REAP_SECONDS = 5.0

_log = logging.getLogger(__name__)
_spawn = multiprocessing.get_context("spawn")


class DeviceProcess:
    """One device: at any time a process that serves it, or a time at which the next one starts.

    Args:
        clock: monotonic seconds.
    """

    def __init__(
        self,
        spec: DeviceSpec,
        backend: Backend,
        *,
        clock: Callable[[], float],
        random: Random,
    ) -> None:
        self._spec = spec
        self._backend = backend
        self._clock = clock
        self._random = random
        self._num_failures = 0
        self._start()

    @property
    def name(self) -> str:
        return self._spec.name or "the device"

    @property
    def restart_at(self) -> float | None:
        """When to call `poll` even if nothing has happened; None while there is a process."""
        return self._restart_at

    @property
    def waitables(self) -> list[Any]:
        """What `multiprocessing.connection.wait` is to wait for before the next `poll`."""
        return [] if self._restart_at is not None else [self._events, self._process.sentinel]

    def start(self, order: RunOrder) -> None:
        """Have the device train a run once it has a slot for it."""
        self._send(order)

    def stop(self, key: Key) -> None:
        """Have a run trained no further, or not at all."""
        self._send(Stop(key))

    def set_rules(self, rules: StudyRules) -> None:
        """Prune the runs of a study by these rules."""
        self._send(rules)

    def kill(self) -> None:
        """End the process, whatever it is at; its death is an event like any other."""
        self._process.kill()

    def hang_up(self) -> None:
        """Tell the process to end, without waiting for it."""
        self._orders.close()

    def poll(self) -> Iterator[DeviceEvent]:
        """What has happened since the last call; starts the next process when its time has come."""
        if self._restart_at is not None:
            if self._clock() < self._restart_at:
                return
            self._start()
        # Ask first, read then: what a dead process said before is all in the pipe by now.
        died = not self._process.is_alive()
        while messages := self._receive():
            for message in messages:
                self._note(message)
                yield message
        if died or self._hung_up:
            yield self._bury()

    def finish(self, deadline: float) -> list[FromDevice]:
        """Wait for a process hung up on to end, and kill it at `deadline`; its last words."""
        said: list[FromDevice] = []
        if self._restart_at is not None:
            return said
        while messages := self._receive(max(0.0, deadline - self._clock())):
            said += messages
        if not self._hung_up:
            self._process.kill()
        self._bury()
        return said

    def _start(self) -> None:
        orders, self._orders = _spawn.Pipe(duplex=False)
        self._events, events = _spawn.Pipe(duplex=False)
        self._process = _spawn.Process(
            target=main, args=(self._spec, self._backend, orders, events)
        )
        # Ctrl-C, and some supervisors' SIGTERM, reach the whole process group.  It is the agent
        # that decides what becomes of a device, so its process starts with both blocked, and no
        # run is charged for it.  The tracker must run by then: starting it unblocks them.
        resource_tracker.ensure_running()
        self._scratch = _scratch_folder()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            with _temporary_files_in(self._scratch):
                self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        # With the other ends held by the new process alone, its death reads as end-of-file here,
        # and ours there.
        orders.close()
        events.close()
        self._restart_at: float | None = None
        self._hung_up = False

    def _send(self, message: ToDevice) -> None:
        with suppress(OSError):  # it has died, which `poll` will tell
            self._orders.send(message)

    def _receive(self, timeout_seconds: float = 0.0) -> list[FromDevice]:
        """What the process has sent at once; nothing where there is none, or it has hung up."""
        try:
            return self._events.recv() if self._events.poll(timeout_seconds) else []
        except (EOFError, OSError):  # the last message may be cut off
            self._hung_up = True
            return []

    def _note(self, message: FromDevice) -> None:
        if isinstance(message, Hello):
            self._spec = replace(self._spec, name=message.info.name, survey=False)
            self._num_failures = 0

    def _bury(self) -> Died:
        process = self._process
        process.join(REAP_SECONDS)
        if process.is_alive():  # it has closed its pipe, and yet does not end
            process.kill()
            process.join()
        code = process.exitcode
        assert code is not None
        for end in (self._orders, self._events, process):
            end.close()
        if self._scratch is not None:
            self._scratch.cleanup()
        # A process that was of use is replaced at once.  One that died before it was ready, like
        # the one before it, would be started in vain over and over.
        self._num_failures += 1
        wait = 0.0
        if self._num_failures > 1:
            wait = backoff_seconds(
                self._num_failures - 1, self._random, cap_seconds=RESTART_CAP_SECONDS
            )
        self._restart_at = self._clock() + wait
        if code < 0:
            return Died(f"died with signal {-code} ({signal.strsignal(-code)})")
        return Died(f"ended with code {code}")


def _scratch_folder() -> tempfile.TemporaryDirectory[str] | None:
    """A folder for what a process leaves behind, however it ends: each program that it unpacks."""
    try:
        return tempfile.TemporaryDirectory(prefix="ridgeline-device-", ignore_cleanup_errors=True)
    except OSError as exc:  # a disk that is full or cannot be written to: a run needs none
        _log.warning("no folder for a device's temporary files: %s", exc)
        return None


@contextmanager
def _temporary_files_in(folder: tempfile.TemporaryDirectory[str] | None) -> Iterator[None]:
    """Processes started within keep their temporary files there."""
    before = os.environ.get("TMPDIR")
    if folder is not None:
        os.environ["TMPDIR"] = folder.name
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = before
