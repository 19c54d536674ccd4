"""Databases in which everything has happened, and what the doctor says of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from ridgeline.service import doctor, extending, projection, studies, trials, workers
from ridgeline.service.external_protocol import CompleteRequest, ReportRequest, SuggestRequest
from ridgeline.service.findings import Finding
from ridgeline.service.protocol import RunOrder, RunReport
from ridgeline.service.reporting import complete, report
from ridgeline.service.resources import ExtendRequest, RetryRequest
from ridgeline.service.store.engine import open_engine
from ridgeline.service.store.session import Store, Transaction
from tests.conftest import ManualClock
from tests.postgres import PostgresServer
from tests.service.factory import SETTINGS, FakeWorker, ended, external, post, spec, value_of

NOW = ManualClock(seconds=2_000_000.0)
EPOCHS = 3
"""Of the budget of each study."""


class Ticking(ManualClock):
    """A second passes with every look at it."""

    def now(self, connection: Connection) -> float:
        self.advance(1.0)
        return self.seconds


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def busy_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A database of each kind, on which `happen` was called: not to be changed for good."""
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("busy") / "test.db"
        shutil.copy(request.getfixturevalue("migrated_sqlite"), path)
        url, drop = f"sqlite:///{path}", path.unlink
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        name = server.create(template=request.getfixturevalue("migrated_postgres"))
        url, drop = server.url(name), partial(server.drop, name)
    clock = Ticking()
    store = Store(url, clock=clock, project=projection.project)
    happen(store, clock)
    store.close()
    yield url
    drop()


@pytest.fixture
def busy(busy_url: str) -> Iterator[Transaction]:
    """A transaction on it, which is rolled back."""
    engine = open_engine(make_url(busy_url))
    with engine.connect() as connection, connection.begin() as began:
        yield Transaction(connection, NOW)
        began.rollback()
    engine.dispose()


def examined(tx: Transaction) -> list[tuple[str, str]]:
    """What the doctor finds, as its checks' names and what is wrong."""
    return [(finding.check, finding.wrong) for finding in _findings(tx)]


def is_noticed(tx: Transaction) -> bool:
    """Whether the doctor finds anything; it need not go on from there."""
    return any(True for _ in _findings(tx))


def _findings(tx: Transaction) -> Iterator[Finding]:
    yield from doctor.examine_database(tx)
    for study_id in tx.studies.ids():
        yield from doctor.examine_study(tx, study_id, SETTINGS)


def happen(store: Store, clock: ManualClock) -> None:
    """Studies are finished, extended, retried, replicated, pruned, cancelled, stopped and deleted,
    and some go on."""
    worker = FakeWorker(store, num_slots=3)
    post(store, spec("done", replicates=2, budget={"trials": 4, "epochs": 3}))
    train(store, worker)
    post(store, spec("extended", pruner={"name": "median", "startup": 1}))
    train(store, worker, outcome="pruned")
    with store.transaction() as tx:
        extending.extend(tx, "extended", ExtendRequest(trials=2), max_open=10)
    train(store, worker)
    post(store, spec("retried"))
    train(store, worker, outcome="diverged")
    with store.transaction() as tx:
        extending.retry(tx, "retried", RetryRequest(reasons=("diverged",)), max_open=10)
    train(store, worker)
    budget = {"trials": 2, "epochs": 3}
    post(store, spec("warm", sampler={"name": "auto"}, budget=budget, warm_start=["done"]))
    train(store, worker)
    post(store, spec("cancelled", budget={"trials": 20, "epochs": 3}))
    worker.sync()
    tell(store, "cancelled", "cancel")
    worker.sync()
    post(store, spec("deleted"))
    train(store, worker)
    with store.transaction() as tx:
        studies.delete(tx, "deleted")
    of_ones_own(store)
    post(store, spec("stopped", budget={"trials": 20, "epochs": 3}))
    worker.sync()
    tell(store, "stopped", "stop")
    finish(worker)
    lost = FakeWorker(store, num_slots=2)
    post(store, spec("open", replicates=2, budget={"trials": 30, "epochs": 3}))
    lost.sync()
    clock.advance(SETTINGS.lease_seconds + 1)
    workers.expire(store)
    worker = FakeWorker(store, num_slots=4)
    worker.sync()
    first, second, third, fourth = worker.held.values()
    worker.sync(
        ended=[ended(first, kept_epoch=EPOCHS), ended(second, "crashed")],
        reports=[*told(first, EPOCHS), *told(third, 2), *told(fourth, 2)],
    )


def tell(store: Store, name: str, verb: studies.Verb) -> None:
    with store.transaction() as tx:
        studies.apply_verb(tx, name, verb)


def train(store: Store, worker: FakeWorker, *, outcome: str = "complete") -> None:
    """Train all that there is."""
    worker.sync()
    while worker.held:
        finish(worker, outcome=outcome)


def finish(worker: FakeWorker, *, outcome: str = "complete") -> None:
    """Train the runs that a worker holds to their last epoch."""
    orders = list(worker.held.values())
    changes: dict[str, Any] = {}
    if outcome == "complete":
        changes = {"kept_epoch": EPOCHS}
    elif outcome == "pruned":
        changes = {"value": 0.25, "rule_version": 1}
    worker.sync(
        reports=[report for order in orders for report in told(order, EPOCHS)],
        ended=[ended(order, outcome, **changes) for order in orders],
    )


def told(order: RunOrder, num_epochs: int) -> list[RunReport]:
    """What a run reports of its first epochs."""
    return [
        RunReport(
            run=order.run,
            attempt=order.attempt,
            epoch=epoch,
            metrics={"validation_accuracy": value_of(order)},
        )
        for epoch in range(1, num_epochs + 1)
    ]


def of_ones_own(store: Store) -> None:
    """An external study: one trial complete, one failed, one handed out."""
    post(store, external("own"))
    answer = trials.suggest(store, "own", SuggestRequest(count=3, lease_seconds=60))
    first, second, _ = answer.trials
    with store.transaction() as tx:
        for epoch in (2, 1):
            report(
                tx,
                "own",
                first.number,
                ReportRequest(attempt=1, epoch=epoch, metrics={"score": epoch / 4}),
            )
        complete(tx, "own", first.number, CompleteRequest(attempt=1), max_charges=3)
        request = CompleteRequest(attempt=1, state="FAIL", error="lost its file")
        complete(tx, "own", second.number, request, max_charges=3)
