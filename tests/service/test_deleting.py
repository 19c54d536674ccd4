"""Deleted studies: nothing of them is left, and nothing of theirs is taken for another's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import optuna
import pytest
from optuna.storages import RDBStorage
from sqlalchemy import func, select, text

from ridgeline.service import projection, studies, trials, workers
from ridgeline.service.errors import Conflict, NotFound
from ridgeline.service.external_protocol import SuggestRequest
from ridgeline.service.store.rows import StudyRow
from ridgeline.service.store.session import Store, Transaction
from ridgeline.service.store.studies import Studies
from ridgeline.service.store.tables import metadata
from tests.conftest import ManualClock
from tests.service.factory import (
    SETTINGS,
    FakeWorker,
    ended,
    external,
    grant_deadlines,
    post,
    spec,
    study_of,
)

KEPT = {"rl_deleted_studies", "rl_workers", "rl_upgrades"}


def delete(store: Store, name: str = "s") -> None:
    with store.transaction() as tx:
        studies.delete(tx, name)


def tell(store: Store, verb: studies.Verb, name: str = "s") -> None:
    with store.transaction() as tx:
        studies.apply_verb(tx, name, verb)


def trained(store: Store, name: str = "s") -> None:
    """Post a study and train it to its end."""
    post(store, spec(name, pruner={"name": "median", "startup": 1}))
    worker = FakeWorker(store, num_slots=6)
    orders = worker.sync().start
    metrics = {"validation_accuracy": 0.5}
    reports = [
        {"run": one.run, "attempt": one.attempt, "epoch": 1, "metrics": metrics} for one in orders
    ]
    worker.sync(reports=reports)
    worker.end_all()


def test_nothing_is_left_of_it(store: Store) -> None:
    trained(store)
    delete(store)
    with store.reading() as tx:
        for table in metadata.tables.values():
            count = tx.connection.execute(select(func.count()).select_from(table)).scalar_one()
            assert (count > 0) == (table.name in KEPT), table.name
        for table_name in (
            *("studies", "study_directions", "study_user_attributes", "study_system_attributes"),
            *("trials", "trial_params", "trial_values", "trial_intermediate_values"),
            "trial_user_attributes",
        ):
            counted = tx.connection.execute(text(f"SELECT count(*) FROM {table_name}"))
            assert counted.scalar_one() == 0, table_name
        with pytest.raises(NotFound):
            studies.get(tx, "s")


def test_others_are_left_alone(store: Store) -> None:
    trained(store, "t")
    before = study_of(store, "t")
    trained(store, "s")
    storage = RDBStorage(store.url.render_as_string(hide_password=False))
    theirs = optuna.create_study(study_name="theirs", storage=storage)
    theirs.add_trial(optuna.create_trial(value=1.0))
    delete(store)
    assert study_of(store, "t") == before
    assert len(optuna.load_study(study_name="t", storage=storage).trials) == 6
    assert len(theirs.trials) == 1
    storage.remove_session()
    storage.engine.dispose()


@pytest.mark.parametrize("verb", ["pause", None])
def test_an_open_study_is_not_deleted(store: Store, verb: studies.Verb | None) -> None:
    post(store, spec())
    if verb is not None:
        tell(store, verb)
    with pytest.raises(Conflict, match="; cancel it before"):
        delete(store)
    tell(store, "cancel")
    delete(store)


def test_the_name_can_be_used_again(store: Store) -> None:
    trained(store)
    storage = RDBStorage(store.url.render_as_string(hide_password=False))
    ids = {optuna.load_study(study_name="s", storage=storage)._study_id}
    for _ in range(2):
        delete(store)
        trained(store)
        study = study_of(store)
        assert (study.trials.complete, study.projection_error) == (6, None)
        reader = optuna.load_study(study_name="s", storage=storage)
        assert [trial.state.name for trial in reader.trials] == ["COMPLETE"] * 6
        ids.add(reader._study_id)
    assert len(ids) == 3, "a reader that knows the first would take another for it"
    storage.remove_session()
    storage.engine.dispose()


def test_what_a_late_worker_says_is_not_taken_for_another_study(store: Store) -> None:
    post(store, spec("old"))
    late = FakeWorker(store, num_slots=1)
    (old,) = late.sync().start
    tell(store, "cancel", "old")
    delete(store, "old")
    post(store, spec("new"))
    answer = late.sync(ended=[ended(old)], free_slots={"cpu:0": 1})
    assert [(one.run, one.reason) for one in answer.refused] == [(old.run, "no such run")]
    (new,) = answer.start
    assert (new.study, new.run > old.run) == ("new", True)
    answer = late.sync()
    assert answer.stop == ()


def test_a_history_in_memory_is_not_taken_for_another_studys(store: Store) -> None:
    budget = {"trials": 40, "max_parallel": 40}
    for _ in range(2):
        post(store, external(sampler={"name": "tpe", "seed": 1}, budget=budget))
        numbers = [
            trial.number
            for count in (1, 30)
            for trial in trials.suggest(store, "s", SuggestRequest(count=count)).trials
        ]
        assert numbers == list(range(31))
        tell(store, "cancel")
        delete(store)


class Meanwhile:
    """Another process, which deletes the study `s` at the `moment`-th chance that it has.

    It has one before each transaction, and on PostgreSQL within one, until the study is locked.
    """

    def __init__(self, store: Store, moment: int, patch: pytest.MonkeyPatch) -> None:
        self.num_left = moment
        url = store.url.render_as_string(hide_password=False)
        self._other = Store(url, clock=ManualClock(), project=projection.project)
        transaction, reading, lock = Store.transaction, Store.reading, Studies.lock
        locks_tables = store.url.get_backend_name() == "sqlite"

        @contextmanager
        def changing(store: Store) -> Iterator[Transaction]:
            self._chance(store)
            with transaction(store) as tx:
                yield tx

        @contextmanager
        def looking(store: Store) -> Iterator[Transaction]:
            self._chance(store)
            with reading(store) as tx:
                yield tx

        def locking(studies: Studies, study_id: int) -> StudyRow:
            if not locks_tables and not studies._locked:
                self._chance(store)
            return lock(studies, study_id)

        patch.setattr(Store, "transaction", changing)
        patch.setattr(Store, "reading", looking)
        patch.setattr(Studies, "lock", locking)

    @property
    def has_come(self) -> bool:
        return self.num_left < 0

    def close(self) -> None:
        self._other.close()

    def _chance(self, store: Store) -> None:
        if store is self._other:
            return
        self.num_left -= 1
        if self.num_left == -1:
            tell(self._other, "cancel")
            delete(self._other)


@contextmanager
def deleted_meanwhile(store: Store, moment: int) -> Iterator[Meanwhile]:
    with pytest.MonkeyPatch.context() as patch:
        other = Meanwhile(store, moment, patch)
        yield other
        other.close()


def num_held(store: Store) -> int:
    with store.reading() as tx:
        worker_ids = [worker.id for worker in tx.workers.all()]
        return sum(sum(held.values()) for held in tx.runs.num_held(worker_ids).values())


def _say(store: Store, worker: FakeWorker) -> None:
    """Report and end a run of each study, and ask for others."""
    worker.num_places = 4
    metrics = {"validation_accuracy": 0.5}
    orders = list(worker.held.values())[:2]
    reports = [
        {"run": one.run, "attempt": one.attempt, "epoch": 1, "metrics": metrics} for one in orders
    ]
    worker.sync(reports=reports, ended=[ended(one) for one in orders])
    worker.sync()
    assert study_of(store, "t").trials.complete == 1


def _leave(store: Store, worker: FakeWorker) -> None:
    worker.sync(leaving=True, free_slots={})
    assert num_held(store) == 0


def _is_lost(store: Store, worker: FakeWorker) -> None:
    assert workers.expire(store) in (1, 2)
    assert num_held(store) == 0


@pytest.mark.parametrize("move", [_say, _leave, _is_lost])
def test_a_study_that_is_deleted_at_any_moment_of_a_workers_call(
    move: Callable[[Store, FakeWorker], None], store: Store, clock: ManualClock
) -> None:
    """The others have what the worker said, and it goes on."""
    moment, has_come = 0, True
    while has_come:
        pruner = {"name": "median", "startup": 1}
        for name in ("s", "t"):
            post(store, spec(name, pruner=pruner, budget={"trials": 6, "seconds": 10.0}))
        worker = FakeWorker(store, num_slots=2)
        worker.sync()
        assert {order.study for order in worker.held.values()} == {"s", "t"}
        if move is _is_lost:
            grant_deadlines(store)
            clock.advance(SETTINGS.lease_seconds + 1)  # and the time of both studies is up
        with deleted_meanwhile(store, moment) as other:
            move(store, worker)
            has_come = other.has_come
        for name in ("s", "t"):
            with suppress(NotFound):
                tell(store, "cancel", name)
                delete(store, name)
        moment += 1
    assert moment > 2
