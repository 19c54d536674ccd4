"""The runs a worker holds, and what it has to tell of them: no processes, no network.

Everything a device says of a run is kept until an answer of the api has arrived for the statement
that carried it.  Taken or refused, it is then settled, and forgotten.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ridgeline.service import logs
from ridgeline.service.protocol import (
    DeviceInfo,
    RunEnded,
    RunHeld,
    RunOrder,
    RunReport,
    StudyRules,
    SyncRequest,
    SyncResponse,
)
from ridgeline.service.worker.devices import Device, Port, num_places
from ridgeline.service.worker.limits import Limits
from ridgeline.service.worker.messages import (
    Beat,
    CannotStart,
    Checkpoint,
    DeviceEvent,
    Died,
    Hello,
    Idle,
    Key,
    Prepared,
    Preparing,
    Released,
    Started,
    key_of,
)

REPORTS_PER_STATEMENT = 5_000
"""About 1.5 MB of JSON, well below what an api accepts."""

_log = logging.getLogger(__name__)


@dataclass
class _Run:
    """A run held.

    Attributes:
        is_fetching: its checkpoint is on the way, and no device has heard of it yet.
        checkpoints: the next that is to be sent, and the newest, which may be another one.
    """

    order: RunOrder
    program: str | None = None
    reports: list[RunReport] = field(default_factory=list)
    end: RunEnded | None = None
    is_fetching: bool = False
    checkpoints: list[Checkpoint] = field(default_factory=list)

    def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        # The first one stays: were it replaced each time before its epochs are told, a fast run
        # would never send any.
        self.checkpoints[1:] = []
        self.checkpoints.append(checkpoint)

    def take_checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint of which the api knows all epochs, which it demands."""
        first_untold = self.reports[0].epoch if self.reports else math.inf
        told = [one for one in self.checkpoints if one.epoch < first_untold]
        del self.checkpoints[: len(told)]
        return told[-1] if told else None


class Holdings:
    """What one registration of a worker holds.

    Args:
        devices: by name.
        clock: monotonic seconds.
        hang_seconds: as a `Device` has them.
    """

    def __init__(
        self, devices: Mapping[str, Port], clock: Callable[[], float], *, hang_seconds: float
    ) -> None:
        self._limits = Limits()
        self._devices = {
            name: Device(name, port, clock, self._limits, hang_seconds)
            for name, port in devices.items()
        }
        self._runs: dict[Key, _Run] = {}
        self._statement: SyncRequest | None = None
        self._sync_seq = 0
        self._leaving = False
        self._rules: dict[tuple[str, int], StudyRules] = {}  # by study and bracket
        self._num_following: dict[str, int] = {}  # by study, as its latest order says
        self._restarts = Counter(dict.fromkeys(devices, 0))
        self._to_fetch: list[RunOrder] = []
        self._is_full = True
        """Whether the last answer had a run for each free slot of a device, so maybe more."""
        self.urgent = False
        """Whether the api should be told at once rather than in its turn."""
        self.has_ends = False
        """Whether a run has ended since the last statement."""

    # ---- devices

    @property
    def device_infos(self) -> tuple[DeviceInfo, ...]:
        """The devices that have been ready at least once."""
        return tuple(d.info for d in self._devices.values() if d.info is not None)

    @property
    def waits_for_work(self) -> bool:
        """Whether the next statement is one of `SyncRequest.waits_for_work`."""
        return not self._runs and any(map(self._num_free, self._devices))

    def hear(self, device_name: str, event: DeviceEvent) -> None:
        """Take in what a device said, or its death."""
        device = self._devices[device_name]
        match event:
            case Hello(info=info):
                device.hello(info)
                for rules in self._rules.values():
                    device.set_rules(rules)
            case CannotStart(reason=reason):
                _log.error("%s cannot be used: %s", device_name, reason)
            case Preparing(key=key):
                device.prepares(key)
            case Prepared(key=key):
                device.prepared(key)
            case Idle(num_slots=num_slots):
                device.num_idle = num_slots
            case Beat():
                device.beats(event)
            case Started(key=key, program=program):
                started = self._open_run(key)
                device.trains(key, None if started is None else started.order.run_seconds)
                if started is not None:
                    started.program = program
            case RunReport():
                if (reported := self._open_run(key_of(event))) is not None:
                    reported.reports.append(event)
            case Checkpoint(key=key):
                if (saved := self._open_run(key)) is not None:
                    saved.add_checkpoint(event)
            case RunEnded():
                self._hear_end(device, event)
            case Released(end=end, limit=limit):
                if limit is not None:
                    self._limits.lower(end.run, limit)
                self._hear_end(device, end)
            case Died():
                self._bury(device_name, event)
        device.feed()

    def _hear_end(self, device: Device, end: RunEnded) -> None:
        device.leaves(key_of(end))
        if (run := self._open_run(key_of(end))) is not None:
            self._end(run, end)

    def _bury(self, device_name: str, died: Died) -> None:
        device = self._devices[device_name]
        blame = device.blame(is_hung=died.is_hung)
        run_id, attempt = blame.guilty or (None, None)
        at_what = ""
        if run_id is not None:
            at_what = f" while at run {run_id}"
        elif blame.others:
            at_what = f" with {len(blame.others)} runs in training"
        with logs.about(device=device_name, run=run_id, attempt=attempt):
            _log.warning("the process of %s %s%s; starting it anew", device_name, died.how, at_what)
        self._restarts[device_name] += 1
        if blame.guilty is not None and (run := self._open_run(blame.guilty)) is not None:
            outcome = "timeout" if died.is_hung else "crashed"
            self._end(run, self._ended(run, outcome, f"the device process {died.how}"))
        for key, limit in blame.others.items():
            if (run := self._open_run(key)) is not None:
                if limit is not None:
                    self._limits.lower(run.order.run, limit)
                self._end(run, self._ended(run, "released"))
        if not device.ready:
            # Nobody knows when it will be of use again: others may have its runs.
            for run in self._open_runs(device_name):
                self._end(run, self._ended(run, "released"))
        device.bury(run.order for run in self._open_runs(device_name) if not run.is_fetching)

    # ---- the api

    def statement(self) -> SyncRequest:
        """What to tell the api: the same, to the letter, until `answered`."""
        if self._statement is None:
            self._statement = self._new_statement()
        return self._statement

    def answered(self, answer: SyncResponse) -> None:
        """Take in the answer to `statement`."""
        assert self._statement is not None
        self._settle(self._statement)
        free_slots = self._statement.free_slots
        self._statement = None
        for refusal in answer.refused:
            with logs.about(run=refusal.run, attempt=refusal.attempt):
                _log.info("refused: %s", refusal.reason)
        for rules in answer.rules:
            self._rules[rules.study, rules.bracket] = rules
            for device in self._devices.values():
                device.set_rules(rules)
        for stop in answer.stop:
            if (run := self._open_run(key_of(stop))) is not None:
                self._end(run, self._ended(run, "stopped"))
                self._devices[run.order.device].stop(key_of(stop))
        for order in answer.start:
            # Runs handed to a worker that leaves go back with its last statement.
            if key_of(order) not in self._runs and not self._leaving:
                self._take_on(order)
            self._num_following[order.study] = order.num_following
        num_given = Counter(order.device for order in answer.start)
        self._is_full = any(num_given[name] >= free for name, free in free_slots.items())
        studies = {run.order.study for run in self._runs.values()}
        self._rules = {key: rules for key, rules in self._rules.items() if key[0] in studies}
        self._num_following = {
            name: number for name, number in self._num_following.items() if name in studies
        }
        for device in self._devices.values():
            device.feed()

    def checkpoints_to_fetch(self) -> list[RunOrder]:
        """Runs whose checkpoints are to be got, and then given to `fetched`; each is told once."""
        told, self._to_fetch = self._to_fetch, []
        return [order for order in told if self._open_run(key_of(order)) is not None]

    def fetched(self, key: Key, checkpoint: Checkpoint | None) -> None:
        """Let a run begin from its checkpoint; None: from nothing, since it could not be got."""
        run = self._open_run(key)
        if run is not None and run.is_fetching:
            run.is_fetching = False
            device = self._devices[run.order.device]
            device.queue(run.order, checkpoint)
            device.feed()

    def checkpoints_to_send(self) -> list[Checkpoint]:
        """Those of which the api knows all epochs by now, of each run the newest; told once."""
        found = [run.take_checkpoint() for run in self._runs.values() if run.end is None]
        return [checkpoint for checkpoint in found if checkpoint is not None]

    def drop_all(self) -> None:
        """Forget every run and all there is to tell: the api has given them to others."""
        for run in self._runs.values():
            if run.end is None:
                self._devices[run.order.device].stop(key_of(run.order))
        self._runs.clear()
        self._statement = None
        self._sync_seq = 0
        self.urgent = self.has_ends = False

    def release_all(self) -> None:
        """Give every run back, and say in the last statement that the worker leaves."""
        self._leaving = True
        for run in self._runs.values():
            if run.end is None:
                self._end(run, self._ended(run, "released"))
        self.urgent = True

    # ---- runs that do not end in their time

    @property
    def due_at(self) -> float:
        """When to call `end_overdue`; infinite where no run has to end."""
        return min(min(device.end_at, device.kill_at) for device in self._devices.values())

    def end_overdue(self) -> None:
        """End the runs that have trained for too long, and processes that did not stop a run.

        A run that had company may have been held up by it.  It is tried again beside half as many,
        uncharged, until it is alone.
        """
        for device in self._devices.values():
            for key, num_runs in device.overdue().items():
                if (run := self._open_run(key)) is not None:
                    self._end_overdue(run, num_runs)
                device.stop(key)
            device.kill_overdue()

    # ----

    def _end_overdue(self, run: _Run, num_runs: int) -> None:
        """End a run that has trained for too long, among so many."""
        if num_runs == 1:
            limit = f"budget.run_seconds, which is {run.order.run_seconds:g}"
            self._end(run, self._ended(run, "timeout", f"it trained longer than {limit}"))
        else:
            self._limits.lower(run.order.run, num_runs // 2)
            self._end(run, self._ended(run, "released"))

    def _take_on(self, order: RunOrder) -> None:
        run = self._runs[key_of(order)] = _Run(order)
        if order.checkpoint is None:
            self._devices[order.device].queue(order)
        else:
            run.is_fetching = True
            self._to_fetch.append(order)

    def _open_run(self, key: Key) -> _Run | None:
        """A run held and not ended."""
        run = self._runs.get(key)
        return run if run is not None and run.end is None else None

    def _open_runs(self, device_name: str) -> list[_Run]:
        """Those of a device, in the order they came."""
        runs = self._runs.values()
        return [run for run in runs if run.end is None and run.order.device == device_name]

    def _ended(self, run: _Run, outcome: str, error: str | None = None) -> RunEnded:
        """The end of a run as the agent sees it."""
        key = key_of(run.order)
        return RunEnded.model_validate(
            {
                "run": run.order.run,
                "attempt": run.order.attempt,
                "outcome": outcome,
                "error": error,
                "program": run.program,
                "device_seconds": self._devices[run.order.device].seconds(key),
            }
        )

    def _end(self, run: _Run, end: RunEnded) -> None:
        run.end = end
        if end.outcome in ("crashed", "timeout"):
            self._limits.lower(run.order.run, 1)  # its next attempt shall cost nobody anything
        elif end.outcome != "released":
            self._limits.forget(run.order.run)
        self.has_ends = True
        # Small runs end as fast as the api answers: ask for the next one while others still wait.
        # Where there is none to come, a call only takes cores from those that train.
        self.urgent = (
            self.urgent
            or end.is_tried_again
            or self._is_full
            or any(self._num_following.values())
            or all(run.end is not None for run in self._runs.values())
        )

    def _new_statement(self) -> SyncRequest:
        held: list[RunHeld] = []
        reports: list[RunReport] = []
        ended: list[RunEnded] = []
        for run in self._runs.values():
            room = REPORTS_PER_STATEMENT - len(reports)
            reports += run.reports[:room]
            if run.end is not None and len(run.reports) <= room:
                ended.append(run.end)
            else:
                # A run whose last reports do not fit is held until they have been told.
                order = run.order
                held.append(
                    RunHeld(
                        run=order.run,
                        attempt=order.attempt,
                        device=order.device,
                        program=run.program,
                    )
                )
        complete = len(reports) == sum(len(run.reports) for run in self._runs.values())
        self.urgent, self.has_ends = not complete, False
        self._sync_seq += 1
        return SyncRequest(
            sync_seq=self._sync_seq,
            held=tuple(held),
            reports=tuple(reports),
            ended=tuple(ended),
            rules={rules.study: rules.version for rules in self._rules.values()},
            free_slots={name: self._num_free(name) for name in self._devices},
            idle_slots={name: device.num_idle for name, device in self._devices.items()},
            restarts=dict(self._restarts),
            leaving=self._leaving and complete,
        )

    def _num_free(self, device_name: str) -> int:
        device = self._devices[device_name]
        if self._leaving or not device.ready:
            return 0
        assert device.info is not None, "it has been ready"
        return max(0, num_places(device.info) - len(self._open_runs(device_name)))

    def _settle(self, statement: SyncRequest) -> None:
        for key, num_told in Counter(map(key_of, statement.reports)).items():
            del self._runs[key].reports[:num_told]
        for end in statement.ended:
            del self._runs[key_of(end)]
