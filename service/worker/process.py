"""A device as a row of processes: each is heard out, watched, and replaced when it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random

from ridgeline.service.processes import death
from ridgeline.service.protocol import RunOrder, StudyRules
from ridgeline.service.worker.backoff import backoff_seconds
from ridgeline.service.worker.child import Child
from ridgeline.service.worker.devices import SLOW_SECONDS
from ridgeline.service.worker.messages import (
    BEAT_SECONDS,
    Checkpoint,
    DeviceEvent,
    Died,
    FromDevice,
    Hello,
    Key,
    Stop,
    ToDevice,
)
from ridgeline.service.worker.training import Backend, DeviceSpec

RESTART_CAP_SECONDS = 30.0

REAP_SECONDS = 5.0
"""How long a process may take to end that has closed its pipe, or was killed."""

LAST_CHANCE_SECONDS = 3 * BEAT_SECONDS
"""How long a silent process is listened to before it is killed: where this process was stopped for
a while, the other one may have been as well."""


class DeviceProcess:
    """One device: at any time a process that serves it, or a time at which the next one starts.

    Args:
        hang_seconds: how long a process may be silent.
        clock: monotonic seconds.
        wake: called, from any thread, when `poll` has something to do.
    """

    isolates = False

    def __init__(
        self,
        spec: DeviceSpec,
        backend: Backend,
        *,
        hang_seconds: float,
        clock: Callable[[], float],
        random: Random,
        wake: Callable[[], None],
    ) -> None:
        self._spec = spec
        self._backend = backend
        self._hang_seconds = hang_seconds
        self._clock = clock
        self._random = random
        self._wake = wake
        self._num_failures = 0
        self._child: Child | None = None
        self._killed: Died | None = None
        """What to tell of a process that was killed, once it has ended."""
        self._is_closing = self._is_doubted = False
        self._start()

    @property
    def name(self) -> str:
        return self._spec.name or "the device"

    @property
    def due_at(self) -> float:
        """When to call `poll` even if nothing has happened."""
        return self._due_at

    def start(self, order: RunOrder, checkpoint: Checkpoint | None = None) -> None:
        """Have the device train a run once it has a slot for it, from its checkpoint on."""
        if checkpoint is not None:
            self._say(checkpoint)
        self._say(order)

    def stop(self, key: Key) -> None:
        """Have a run trained no further, or not at all."""
        self._say(Stop(key))

    def set_rules(self, rules: StudyRules) -> None:
        """Prune the runs of a study by these rules."""
        self._say(rules)

    def kill(self, why: str, *, is_hung: bool) -> None:
        """End the process, whatever it is at; its death, which tells why, is an event as others."""
        if self._child is not None:
            self._child.kill()
            self._killed = Died(f"was killed: {why}", is_hung)
            self._due_at = self._clock() + REAP_SECONDS

    def hang_up(self) -> None:
        """Tell the process to end, without waiting for it."""
        if self._child is not None:
            self._child.hang_up()

    def poll(self) -> Iterator[DeviceEvent]:
        """What has happened since the last call; starts the next process when its time has come."""
        if self._child is None:
            if self._clock() < self._due_at:
                return
            self._start()
        child = self._child
        assert child is not None
        has_ended = child.has_ended
        if has_ended:
            child.wait(REAP_SECONDS)  # in vain only where another process holds its pipe
        for message in child.heard():
            self._note(message)
            yield message
        if has_ended:
            yield self._bury(child)
        elif child.has_hung_up and not self._is_closing:
            self._is_closing = True
            self._due_at = min(self._due_at, self._clock() + REAP_SECONDS)
        elif self._due_at <= self._clock():
            if self._killed is not None:
                yield self._bury(child)
            elif self._is_closing:
                self.kill("it closed its pipe and did not end", is_hung=False)
            elif self._is_doubted:
                self.kill("it said nothing for too long", is_hung=True)
            else:
                self._is_doubted = True
                self._due_at = self._clock() + LAST_CHANCE_SECONDS

    def finish(self, deadline: float) -> list[FromDevice]:
        """Wait for a process hung up on to end, and kill it at `deadline`; its last words."""
        child = self._child
        if child is None:
            return []
        child.wait(max(0.0, deadline - self._clock()))
        if not child.has_ended:
            child.kill()
            child.wait(REAP_SECONDS)
        said = list(child.heard())
        self._bury(child)
        return said

    def _start(self) -> None:
        self._child = Child(self._spec, self._backend, self._wake)
        self._due_at = self._clock() + max(SLOW_SECONDS, self._hang_seconds)
        self._killed = None
        self._is_closing = self._is_doubted = False

    def _say(self, message: ToDevice) -> None:
        if self._child is not None:
            self._child.say(message)

    def _note(self, message: FromDevice) -> None:
        if self._killed is None:
            self._due_at = self._clock() + self._hang_seconds
            self._is_doubted = False
        if isinstance(message, Hello):
            self._spec = replace(self._spec, name=message.info.name, survey=False)
            self._num_failures = 0

    def _bury(self, child: Child) -> Died:
        child.bury()
        self._child = None
        # A process that was of use is replaced at once.  One that died before it was ready, like
        # the one before it, would be started in vain over and over.
        self._num_failures += 1
        wait = 0.0
        if self._num_failures > 1:
            wait = backoff_seconds(
                self._num_failures - 1, self._random, cap_seconds=RESTART_CAP_SECONDS
            )
        self._due_at = self._clock() + wait
        code = child.exit_code
        if self._killed is not None:
            return self._killed
        if code is None:
            return Died("does not end")
        return Died(death(code))
