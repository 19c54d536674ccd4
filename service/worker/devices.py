"""A device as the agent knows it: what its process is at, and whose fault it is when that dies."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from ridgeline.service.protocol import FUNCTIONS, DeviceInfo, RunOrder, StudyRules
from ridgeline.service.worker.limits import Limits
from ridgeline.service.worker.messages import Beat, Checkpoint, Key, key_of
from ridgeline.service.worker.shares import Shares

STOP_GRACE_SECONDS = 30.0
"""How long a device may go on with a run that it was told to stop, before it is started anew."""

SLOW_SECONDS = 600.0
"""What a device does before runs train may take as long: starting, loading data, making packs."""

_log = logging.getLogger(__name__)


def num_places(device: DeviceInfo) -> int:
    """How many runs a device holds: those that train, and some that wait.

    Small runs end faster than the api is asked for more.  And a small study is at hand as a whole,
    so that its runs are shared out among packs at once: a few that come late would train alone.
    A process for a function takes longer to start than a call does, and while runs wait here
    another worker may have nothing to do: there none waits.
    """
    if device.kind == FUNCTIONS:
        return device.num_slots
    return device.num_slots + max(2, device.num_slots)


class Port(Protocol):
    """What the agent does to the process of a device.

    Attributes:
        isolates: whether what a run does harms no other one, and it keeps to its own limits.
    """

    @property
    def isolates(self) -> bool: ...

    def start(self, order: RunOrder, checkpoint: Checkpoint | None) -> None: ...
    def stop(self, key: Key) -> None: ...
    def set_rules(self, rules: StudyRules) -> None: ...
    def kill(self, why: str, *, is_hung: bool) -> None: ...


@dataclass(frozen=True)
class Blame:
    """What follows from the death of a process.

    Attributes:
        guilty: the run that was alone at something, if there was one.
        others: the runs that it took with it, each with how many may train at once from now on
            where it is among them; None: as many as there are slots.
    """

    guilty: Key | None
    others: Mapping[Key, int | None]


class Device:
    """What a device's process has been given and is at, of runs that are ours no more too.

    Args:
        clock: monotonic seconds.
        limits: of all the worker's runs.
        hang_seconds: how long a turn of training may last.
    """

    def __init__(
        self,
        name: str,
        port: Port,
        clock: Callable[[], float],
        limits: Limits,
        hang_seconds: float,
    ) -> None:
        self._name = name
        self._port = port
        self._clock = clock
        self._limits = Limits() if port.isolates else limits
        self._hang_seconds = hang_seconds
        self.info: DeviceInfo | None = None
        self.ready = False
        self._waiting: dict[Key, RunOrder] = {}  # not given to the process yet
        self._checkpoints: dict[Key, Checkpoint] = {}  # of runs that have not begun
        self._forget()

    def _forget(self) -> None:
        """The process that is to come has been given nothing."""
        self._given: set[Key] = set()
        self._preparing: Key | None = None
        self._prepared: dict[Key, None] = {}  # in the order they came
        self._training = Shares(self._clock)
        self._most_beside: dict[Key, int] = {}  # how many trained at once, at most, by run
        self._end_by: dict[Key, float] = {}  # of runs whose training has a limit
        self._stop_by: dict[Key, float] = {}
        self._killed = False  # for a run that it did not stop
        self._hung: tuple[Key, ...] = ()  # it was killed for these
        self.num_idle = 0
        """Slots of its packs that no run is in."""

    # ---- what the agent wants

    def queue(self, order: RunOrder, checkpoint: Checkpoint | None = None) -> None:
        """Have a run trained once its turn has come, from its checkpoint on where it has one.

        Then `feed` is to be called.
        """
        self._waiting[key_of(order)] = order
        if checkpoint is not None:
            self._checkpoints[key_of(order)] = checkpoint

    def stop(self, key: Key) -> None:
        """Have a run that was ours trained no further."""
        self._checkpoints.pop(key, None)
        if self._waiting.pop(key, None) is None:
            # One that the process has not come to yet may have to wait for a long time.
            if key == self._preparing or key in self._prepared or key in self._training:
                self._expect_end(key)
            self._given.discard(key)
            self._prepared.pop(key, None)
            self._end_by.pop(key, None)
            self._port.stop(key)

    def set_rules(self, rules: StudyRules) -> None:
        """Have the runs of a study pruned by these rules; each process is to be told anew."""
        if self.ready:
            self._port.set_rules(rules)

    def feed(self) -> None:
        """Give the process what waits for it, in the order it came, as far as limits allow."""
        while self.ready and self._waiting:
            key, order = next(iter(self._waiting.items()))
            if not self._limits.allow(key, self._given | {*self._training}):
                return
            del self._waiting[key]
            self._given.add(key)
            self._port.start(order, self._checkpoints.get(key))

    # ---- what its process says

    def hello(self, info: DeviceInfo) -> None:
        """The process is ready."""
        self.info, self.ready = info, True

    def prepares(self, key: Key) -> None:
        """The process is at what this run alone needs."""
        self._preparing = key
        if key not in self._given:
            self._expect_end(key)

    def prepared(self, key: Key) -> None:
        """A run waits for a slot."""
        self._preparing = None
        if key in self._given:
            self._prepared[key] = None

    def trains(self, key: Key, limit_seconds: float | None) -> None:
        """A run has begun to train, for so long at most where there is a limit."""
        self._prepared.pop(key, None)
        self._checkpoints.pop(key, None)  # a later attempt brings its own
        self._training.begin(key)
        for other in self._training:
            self._most_beside[other] = max(self._most_beside.get(other, 0), len(self._training))
        if key not in self._given:  # it began before the word that stops it came
            self._expect_end(key)
        elif limit_seconds is not None and not self._port.isolates:
            self._end_by[key] = self._clock() + limit_seconds

    def leaves(self, key: Key) -> None:
        """The process has nothing to do with the run any more."""
        self._checkpoints.pop(key, None)
        self._given.discard(key)
        self._prepared.pop(key, None)
        self._training.end(key)
        self._most_beside.pop(key, None)
        self._end_by.pop(key, None)
        self._stop_by.pop(key, None)
        if self._preparing == key:
            self._preparing = None

    def seconds(self, key: Key) -> float:
        """The device time of a run that trains; 0 for others."""
        return self._training.seconds(key)

    @property
    def end_at(self) -> float:
        """When the next run will have trained for too long; infinite where none has a limit."""
        return min(self._end_by.values(), default=math.inf)

    def overdue(self) -> dict[Key, int]:
        """The runs that have trained for too long, and how many trained at once meanwhile."""
        now = self._clock()
        return {key: self._most_beside[key] for key, by in self._end_by.items() if by <= now}

    # ---- processes that do not stop a run, and those that die

    @property
    def kill_at(self) -> float:
        """When to call `kill_overdue`; infinite where no run is to be stopped."""
        return min(self._stop_by.values(), default=math.inf)

    def kill_overdue(self) -> None:
        """Kill the process if it has gone on for too long with a run it was to stop."""
        if self.kill_at <= self._clock():
            _log.warning("%s does not stop a run; killing its process", self._name)
            self._killed = True
            self._stop_by.clear()
            self._port.kill("it did not stop a run", is_hung=False)

    def beats(self, beat: Beat) -> None:
        """The process lives; kill it if what it is at does not end.

        A pack's turn takes moments.  What the main thread does before packs train takes longer.
        """
        if self._killed or self._hung:
            return
        stuck = [key for key, seconds in beat.turn_seconds.items() if seconds >= self._hang_seconds]
        if stuck:
            self._kill_hung(stuck, f"a step did not end for {self._hang_seconds:g} s")
        elif beat.loop_seconds >= (limit := max(SLOW_SECONDS, self._hang_seconds)):
            preparing = () if self._preparing is None else (self._preparing,)
            at_work = preparing or tuple(self._prepared) or tuple(self._training)
            self._kill_hung(at_work, f"it was at one thing for {limit:g} s")

    def blame(self, *, is_hung: bool) -> Blame:
        """Whose fault it is that the process has died, or was killed since it hung.

        That is known only of a run that was alone at something.  A process that was killed died of
        the run that it did not stop, which is ours no more, or of those that hung.  One that died
        while nobody trained may have been at a pack for those that wait for a slot.  One that fell
        silent may have hung at anything.
        """
        training = tuple(self._training)
        if self._killed:
            return Blame(None, dict.fromkeys(training))
        preparing = () if self._preparing is None else (self._preparing,)
        at_work = (*preparing, *training) if is_hung else preparing or training
        suspects = self._hung or at_work or tuple(self._prepared)
        others: dict[Key, int | None] = dict.fromkeys(training)
        if len(suspects) == 1:
            others.pop(suspects[0], None)
            return Blame(suspects[0], others)
        return Blame(None, others | dict.fromkeys(suspects, max(1, len(suspects) // 2)))

    def bury(self, open_runs: Iterable[RunOrder]) -> None:
        """The process is dead, and these runs wait for the next one."""
        self.ready = False
        self._waiting = {key_of(order): order for order in open_runs}
        self._checkpoints = {k: one for k, one in self._checkpoints.items() if k in self._waiting}
        self._forget()

    def _kill_hung(self, runs: Iterable[Key], why: str) -> None:
        self._hung = tuple(runs)
        self._port.kill(why, is_hung=True)

    def _expect_end(self, key: Key) -> None:
        self._stop_by[key] = self._clock() + STOP_GRACE_SECONDS
