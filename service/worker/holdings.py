"""The runs a worker holds, and what it has to tell of them: no processes, no network.

Everything a device says of a run is kept until an answer of the api has arrived for the statement
that carried it.  Taken or refused, it is then settled, and forgotten.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from service.protocol import (
    DeviceInfo,
    RunEnded,
    RunHeld,
    RunOrder,
    RunReport,
    StudyRules,
    SyncRequest,
    SyncResponse,
)
from service.worker.messages import (
    CannotStart,
    DeviceEvent,
    Died,
    HandedBack,
    Hello,
    Key,
    Started,
    key_of,
)

MAX_LIMITS = 10_000
"""Runs whose packs have failed that are remembered; the oldest are forgotten."""

REPORTS_PER_STATEMENT = 5_000
"""About 1.5 MB of JSON, well below what an api accepts."""

STOP_GRACE_SECONDS = 30.0
"""How long a device may go on with a run that it was told to stop, before it is started anew."""

_log = logging.getLogger(__name__)


def num_wanted(num_slots: int) -> int:
    """Runs to hold for so many slots: small runs end faster than the api is asked for more."""
    return num_slots + max(2, num_slots // 2)


class Port(Protocol):
    """What the agent does to the process of a device."""

    def start(self, order: RunOrder) -> None: ...
    def stop(self, key: Key) -> None: ...
    def set_rules(self, rules: StudyRules) -> None: ...
    def kill(self) -> None: ...


@dataclass
class _Run:
    order: RunOrder
    sent: bool = False
    program: str | None = None
    began_at: float | None = None
    reports: list[RunReport] = field(default_factory=list)
    end: RunEnded | None = None


@dataclass
class _Device:
    port: Port
    info: DeviceInfo | None = None
    ready: bool = False
    training: set[Key] = field(default_factory=set)  # what its process is at, still ours or not
    stop_by: dict[Key, float] = field(default_factory=dict)
    killed: bool = False


class Holdings:
    """What one registration of a worker holds.

    Args:
        devices: by name.
        clock: monotonic seconds.
    """

    def __init__(self, devices: Mapping[str, Port], clock: Callable[[], float]) -> None:
        self._devices = {name: _Device(port) for name, port in devices.items()}
        self._clock = clock
        self._runs: dict[Key, _Run] = {}
        self._statement: SyncRequest | None = None
        self._sync_seq = 0
        self._leaving = False
        self._limits: OrderedDict[int, int] = OrderedDict()
        self._rules: dict[str, StudyRules] = {}
        self.urgent = False
        """Whether the api should be told at once rather than in its turn."""

    # ---- devices

    @property
    def device_infos(self) -> tuple[DeviceInfo, ...]:
        """The devices that have been ready at least once."""
        return tuple(d.info for d in self._devices.values() if d.info is not None)

    def hear(self, device_name: str, event: DeviceEvent) -> None:
        """Take in what a device said, or its death."""
        device = self._devices[device_name]
        match event:
            case Hello(info=info):
                device.info, device.ready = info, True
                for rules in self._rules.values():
                    device.port.set_rules(rules)
                self._send(device_name)
            case CannotStart(reason=reason):
                _log.error("%s cannot be used: %s", device_name, reason)
            case Started(key=key, program=program):
                device.training.add(key)
                if (started := self._open_run(key)) is not None:
                    started.program, started.began_at = program, self._clock()
                else:  # it began before the word that stops it came
                    device.stop_by[key] = self._clock() + STOP_GRACE_SECONDS
            case RunReport():
                if (reported := self._open_run(key_of(event))) is not None:
                    reported.reports.append(event)
            case RunEnded():
                self._forget(device, key_of(event))
                if (ended := self._open_run(key_of(event))) is not None:
                    self._end(ended, event)
                self._send(device_name)
            case HandedBack(key=key, limit=limit):
                self._forget(device, key)
                if (returned := self._open_run(key)) is not None:
                    self._release(returned, limit)
                self._send(device_name)
            case Died(how=how):
                self._bury(device_name, how)

    def _bury(self, device_name: str, how: str) -> None:
        device = self._devices[device_name]
        trained = [run for key in sorted(device.training) if (run := self._open_run(key))]
        at_what = "".join(f" {run.order.run}" for run in trained)
        at_what = f" while it trained{at_what}" if trained else ""
        _log.warning("the process of %s %s%s; starting it anew", device_name, how, at_what)
        # Killed for a run that did not stop, it says nothing of the others.  Else one of those that
        # trained is to blame, and only where it was the only one is it known which.
        if len(trained) == 1 and not device.killed:
            self._end(trained[0], self._ended(trained[0], "crashed", f"the device process {how}"))
        else:
            for run in trained:
                self._release(run, None if device.killed else len(trained) // 2)
        for run in self._open_runs(device_name):
            run.sent = False
            if not device.ready:
                # Nobody knows when it will be of use again: others may have its runs.
                self._end(run, self._ended(run, "released"))
        self._devices[device_name] = _Device(device.port, device.info)

    def _release(self, run: _Run, limit: int | None) -> None:
        """Give a run back, and remember beside how few others it is to be tried again."""
        if limit is not None:
            self._limits[run.order.run] = limit
            self._limits.move_to_end(run.order.run)
            while len(self._limits) > MAX_LIMITS:
                self._limits.popitem(last=False)
        self._end(run, self._ended(run, "released"))

    def _forget(self, device: _Device, key: Key) -> None:
        device.training.discard(key)
        device.stop_by.pop(key, None)

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
        self._statement = None
        for refusal in answer.refused:
            _log.info("run %d, attempt %d: %s", refusal.run, refusal.attempt, refusal.reason)
        for rules in answer.rules:
            self._rules[rules.study] = rules
            for device in self._devices.values():
                if device.ready:
                    device.port.set_rules(rules)
        for stop in answer.stop:
            if (run := self._open_run(key_of(stop))) is not None:
                self._end(run, self._ended(run, "stopped"))
                self._tell_to_stop(run)
        for order in answer.start:
            # Runs handed to a worker that leaves go back with its last statement.
            if key_of(order) not in self._runs and not self._leaving:
                self._hold(order)
        studies = {run.order.study for run in self._runs.values()}
        self._rules = {name: rules for name, rules in self._rules.items() if name in studies}

    def drop_all(self) -> None:
        """Forget every run and all there is to tell: the api has given them to others."""
        for run in self._runs.values():
            if run.end is None:
                self._tell_to_stop(run)
        self._runs.clear()
        self._statement = None
        self._sync_seq = 0
        self.urgent = False

    def release_all(self) -> None:
        """Give every run back, and say in the last statement that the worker leaves."""
        self._leaving = True
        for run in self._runs.values():
            if run.end is None:
                self._end(run, self._ended(run, "released"))
        self.urgent = True

    # ---- runs that do not stop when told to

    @property
    def kill_at(self) -> float:
        """When to call `kill_overdue`; infinite where no device is to stop a run."""
        return min(
            (at for device in self._devices.values() for at in device.stop_by.values()),
            default=math.inf,
        )

    def kill_overdue(self) -> None:
        """Kill the processes that have gone on for too long with a run they were to stop."""
        for name, device in self._devices.items():
            if any(at <= self._clock() for at in device.stop_by.values()):
                _log.warning("%s does not stop a run; killing its process", name)
                device.killed = True
                device.stop_by.clear()
                device.port.kill()

    # ----

    def _open_run(self, key: Key) -> _Run | None:
        """A run held and not ended."""
        run = self._runs.get(key)
        return run if run is not None and run.end is None else None

    def _open_runs(self, device_name: str) -> list[_Run]:
        """Those of a device, in the order they came."""
        runs = self._runs.values()
        return [run for run in runs if run.end is None and run.order.device == device_name]

    def _hold(self, order: RunOrder) -> None:
        self._runs[key_of(order)] = _Run(order)
        self._send(order.device)

    def _send(self, device_name: str) -> None:
        """Have a device train what it has not been given yet.

        A run with a limit trains beside fewer than that many others, whatever they are.  So the
        runs that trained when the device failed are halved until the guilty one is alone.
        """
        device = self._devices[device_name]
        if not device.ready:
            return
        runs = self._open_runs(device_name)
        sent = [run for run in runs if run.sent]
        for run in runs:
            if run.sent:
                continue
            together = [*sent, run]
            limits = [self._limits.get(each.order.run, math.inf) for each in together]
            if len(together) > min(limits):
                return
            run.sent = True
            sent = together
            device.port.start(run.order)

    def _tell_to_stop(self, run: _Run) -> None:
        device = self._devices[run.order.device]
        key = key_of(run.order)
        if device.ready and run.sent:
            device.port.stop(key)
        if key in device.training:
            device.stop_by[key] = self._clock() + STOP_GRACE_SECONDS

    def _ended(self, run: _Run, outcome: str, error: str | None = None) -> RunEnded:
        """The end of a run as the agent sees it."""
        began_at = run.began_at
        return RunEnded.model_validate(
            {
                "run": run.order.run,
                "attempt": run.order.attempt,
                "outcome": outcome,
                "error": error,
                "program": run.program,
                "device_seconds": 0.0 if began_at is None else self._clock() - began_at,
            }
        )

    def _end(self, run: _Run, end: RunEnded) -> None:
        run.end = end
        if end.outcome not in ("released", "crashed"):
            self._limits.pop(end.run, None)
        # Small runs end as fast as the api answers: ask for the next one while others still wait.
        self.urgent = True

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
        self.urgent = not complete
        self._sync_seq += 1
        return SyncRequest(
            sync_seq=self._sync_seq,
            held=tuple(held),
            reports=tuple(reports),
            ended=tuple(ended),
            rules={name: rules.version for name, rules in self._rules.items()},
            free_slots={name: self._num_free(name) for name in self._devices},
            leaving=self._leaving and complete,
        )

    def _num_free(self, device_name: str) -> int:
        device = self._devices[device_name]
        if self._leaving or not device.ready:
            return 0
        assert device.info is not None
        return max(0, num_wanted(device.info.num_slots) - len(self._open_runs(device_name)))

    def _settle(self, statement: SyncRequest) -> None:
        for key, num_told in Counter(map(key_of, statement.reports)).items():
            del self._runs[key].reports[:num_told]
        for end in statement.ended:
            del self._runs[key_of(end)]
