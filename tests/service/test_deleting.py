"""Deleted studies: nothing of them is left, and nothing of theirs is taken for another's."""

from __future__ import annotations

import optuna
import pytest
from optuna.storages import RDBStorage
from sqlalchemy import func, select, text

from service import studies, trials
from service.errors import Conflict, NotFound
from service.external_protocol import SuggestRequest
from service.store.session import Store
from service.store.tables import metadata
from tests.service.factory import FakeWorker, ended, external, post, spec, study_of

KEPT = {"rl_deleted_studies", "rl_workers"}


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
    with pytest.raises(Conflict, match=":cancel it before"):
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
