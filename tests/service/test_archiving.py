"""Archived studies: lists leave them out, and nothing else of them changes."""

from __future__ import annotations

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import IntegrityError

from ridgeline.service import extending, studies
from ridgeline.service.errors import Conflict
from ridgeline.service.resources import ExtendRequest, RetryRequest
from ridgeline.service.store.session import Store
from ridgeline.service.store.tables import studies as table
from tests.service.factory import FakeWorker, post, spec, study_of
from tests.service.factory import ended as told


def tell(store: Store, verb: studies.Verb, name: str = "s") -> None:
    with store.transaction() as tx:
        studies.apply_verb(tx, name, verb)


def listed(store: Store, *, archived: bool = False) -> list[str]:
    with store.reading() as tx:
        found, _ = studies.list_page(tx, page_size=9, cursor=None, archived=archived)
    return [study.name for study in found]


def ended(store: Store, *, failing: bool = False) -> None:
    post(store, spec(budget={"trials": 2}))
    worker = FakeWorker(store, num_slots=2)
    outcome = "diverged" if failing else "complete"
    worker.sync(ended=[told(order, outcome) for order in worker.sync().start])


def test_lists_leave_it_out_and_nothing_else_changes(store: Store) -> None:
    ended(store)
    post(store, spec("t"))
    before = study_of(store)
    tell(store, "archive")
    assert listed(store) == ["t"]
    assert listed(store, archived=True) == ["t", "s"]
    now = study_of(store)
    assert (now.archived, now.revision) == (True, before.revision + 1)
    assert now.model_copy(update={"archived": False, "revision": before.revision}) == before
    with store.reading() as tx:
        copies = tx.connection.execute(text("SELECT count(*) FROM trials"))
        assert copies.scalar_one() == 2, "those in Optuna's tables"
    with pytest.raises(Conflict, match="there is a study named s already"):
        post(store, spec())
    tell(store, "archive")
    assert study_of(store) == now, "repeating it changes nothing"
    tell(store, "unarchive")
    tell(store, "unarchive")
    assert listed(store) == ["t", "s"]
    assert study_of(store).revision == now.revision + 1


def test_only_what_has_ended_is_archived(store: Store) -> None:
    post(store, spec())
    with pytest.raises(Conflict, match="QUEUED cannot be told to archive"):
        tell(store, "archive")
    tell(store, "unarchive")
    with pytest.raises(IntegrityError), store.transaction() as tx:
        tx.connection.execute(update(table).values(archived=True))


@pytest.mark.parametrize("how", ["extend", "retry"])
def test_a_study_that_goes_on_is_shown_again(store: Store, how: str) -> None:
    ended(store, failing=how == "retry")
    tell(store, "archive")
    with store.transaction() as tx:
        if how == "extend":
            extending.extend(tx, "s", ExtendRequest(trials=1), max_open=9)
        else:
            extending.retry(tx, "s", RetryRequest(reasons=("diverged",)), max_open=9)
    assert listed(store) == ["s"]


def test_an_archived_study_is_deleted(store: Store) -> None:
    ended(store)
    tell(store, "archive")
    with store.transaction() as tx:
        studies.delete(tx, "s")
    assert listed(store, archived=True) == []
