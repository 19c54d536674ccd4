"""Holdings with one device, for tests, and what its process may say."""

from __future__ import annotations

from ridgeline.service.protocol import (
    RunEnded,
    RunKey,
    RunOrder,
    RunReport,
    StudyRules,
    SyncResponse,
)
from ridgeline.service.worker.holdings import Holdings
from ridgeline.service.worker.messages import (
    Checkpoint,
    DeviceEvent,
    Died,
    Hello,
    Key,
    Started,
    key_of,
)
from tests.worker.fakes import HANG_SECONDS, ManualClock, device_info


class Port:
    """Notes what the agent does to a device."""

    isolates = False

    def __init__(self) -> None:
        self.started: list[Key] = []
        self.given: list[Checkpoint | None] = []
        """The checkpoints of those that were started."""
        self.rules: list[StudyRules] = []
        self.stopped: list[Key] = []
        self.killed: list[tuple[str, bool]] = []

    def start(self, order: RunOrder, checkpoint: Checkpoint | None) -> None:
        self.started.append(key_of(order))
        self.given.append(checkpoint)

    def stop(self, key: Key) -> None:
        self.stopped.append(key)

    def set_rules(self, rules: StudyRules) -> None:
        self.rules.append(rules)

    def kill(self, why: str, *, is_hung: bool) -> None:
        self.killed.append((why, is_hung))


class Desk:
    """Holdings with one device that is ready."""

    def __init__(self, num_slots: int = 1, *, hang_seconds: float = HANG_SECONDS) -> None:
        self.clock = ManualClock()
        self.port = Port()
        self.holdings = Holdings({"cpu:0": self.port}, self.clock, hang_seconds=hang_seconds)
        self.ready = Hello(device_info("cpu:0", num_slots), None)
        self.hear(self.ready)

    def hear(self, *events: DeviceEvent) -> None:
        for event in events:
            self.holdings.hear("cpu:0", event)

    def answer(self, *start: RunOrder, stop: tuple[Key, ...] = ()) -> None:
        self.holdings.statement()
        self.holdings.answered(
            SyncResponse(
                start=start,
                stop=tuple(RunKey(run=run, attempt=attempt) for run, attempt in stop),
                refused=(),
            )
        )

    def ended(self) -> list[tuple[int, str]]:
        return [(end.run, end.outcome) for end in self.holdings.statement().ended]

    def held(self) -> list[int]:
        return [run.run for run in self.holdings.statement().held]


def report(run: int, epoch: int) -> RunReport:
    return RunReport(run=run, attempt=1, epoch=epoch, metrics={"loss": 1.0})


def complete(run: int, attempt: int = 1) -> RunEnded:
    return RunEnded(run=run, attempt=attempt, outcome="complete", value=0.5, program="p")


def began(run: int, attempt: int = 1) -> Started:
    return Started((run, attempt), "p")


SEGFAULT = Died("died with signal 11 (Segmentation fault)")
