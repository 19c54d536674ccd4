"""One call about many runs: each is taken or refused by itself, and nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import event

from ridgeline.service import studies, trials, workers
from ridgeline.service.errors import StaleAttempt
from ridgeline.service.ledger import Ledger
from ridgeline.service.lifecycle import RunState, TrialState
from ridgeline.service.outcomes import News, completed, handed_back
from ridgeline.service.protocol import RunOrder, RunReport
from ridgeline.service.resources import Event, Trial
from ridgeline.service.store.rows import RunRow
from ridgeline.service.store.session import Store
from tests.conftest import ManualClock
from tests.parallel import in_parallel
from tests.service.factory import SETTINGS, FakeWorker, ended, post, spec, study_of
from tests.service.test_workers import all_trials

NUM_RUNS = 8
NUM_EPOCHS = 3


def reports(orders: list[RunOrder]) -> list[RunReport]:
    return [
        RunReport(run=order.run, attempt=order.attempt, epoch=epoch, metrics={"train_loss": 1.0})
        for order in orders
        for epoch in range(1, NUM_EPOCHS + 1)
    ]


def busy_worker(store: Store, num_runs: int = NUM_RUNS) -> tuple[FakeWorker, list[RunOrder]]:
    worker = FakeWorker(store, num_slots=num_runs)
    worker.sync()
    return worker, list(worker.held.values())


def num_epochs(store: Store, number: int) -> int:
    with store.reading() as tx:
        return len(trials.get(tx, "s", number).epochs)


def states(found: list[Trial]) -> list[TrialState]:
    return [trial.state for trial in found]


def events(store: Store) -> list[Event]:
    with store.reading() as tx:
        return studies.events(tx, "s", after=0, limit=1_000)[0]


class Statements:
    """Counts what is sent to a store's database."""

    def __init__(self, store: Store) -> None:
        self._engine = store._engine
        self.number = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        def count(*_: object) -> None:
            self.number += 1

        self.number = 0
        event.listen(self._engine, "before_cursor_execute", count)
        yield
        event.remove(self._engine, "before_cursor_execute", count)


def test_ends_are_answered_with_new_runs(store: Store) -> None:
    post(store, spec(budget={"trials": 3 * NUM_RUNS}))
    worker, orders = busy_worker(store)
    answer = worker.sync(ended=[ended(order) for order in orders], reports=reports(orders))
    assert [order.trial for order in answer.start] == list(range(NUM_RUNS, 2 * NUM_RUNS))
    assert study_of(store).trials.complete == NUM_RUNS
    assert num_epochs(store, 0) == NUM_EPOCHS


def test_the_number_of_statements_does_not_follow_that_of_runs(store: Store) -> None:
    post(store, spec(budget={"trials": 1_000}))
    statements = Statements(store)
    numbers = []
    for num_runs in (2, 40):
        worker, orders = busy_worker(store, num_runs)
        statement = worker.statement(
            ended=[ended(order) for order in orders], reports=reports(orders)
        )
        with statements.counted():
            answer = worker.send(statement)
        assert len(answer.start) == num_runs
        numbers.append(statements.number)
        worker.hear(statement, answer)
        worker.sync(leaving=True, held=[])
    assert numbers[0] == numbers[1]


def test_a_call_sent_again_changes_nothing(store: Store) -> None:
    post(store, spec(budget={"trials": NUM_RUNS}, replicates=2))
    worker, orders = busy_worker(store)
    statement = worker.statement(
        ended=[ended(order) for order in orders[1:]], reports=reports(orders), free_slots={}
    )
    worker.send(statement)
    before = study_of(store), all_trials(store), events(store)
    assert worker.send(statement).refused == ()
    assert (study_of(store), all_trials(store), events(store)) == before
    assert states(before[1]).count(TrialState.COMPLETE) == 3


def test_what_came_before_the_call_was_lost_is_taken_once(store: Store) -> None:
    """The second call repeats some epochs and brings others."""
    post(store, spec(budget={"trials": NUM_RUNS}))
    worker, orders = busy_worker(store)
    worker.sync(reports=reports(orders[:4])[:-1])
    worker.sync(reports=reports(orders))
    assert {num_epochs(store, number) for number in range(NUM_RUNS)} == {NUM_EPOCHS}


def test_refused_runs_take_no_other_with_them(store: Store, clock: ManualClock) -> None:
    """One is unknown, one handed to another worker by now, and one cancelled with its study."""
    post(store, spec(budget={"trials": NUM_RUNS}))
    late = FakeWorker(store)
    (lost,) = late.sync().start
    clock.advance(SETTINGS.lease_seconds + 1)
    workers.expire(store)
    other = FakeWorker(store)
    assert other.sync().start[0].run == lost.run
    post(store, spec("cancelled", budget={"trials": 1}, priority=1))
    worker, orders = busy_worker(store)
    with store.transaction() as tx:
        studies.apply_verb(tx, "cancelled", "cancel")
    mine = [order for order in orders if order.study == "s"]
    cancelled = [order for order in orders if order.study == "cancelled"]
    unknown = lost.model_copy(update={"run": 1_000_000})
    said = [unknown, lost, *mine]
    answer = worker.sync(
        ended=[ended(order) for order in said], reports=reports([*said, *cancelled]), held=[]
    )
    refused = {refusal.run: refusal.reason for refusal in answer.refused}
    assert set(refused) == {unknown.run, lost.run, *(order.run for order in cancelled)}
    assert refused[unknown.run] == "no such run"
    assert "elsewhere" in refused[lost.run]
    assert "cancelled" in refused[cancelled[0].run]
    assert study_of(store).trials.complete == len(mine) == NUM_RUNS - 1
    assert num_epochs(store, lost.trial) == 0


def test_a_stale_run_in_a_bulk_leaves_nothing_behind(store: Store) -> None:
    """What the guards are for: somebody took runs that he had read without the study's lock."""
    post(store, spec(budget={"trials": NUM_RUNS}))
    _, orders = busy_worker(store)

    def rows() -> list[RunRow]:
        with store.reading() as tx:
            return list(tx.runs.get([order.run for order in orders]).values())

    seen = rows()
    with store.transaction() as tx:
        Ledger(tx, seen[0].study_id).take([News(seen[0], outcome=handed_back())])
    before = rows()
    outcome = completed(value=1.0, metrics={})
    news = [News(run, epochs={1: {"train_loss": 1.0}}, outcome=outcome) for run in seen]
    with pytest.raises(StaleAttempt), store.transaction() as tx:
        Ledger(tx, seen[0].study_id).take(news)
    assert rows() == before
    assert num_epochs(store, orders[1].trial) == 0


def test_many_ends_from_threads_at_once_are_taken_once(store: Store, clock: ManualClock) -> None:
    post(store, spec(budget={"trials": NUM_RUNS}))
    worker, orders = busy_worker(store)
    clock.advance(1)
    statement = worker.statement(
        ended=[ended(order) for order in orders], reports=reports(orders), free_slots={}
    )
    answers = []
    in_parallel(4, lambda: answers.append(worker.send(statement)))
    assert [answer.refused for answer in answers] == [()] * 4
    study = study_of(store)
    assert study.trials.complete == NUM_RUNS
    assert study.device_seconds == NUM_RUNS


def test_two_workers_end_the_same_runs_and_one_has_them(store: Store, clock: ManualClock) -> None:
    post(store, spec(budget={"trials": NUM_RUNS}))
    _, first = busy_worker(store)
    clock.advance(SETTINGS.lease_seconds + 1)
    workers.expire(store)
    other, second = busy_worker(store)
    assert [order.run for order in first] == [order.run for order in second]
    late = FakeWorker(store)
    said = [
        (late, late.statement(ended=[ended(order, value=0.1) for order in first], free_slots={})),
        (other, other.statement(ended=[ended(order) for order in second], free_slots={})),
    ]
    in_parallel(2, lambda: (lambda one: one[0].send(one[1]))(said.pop()))
    with store.reading() as tx:
        runs = tx.runs.get([order.run for order in first]).values()
    assert {(run.state, run.attempt, run.worker_id) for run in runs} == {
        (RunState.COMPLETE, 2, other.id)
    }
    assert 0.1 not in {run.value for run in runs}


def test_changes_are_told_run_by_run(store: Store) -> None:
    """First a run's epochs, then the run, then its trial; every revision once."""
    post(store, spec(budget={"trials": 2}))
    worker, orders = busy_worker(store)
    worker.sync(ended=[ended(order) for order in orders], reports=reports(orders))
    told = [(e.type, e.data.get("trial", e.data.get("number"))) for e in events(store)]
    of_trials = [
        change
        for number in (0, 1)
        for change in [*[("report", number)] * NUM_EPOCHS, ("run", number), ("trial", number)]
    ]
    assert told == [*of_trials, ("study", None)]
    ids = [e.id for e in events(store)]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
