"""The database's clock is set: no run is stuck, no worker loses its lease, no study ends early."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ridgeline.service import extending, projection, reporting, trials, workers
from ridgeline.service.external_protocol import ReportRequest, SuggestRequest
from ridgeline.service.lifecycle import StudyState
from ridgeline.service.resources import ExtendRequest
from ridgeline.service.store.session import Store, Transaction
from ridgeline.service.timekeeping import Timekeeper
from tests.conftest import ManualClock
from tests.service.factory import SETTINGS, FakeWorker, external, post, spec, study_of

HOUR = 3_600.0
LEASE = SETTINGS.lease_seconds


class Time:
    """The time that passes, and beside it a clock that can be set."""

    def __init__(self, store: Store, clock: ManualClock) -> None:
        self._store = store
        self._clock = clock
        self.seconds = 0.0
        self.keepers = [self.keeper()]

    def keeper(self) -> Timekeeper:
        keeper = Timekeeper(LEASE, monotonic=lambda: self.seconds)
        self._store.tell_of_time(keeper.saw)
        return keeper

    def set_clock(self, by: float) -> None:
        self._clock.advance(by)

    def passes(self, seconds: float) -> int:
        """Maintenance goes on meanwhile; how many runs it takes back."""
        num_taken = 0
        for _ in range(int(seconds)):
            self.seconds += 1
            self._clock.advance(1)
            for keeper in self.keepers:
                num_taken += self.maintain(keeper)
        return num_taken

    def maintain(self, keeper: Timekeeper, *, clock_set_by: float = 0.0) -> int:
        """What `app.maintain` does each time; the clock may be set in the middle of it."""
        now = keeper.keep(self._store)
        self.set_clock(clock_set_by)
        return 0 if now is None else workers.expire(self._store, by=now)


def check_that_a_study_has(seconds: int, store: Store, time: Time) -> None:
    """So many from now on, give or take what maintenance may be late."""
    time.passes(seconds - 5)
    assert not study_of(store).stopping
    time.passes(10)
    assert study_of(store).stopping


@contextmanager
def clock_read_before(time: Time, by: float) -> Iterator[None]:
    """A transaction reads the clock, which is set then, and ends after that has been noticed."""
    time.set_clock(by)
    time.passes(1)
    time.set_clock(-by)
    yield
    time.set_clock(by)


@pytest.fixture
def time(store: Store, clock: ManualClock) -> Time:
    return Time(store, clock)


@pytest.mark.parametrize("by", [-HOUR, HOUR])
def test_a_worker_killed_after_the_clock_was_set_loses_its_runs(
    store: Store, time: Time, by: float
) -> None:
    post(store, spec())
    time.passes(LEASE + 5)
    FakeWorker(store, num_slots=2).sync()
    time.set_clock(by)
    assert time.passes(LEASE - 5) == 0, "its lease is not over"
    assert time.passes(10) == 2


@pytest.mark.parametrize("by", [-HOUR, HOUR])
def test_a_worker_that_lives_on_keeps_its_runs(store: Store, time: Time, by: float) -> None:
    post(store, spec())
    worker = FakeWorker(store, num_slots=2)
    time.passes(LEASE - 10)
    worker.sync()
    time.passes(11)
    time.set_clock(by)
    assert time.passes(10) == 0
    worker.sync(free_slots={})
    assert time.passes(LEASE - 5) == 0
    assert len(worker.held) == 2


def test_a_clock_set_back_before_the_api_started(store: Store, time: Time) -> None:
    post(store, spec())
    FakeWorker(store, num_slots=2).sync()
    post(store, external("e"))
    trials.suggest(store, "e", SuggestRequest(lease_seconds=10))
    time.set_clock(-HOUR)
    time.keepers = [time.keeper()]
    assert time.passes(LEASE + 5) == 3


@pytest.mark.parametrize("by", [-HOUR, HOUR])
def test_leases_of_programs_of_ones_own(store: Store, time: Time, by: float) -> None:
    post(store, external())
    time.passes(LEASE + 5)
    (trial,) = trials.suggest(store, "s", SuggestRequest(lease_seconds=100)).trials
    time.set_clock(by)
    assert time.passes(90) == 0
    with store.transaction() as tx:
        report = ReportRequest(attempt=trial.attempt, epoch=1, metrics={"score": 1.0})
        reporting.report(tx, "s", trial.number, report)
    assert time.passes(99) == 0
    assert time.passes(3) == 1


@pytest.mark.parametrize("by", [-HOUR, HOUR])
def test_a_clock_that_is_set_and_set_right_between_two_looks(
    store: Store, time: Time, by: float
) -> None:
    time.passes(LEASE + 5)
    post(store, spec())
    worker = FakeWorker(store, num_slots=2)
    worker.sync()
    post(store, external("e"))
    time.passes(1)
    time.set_clock(by)
    worker.sync(free_slots={})
    (trial,) = trials.suggest(store, "e", SuggestRequest(lease_seconds=100)).trials
    time.set_clock(-by)
    assert time.passes(LEASE - 5) == 0, "its lease is not over"
    worker.sync(free_slots={})
    assert time.passes(LEASE - 5) == 0
    assert (trial.number, len(worker.held)) == (0, 2)
    assert time.passes(LEASE) == 2
    assert time.passes(100 - LEASE) == 1


@pytest.mark.parametrize("num_apis", [1, 2])
@pytest.mark.parametrize("by", [-HOUR, HOUR])
def test_a_study_has_the_seconds_of_its_budget(
    store: Store, time: Time, by: float, num_apis: int
) -> None:
    time.keepers = [time.keeper() for _ in range(num_apis)]
    post(store, external(budget={"trials": 4, "seconds": 100}))
    time.passes(LEASE + 5)
    trials.suggest(store, "s", SuggestRequest())
    time.passes(40)
    time.set_clock(by)
    time.passes(50)
    assert not study_of(store).stopping
    time.passes(15)
    assert study_of(store).stopping


@pytest.mark.parametrize("by", [-HOUR, HOUR])
def test_a_study_begun_just_before_the_clock_is_set(store: Store, time: Time, by: float) -> None:
    time.passes(LEASE + 5)
    post(store, external(budget={"trials": 4, "seconds": 100}))
    time.seconds += 0.5
    time.set_clock(0.5)
    trials.suggest(store, "s", SuggestRequest())
    time.set_clock(by)
    check_that_a_study_has(100, store, time)


@pytest.mark.parametrize("by", [-HOUR, HOUR])
def test_a_study_begun_by_a_clock_read_before_it_was_set(
    store: Store, time: Time, by: float
) -> None:
    post(store, external(budget={"trials": 4, "seconds": 100}))
    time.passes(LEASE + 5)
    with clock_read_before(time, by):
        trials.suggest(store, "s", SuggestRequest())
    check_that_a_study_has(100, store, time)


@pytest.mark.parametrize("by", [-HOUR, HOUR])
def test_a_study_extended_by_a_clock_read_before_it_was_set(
    store: Store, time: Time, by: float
) -> None:
    post(store, external(budget={"trials": 4, "seconds": 100}))
    trials.suggest(store, "s", SuggestRequest())
    time.passes(LEASE + 5)
    with clock_read_before(time, by), store.transaction() as tx:
        extending.extend(tx, "s", ExtendRequest(seconds=200), max_open=10)
    time.passes(195)
    assert not study_of(store).stopping
    time.passes(110)
    assert study_of(store).stopping


@pytest.mark.parametrize("by", [-HOUR, HOUR])
def test_the_clock_is_set_again_while_deadlines_are_moved(
    store: Store, time: Time, by: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    time.passes(LEASE + 5)
    post(store, external(budget={"trials": 4, "seconds": 100}))
    trials.suggest(store, "s", SuggestRequest())
    time.passes(1)
    transaction = store.transaction

    @contextmanager
    def followed_by_a_change() -> Iterator[Transaction]:
        with transaction() as tx:
            yield tx
        monkeypatch.setattr(store, "transaction", transaction)
        time.set_clock(by)

    monkeypatch.setattr(store, "transaction", followed_by_a_change)
    time.set_clock(by)
    check_that_a_study_has(100, store, time)


@pytest.mark.parametrize("by", [-HOUR, HOUR])
def test_the_clock_is_set_while_maintenance_is_at_work(store: Store, time: Time, by: float) -> None:
    time.passes(LEASE + 5)
    post(store, spec(budget={"trials": 6, "seconds": 100}))
    worker = FakeWorker(store, num_slots=2)
    worker.sync()
    time.passes(5)
    assert time.maintain(time.keepers[0], clock_set_by=by) == 0
    assert time.passes(LEASE - 10) == 0
    worker.sync(free_slots={})
    assert not study_of(store).stopping


def test_a_study_begun_by_a_clock_set_back_before_the_api_started(store: Store, time: Time) -> None:
    post(store, external(budget={"trials": 4, "seconds": 100}))
    trials.suggest(store, "s", SuggestRequest())
    time.set_clock(-HOUR)
    time.keepers = [time.keeper()]
    time.passes(95)
    assert study_of(store).state is StudyState.RUNNING
    time.passes(10)
    assert study_of(store).stopping


def test_a_slow_answer_is_no_clock_that_was_set(
    store: Store, clock: ManualClock, time: Time
) -> None:
    """Between asking for the time and having it an hour may pass."""

    class SlowClock(ManualClock):
        def now(self, connection: object) -> float:
            time.seconds += HOUR
            clock.advance(HOUR)
            return clock.seconds

    slow = Store(
        store.url.render_as_string(hide_password=False),
        clock=SlowClock(),
        project=projection.project,
    )
    post(store, external(budget={"trials": 4, "seconds": 3 * HOUR}))
    trials.suggest(store, "s", SuggestRequest())
    keeper = time.keeper()
    before = study_of(store)
    for _ in range(3):
        keeper.keep(slow)
    slow.close()
    with store.reading() as tx:
        (deadline,) = tx.studies.deadlines().values()
    assert deadline.started_at == before.started_at
