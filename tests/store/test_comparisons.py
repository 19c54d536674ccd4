"""The contract of the store's part for comparisons, on every database it runs on."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from ridgeline.search.comparison import parse_comparison
from ridgeline.service.errors import Conflict
from ridgeline.service.ledger import Ledger
from ridgeline.service.lifecycle import StudyState
from ridgeline.service.store.rows import ArmStudyRow, ComparisonRow
from ridgeline.service.store.session import Store, Transaction
from tests.parallel import in_parallel
from tests.service.factory import post, spec
from tests.service.test_comparisons import SPEC


def insert(tx: Transaction, name: str = "c") -> ComparisonRow:
    parsed = parse_comparison({**SPEC, "name": name})
    return tx.comparisons.insert(
        name=name,
        owner=None,
        spec=parsed.model_dump(mode="json"),
        told_to="run",
        created_at=tx.now,
    )


def study(store: Store, name: str) -> int:
    post(store, spec(name))
    with store.reading() as tx:
        found = tx.studies.find(name)
        assert found is not None
        return found.id


def test_a_comparison_is_found_as_it_was_inserted(store: Store) -> None:
    with store.transaction() as tx:
        row = insert(tx)
        assert tx.comparisons.lock("c") == row
    with store.reading() as tx:
        assert tx.comparisons.find("c") == row
        assert [*row.spec.arms] == ["none", "l2"]
        assert tx.comparisons.find("d") is None


def test_a_name_is_taken_once(store: Store) -> None:
    def take() -> None:
        try:
            with store.transaction() as tx:
                insert(tx)
        except Conflict as exc:
            refused.append(exc)

    refused: list[Conflict] = []
    in_parallel(4, take)
    assert len(refused) == 3


def test_the_study_for_the_newest_winner_comes_last(store: Store) -> None:
    ids = [study(store, name) for name in ("search", "old", "new")]
    with store.transaction() as tx:
        comparison_id = insert(tx).id
        for study_id, winner in zip(ids, (None, 4, 11), strict=True):
            tx.comparisons.add_study(ArmStudyRow(study_id, comparison_id, "l2", winner, None))
        tx.comparisons.note_seen(ids[0], 12)
    with store.reading() as tx:
        found = tx.comparisons.studies_of([comparison_id])[comparison_id]
        assert [one.study_id for one in found if one.winner is not None] == ids[1:]
        assert {one.study_id: one.num_seen for one in found} == {
            ids[0]: 12,
            ids[1]: None,
            ids[2]: None,
        }
        assert [tx.comparisons.owner_of(study_id) for study_id in ids] == ["c"] * 3


@pytest.mark.parametrize("told_to", ["run", "pause", "cancel"])
def test_an_ended_search_is_looked_at_once_for_its_trials(store: Store, told_to: str) -> None:
    search = study(store, "search")
    with store.transaction() as tx:
        comparison_id = insert(tx).id
        tx.comparisons.add_study(ArmStudyRow(search, comparison_id, "l2", None, None))
        tx.comparisons.update(comparison_id, told_to=told_to)
    to_advance = [("c", "l2")] if told_to == "run" else []
    with store.transaction() as tx:
        assert tx.comparisons.to_advance() == [], "it goes on"
        Ledger(tx, search).set_study_state(StudyState.COMPLETED)
    with store.transaction() as tx:
        assert tx.comparisons.to_advance() == to_advance
        tx.comparisons.note_seen(search, 0)
        assert tx.comparisons.to_advance() == []
        tx.comparisons.note_seen(search, 1)
        assert tx.comparisons.to_advance() == to_advance


def test_a_deleted_comparison_leaves_its_studies(store: Store) -> None:
    search = study(store, "search")
    with store.transaction() as tx:
        comparison_id = insert(tx).id
        tx.comparisons.add_study(ArmStudyRow(search, comparison_id, "l2", None, None))
    with store.transaction() as tx:
        tx.comparisons.delete(comparison_id)
        assert tx.comparisons.find("c") is None
        assert tx.comparisons.owner_of(search) is None
        assert tx.studies.get(search) is not None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE rl_comparisons SET told_to = 'stop'",
        "UPDATE rl_comparisons SET name = NULL",
        "DELETE FROM rl_comparisons",
        "DELETE FROM rl_studies",
        "UPDATE rl_comparison_studies SET comparison_id = 77",
        "UPDATE rl_comparison_studies SET winner = NULL",
        "UPDATE rl_comparison_studies SET winner = 3",
        "UPDATE rl_comparison_studies SET winner = 1, num_seen = 3",
        "UPDATE rl_comparison_studies SET study_id = 1",
    ],
)
def test_invariants_stand_in_the_database(store: Store, statement: str) -> None:
    """A study has one place; an arm has one search, and one study for each winner."""
    ids = [study(store, name) for name in ("search", "old", "new")]
    with store.transaction() as tx:
        comparison_id = insert(tx).id
        for study_id, winner in zip(ids, (None, 4, 11), strict=True):
            tx.comparisons.add_study(ArmStudyRow(study_id, comparison_id, "l2", winner, None))
    with pytest.raises(IntegrityError), store.transaction() as tx:
        tx.connection.execute(text(statement))
