"""When the api is called, and what its failures mean."""

from __future__ import annotations

import logging
import math
from random import Random

import pytest

from ridgeline.search.tasks.registry import of_workers
from ridgeline.service.protocol import (
    DatasetInfo,
    RunEnded,
    StudyRules,
    SyncResponse,
    WorkerRegistered,
)
from ridgeline.service.worker.api import CallFailed
from ridgeline.service.worker.holdings import Holdings
from ridgeline.service.worker.messages import Hello, Key
from ridgeline.service.worker.session import (
    ENDS_SECONDS,
    RETRY_CAP_SECONDS,
    Register,
    Session,
    Sync,
)
from tests.worker.fakes import HANG_SECONDS, ManualClock, device_info, order

NOTHING = SyncResponse(start=(), stop=(), refused=())


class Port:
    isolates = False

    def start(self, order: object, checkpoint: object) -> None:
        pass

    def stop(self, key: Key) -> None:
        pass

    def set_rules(self, rules: StudyRules) -> None:
        pass

    def kill(self, why: str, *, is_hung: bool) -> None:
        pass


class Line:
    """A session, and the other end of its line."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.holdings = Holdings({"cpu:0": Port()}, self.clock, hang_seconds=HANG_SECONDS)
        self.holdings.hear("cpu:0", Hello(device_info("cpu:0"), None))
        self.session = Session("here", (), self.holdings, clock=self.clock, random=Random(1))

    def register(self, worker_id: str = "w0", *, sync_interval_seconds: float = 0.5) -> Register:
        call = self.session.next_call()
        assert isinstance(call, Register)
        self.session.answered(
            WorkerRegistered(
                id=worker_id, lease_seconds=30, sync_interval_seconds=sync_interval_seconds
            )
        )
        return call

    def sync(self) -> Sync:
        call = self.session.next_call()
        assert isinstance(call, Sync)
        return call

    def wait(self) -> float:
        """Let the time come for the next call; how long that took."""
        seconds = max(0.0, self.session.due_at - self.clock())
        self.clock.seconds += seconds
        return seconds


@pytest.fixture
def line() -> Line:
    return Line()


def test_registers_then_calls_at_the_interval(line: Line) -> None:
    registration = line.register().registration
    names = tuple(task.name for task in of_workers())
    assert (registration.name, registration.tasks) == ("here", names)
    assert registration.devices == (device_info("cpu:0"),)
    call = line.sync()
    assert call.worker_id == "w0"
    assert line.session.next_call() is None, "one call at a time"
    assert line.session.due_at == math.inf
    line.clock.seconds += 0.2
    line.session.answered(NOTHING)
    assert line.session.next_call() is None
    assert line.wait() == pytest.approx(0.3)
    assert line.sync().request.sync_seq == 2


def test_calls_at_once_when_it_has_nothing_to_do_any_more(line: Line) -> None:
    line.register()
    line.sync()
    line.session.answered(SyncResponse(start=(order(1),), stop=(), refused=()))
    assert line.session.due_at > line.clock(), "a run is at hand"
    line.holdings.hear("cpu:0", RunEnded(run=1, attempt=1, outcome="stopped"))
    assert line.sync().request.ended
    line.session.answered(NOTHING)
    assert line.session.due_at == line.clock(), "the api answers such a call when work arrives"
    assert line.sync().request.waits_for_work
    line.session.answered(NOTHING)
    assert line.session.due_at > line.clock(), "an api that does not wait is not pressed"


def test_ends_are_told_within_half_a_second_however_long_the_interval(line: Line) -> None:
    line.register(sync_interval_seconds=9)
    line.sync()
    line.session.answered(SyncResponse(start=(order(1), order(2)), stop=(), refused=()))
    assert line.session.due_at == line.clock() + 9
    line.holdings.hear("cpu:0", RunEnded(run=1, attempt=1, outcome="stopped"))
    assert line.session.due_at == line.clock() + ENDS_SECONDS


def test_calls_at_once_when_there_is_something_urgent(line: Line) -> None:
    line.register()
    line.sync()
    line.session.answered(NOTHING)
    assert line.session.due_at > line.clock()
    line.holdings.urgent = True
    assert line.session.due_at < line.clock()
    line.sync()
    line.session.failed(CallFailed(None, "no route"))
    line.holdings.urgent = True
    assert line.session.due_at > line.clock(), "an api in trouble is not pressed"


@pytest.mark.parametrize("status", [None, 500, 502, 503, 429, 408, 200])
def test_repeats_the_same_statement_with_growing_waits(
    line: Line, status: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    line.register()
    first = line.sync()
    waits = []
    for _ in range(10):
        line.session.failed(CallFailed(status, "no route"))
        waits.append(line.wait())
        assert line.sync() == first
    assert 0.125 <= waits[0] <= 0.25
    assert 0.25 <= waits[1] <= 0.5
    assert all(RETRY_CAP_SECONDS / 2 <= wait <= RETRY_CAP_SECONDS for wait in waits[5:])
    assert len(set(waits)) == len(waits), "drawn by lot"
    line.session.answered(NOTHING)
    line.wait()
    assert line.sync().request.sync_seq == 2
    assert [record.getMessage() for record in caplog.records] == [
        "registered as worker w0 (here) with cpu:0",
        "no answer from the api; trying on: no route",
        "the api answers again",
    ]


@pytest.mark.parametrize("status", [404, 409])
def test_a_lost_worker_registers_again_with_nothing(
    line: Line, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    line.register()
    line.sync()
    line.session.answered(SyncResponse(start=(order(1),), stop=(), refused=()))
    waits = []
    for number in range(1, 4):
        line.wait()
        assert [run.run for run in line.sync().request.held] == ([1] if number == 1 else [])
        line.session.failed(CallFailed(status, "not known"))
        waits.append(line.wait())
        line.register(f"w{number}")
    assert waits == sorted(waits)
    assert waits[0] > 0, "not in a tight loop"
    call = line.sync()
    assert (call.worker_id, call.request.sync_seq, call.request.held) == ("w3", 1, ())
    assert [record.getMessage() for record in caplog.records] == [
        "registering again, without the runs held: not known"
    ]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "needs a token with the scope worker"),
        (403, "needs a token with the scope worker"),
        (422, "does not understand this worker: no"),
        (413, "does not understand this worker: no"),
    ],
)
@pytest.mark.parametrize("registered", [False, True])
def test_some_refusals_are_final(line: Line, status: int, message: str, registered: bool) -> None:
    if registered:
        line.register()
    assert line.session.next_call() is not None
    line.session.failed(CallFailed(status, "no"))
    assert line.session.fatal is not None
    assert message in line.session.fatal
    assert "\n" not in line.session.fatal
    line.clock.seconds += 100
    assert line.session.next_call() is None


def test_an_address_without_an_api_is_final(line: Line) -> None:
    line.session.next_call()
    line.session.failed(CallFailed(404, "http://example answered Not Found"))
    assert line.session.fatal is not None


def test_leaving_ends_with_the_answer_to_the_last_statement(line: Line) -> None:
    line.register()
    before = line.sync()
    line.session.leave()
    line.session.failed(CallFailed(503, "busy"))
    line.wait()
    assert line.sync() == before
    line.session.answered(NOTHING)
    assert not line.session.over
    assert line.session.due_at < line.clock()
    assert line.sync().request.leaving
    line.session.failed(CallFailed(None, "no route"))
    line.wait()
    assert line.sync().request.leaving
    line.session.answered(NOTHING)
    assert line.session.over
    assert line.session.next_call() is None


def test_leaving_during_trouble_tries_at_once(line: Line) -> None:
    line.register()
    line.sync()
    for _ in range(9):
        line.session.failed(CallFailed(None, "no route"))
        line.wait()
        line.sync()
    line.session.failed(CallFailed(None, "no route"))
    line.session.leave()
    line.sync()


def test_leaving_before_registration_and_after_loss_is_over_at_once(line: Line) -> None:
    line.session.leave()
    assert line.session.over
    other = Line()
    other.register()
    other.sync()
    other.session.leave()
    other.session.failed(CallFailed(409, "lost"))
    assert other.session.over


def test_data_sets_that_change_are_told_until_the_api_has_heard(line: Line) -> None:
    line.register()
    assert line.sync().request.datasets is None
    line.session.answered(NOTHING)
    toy = DatasetInfo(
        name="toy",
        fingerprint="ab" * 32,
        num_rows=9,
        num_features=2,
        num_classes=2,
        has_test_part=False,
    )
    line.session.datasets = (toy,)
    for _ in range(2):
        line.wait()
        assert line.sync().request.datasets == (toy,)
        line.session.failed(CallFailed(None, "no answer"))
    line.wait()
    line.sync()
    line.session.answered(NOTHING)
    line.wait()
    assert line.sync().request.datasets is None
    line.session.failed(CallFailed(404, "who are you?"))
    line.wait()
    assert line.register().registration.datasets == (toy,)
    line.wait()
    assert line.sync().request.datasets is None
