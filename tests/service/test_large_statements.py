"""Statements too large for one transaction: taken in parts, which may be cut off between."""

from __future__ import annotations

import pytest

from ridgeline.service import studies, trials
from ridgeline.service.errors import Unavailable
from ridgeline.service.lifecycle import TrialState
from ridgeline.service.protocol import RunReport, SyncRequest
from ridgeline.service.store.session import Store
from tests.service.factory import Counted, FakeWorker, cut_off_after, ended, post, spec


def large_statement(store: Store) -> tuple[FakeWorker, SyncRequest]:
    """A worker with three runs, and what it says: six epochs of each, the last two of which end."""
    post(store, spec())
    worker = FakeWorker(store, num_slots=3)
    worker.sync()
    orders = list(worker.held.values())
    reports = [
        RunReport(
            run=order.run, attempt=1, epoch=epoch, metrics={"validation_accuracy": epoch / 10}
        )
        for epoch in range(1, 7)
        for order in orders
    ]
    ends = [ended(order) for order in orders[1:]]
    return worker, worker.statement(reports=reports, ended=ends)


def limit_news(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have one transaction take so many at most."""
    for module in ("ledger", "workers"):
        monkeypatch.setattr(f"ridgeline.service.{module}.MAX_NEWS", number)


def what_came_of_it(store: Store) -> list[tuple[TrialState, float | None, int]]:
    with store.reading() as tx:
        found = [trials.get(tx, "s", number) for number in range(3)]
    return [(trial.state, trial.value, len(trial.epochs)) for trial in found]


def test_a_large_statement_is_taken_in_several_transactions(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, statement = large_statement(store)
    limit_news(monkeypatch, 4)
    counted = Counted(store, monkeypatch)
    answer = worker.send(statement)
    assert counted.number >= 6
    assert answer.refused == ()
    once = what_came_of_it(store)
    assert [state for state, _, _ in once] == ["RUNNING", "COMPLETE", "COMPLETE"]
    assert [num_epochs for _, _, num_epochs in once] == [6, 6, 6]
    assert worker.send(statement).refused == ()
    assert what_came_of_it(store) == once


@pytest.mark.parametrize("num_parts", range(1, 6))
def test_a_large_statement_that_was_cut_off_may_be_repeated(
    store: Store, monkeypatch: pytest.MonkeyPatch, num_parts: int
) -> None:
    worker, statement = large_statement(store)
    limit_news(monkeypatch, 4)
    with cut_off_after(store, num_parts), pytest.raises(Unavailable):
        worker.send(statement)
    assert worker.send(statement).refused == ()
    assert [num_epochs for _, _, num_epochs in what_came_of_it(store)] == [6, 6, 6]


def test_a_run_in_several_parts_is_refused_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, statement = large_statement(store)
    with store.transaction() as tx:
        studies.apply_verb(tx, "s", "cancel")
    limit_news(monkeypatch, 2)
    refused = worker.send(statement).refused
    assert [refusal.reason for refusal in refused] == ["the run is FAIL (cancelled)"]
