"""The note of a comparison's study has the table of its arms, and follows them."""

from __future__ import annotations

from collections.abc import Iterator

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna_dashboard import get_note, save_note
from sqlalchemy import text

from ridgeline.service import comparisons, noting, projection, studies
from ridgeline.service.comparison_resources import Comparison
from ridgeline.service.store.session import Store
from tests.service.factory import FakeWorker, ended, post, spec
from tests.service.test_comparisons import add_arms, advance, create, tell, train

HEAD = (
    "| arm | state | winner | validation\\_accuracy, best of the search "
    "| test\\_accuracy, fresh seeds | 95 % interval |\n| --- | --- | --- | --- | --- | --- |\n"
)


@pytest.fixture
def storage(store: Store) -> Iterator[RDBStorage]:
    storage = RDBStorage(store.url.render_as_string(hide_password=False))
    yield storage
    storage.remove_session()
    storage.engine.dispose()


def note(storage: RDBStorage, name: str) -> str:
    return str(get_note(optuna.load_study(study_name=name, storage=storage)))


def outdated(store: Store) -> list[str]:
    with store.reading() as tx:
        return projection.outdated_comparisons(tx.connection)


def differences(store: Store) -> list[str]:
    with store.reading() as tx:
        found = (projection.compare(tx.connection, study_id) for study_id in tx.studies.ids())
        return [difference for of_one in found for difference in of_one]


def test_the_table_of_arms_follows_the_comparison(store: Store, storage: RDBStorage) -> None:
    create(store)
    assert outdated(store) == ["c"]
    noting.bring_up_to_date(store)
    assert outdated(store) == []
    queued = note(storage, "c-search.none")
    assert "A study of the comparison c, which is QUEUED.\n\n" + HEAD in queued
    assert "| none | QUEUED |  |  |  |  |\n| l2 | QUEUED |  |  |  |  |\n\n" in queued
    assert differences(store) == []
    train(store)
    advance(store)
    train(store)
    assert "which is QUEUED" in note(storage, "c-search.l2"), "nobody has looked since"
    assert differences(store) == []
    noting.bring_up_to_date(store)
    with store.reading() as tx:
        its = comparisons.get(tx, "c")
    assert its.result is not None
    for name in ("c-search.none", "c-search.l2", "c-fresh.none", "c-fresh.l2"):
        found = note(storage, name)
        assert "A study of the comparison c, which is COMPLETED.\n\n" + HEAD in found
        winner = its.arms[1].winner
        assert winner is not None
        told = f"| l2 | COMPLETED | trial {winner.number} | {winner.value:.6g} | 0.61 | 0.58515"
        assert told in found
        assert f"\n\n* {its.result.differences[0].sentence[:30]}" in found
    assert "* state: COMPLETED\n* progress: 1 of 1 trials have ended (1 complete)\n" in found
    assert differences(store) == []
    before = note(storage, "c-search.none")
    noting.bring_up_to_date(store)
    assert note(storage, "c-search.none") == before


def test_what_is_told_to_a_comparison_is_noted(store: Store, storage: RDBStorage) -> None:
    create(store)
    noting.bring_up_to_date(store)
    add_arms(store, {"l1": {}})
    tell(store, "pause")
    assert outdated(store) == ["c"]
    noting.bring_up_to_date(store)
    for name in ("c-search.none", "c-search.l1"):
        assert "which is PAUSED" in note(storage, name)
        assert "| l1 | PAUSED |" in note(storage, name)
    tell(store, "cancel")
    noting.bring_up_to_date(store)
    row = "| l1 | CANCELLED: c-search.l1 is CANCELLED, which leaves the arm out for good |"
    assert row in note(storage, "c-search.none")
    assert differences(store) == []


def test_the_note_of_a_person_stays_without_a_table(store: Store, storage: RDBStorage) -> None:
    create(store)
    noting.bring_up_to_date(store)
    save_note(optuna.load_study(study_name="c-search.none", storage=storage), "Mine.")
    tell(store, "pause")
    noting.bring_up_to_date(store)
    assert note(storage, "c-search.none") == "Mine."
    assert "which is PAUSED" in note(storage, "c-search.l2")
    assert (outdated(store), differences(store)) == ([], [])


def test_a_copy_that_is_made_anew_gets_the_table_again(store: Store, storage: RDBStorage) -> None:
    create(store)
    noting.bring_up_to_date(store)
    with store.transaction() as tx:
        study = studies.find(tx, "c-search.l2")
        tx.studies.lock(study.id)
        projection.rebuild(tx.connection, study.id)
    assert HEAD not in note(storage, "c-search.l2")
    noting.bring_up_to_date(store)
    assert HEAD in note(storage, "c-search.l2")


def test_copies_of_an_earlier_version_are_described(store: Store, storage: RDBStorage) -> None:
    for name in ("s", "t"):
        post(store, spec(name, budget={"trials": 1, "epochs": 3}))
    worker = FakeWorker(store)
    worker.sync()
    (order,) = worker.held.values()
    report = {"run": order.run, "attempt": order.attempt, "epoch": 1}
    worker.sync(reports=[{**report, "metrics": {"validation_accuracy": 0.5}}])
    worker.sync(ended=[ended(order)])
    with store.transaction() as tx:
        query = "DELETE FROM study_system_attributes WHERE key LIKE 'ridgeline:%'"
        tx.connection.execute(text(query))
        query = "DELETE FROM study_system_attributes WHERE key LIKE 'dashboard:%'"
        tx.connection.execute(text(query))
    noting.bring_up_to_date(store)
    assert differences(store) == []
    assert "* state: COMPLETED\n* progress: 1 of 1" in note(storage, order.study)
    study = optuna.load_study(study_name=order.study, storage=storage)
    attributes = storage.get_study_system_attrs(study._study_id)
    assert "dashboard:plot_data:learning-curves-1:0" in attributes


def test_a_study_that_cannot_be_noted_keeps_no_other_waiting(
    store: Store, storage: RDBStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(store)
    create(store, name="d")
    arms_table = noting.arms_table

    def fails_for_c(its: Comparison) -> projection.ArmsTable:
        if its.name == "c":
            raise RuntimeError("no table today")
        return arms_table(its)

    monkeypatch.setattr(noting, "arms_table", fails_for_c)
    with pytest.raises(RuntimeError, match="no table today"):
        noting.bring_up_to_date(store)
    assert HEAD in note(storage, "d-search.none")
    assert outdated(store) == ["c"]
