"""What /metrics tells, on both databases; and that docs/metrics.md tells what it means."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import event, text

from ridgeline.service import reporting, studies, workers
from ridgeline.service.errors import StaleAttempt, Unavailable
from ridgeline.service.external_protocol import CompleteRequest, SuggestRequest
from ridgeline.service.store.session import Store
from ridgeline.service.trials import suggest
from tests.api.calling import EXTERNAL, ok, sqlite_only
from tests.conftest import ManualClock
from tests.service.factory import SETTINGS, FakeWorker, ended, external, post, spec

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"

Sample = tuple[str, frozenset[tuple[str, str]]]


def scraped(client: httpx.Client) -> dict[Sample, float]:
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(client: httpx.Client, name: str, **labels: str) -> float:
    return scraped(client).get((f"ridgeline_{name}", frozenset(labels.items())), 0.0)


def by(client: httpx.Client, name: str, label: str) -> dict[str, float]:
    """The values of a metric that are not 0, by one label."""
    return {
        dict(labels)[label]: number
        for (sample, labels), number in scraped(client).items()
        if sample == f"ridgeline_{name}" and number
    }


@contextmanager
def rises(client: httpx.Client, name: str, by: float, **labels: str) -> Iterator[None]:
    """Check that the block makes a counter rise by so much: the process has counted before."""
    before = value(client, name, **labels)
    yield
    assert value(client, name, **labels) - before == by


def test_the_queue_by_state_and_by_why_it_waits(client: httpx.Client, store: Store) -> None:
    post(store, external("e"))
    post(store, spec("w"))
    post(store, spec("p"))
    with store.transaction() as tx:
        studies.apply_verb(tx, "p", "pause")
    assert by(client, "studies", "state") == {"QUEUED": 2, "PAUSED": 1}
    reasons = {"no_program": 1, "no_worker": 1, "paused": 1}
    assert by(client, "studies_waiting", "reason") == reasons
    worker = FakeWorker(store, num_slots=2)
    reasons = {"no_program": 1, "no_free_device": 1, "paused": 1}
    assert by(client, "studies_waiting", "reason") == reasons
    worker.sync()
    assert by(client, "studies", "state") == {"QUEUED": 1, "RUNNING": 1, "PAUSED": 1}
    assert by(client, "studies_waiting", "reason") == {"no_program": 1, "paused": 1}
    assert by(client, "runs_open", "state") == {"RUNNING": 2}
    assert value(client, "trials_open") == 2


@pytest.mark.parametrize(
    ("task", "fingerprint", "reason"),
    [("other", None, "no_task"), ("mlp", "cd" * 32, "no_dataset"), ("mlp", None, "no_free_device")],
)
def test_what_runs_wait_for(
    client: httpx.Client, store: Store, task: str, fingerprint: str | None, reason: str
) -> None:
    post(store, spec(replicates=3))
    worker = FakeWorker(store)
    (order,) = worker.sync().start
    worker.sync(ended=[ended(order, "released")], free_slots={})
    with store.transaction() as tx:
        study = tx.studies.lock(studies.find(tx, "s").id)
        study.data_fingerprint = fingerprint or study.data_fingerprint
        tx.workers.update(worker.id, tasks=[task])
    assert by(client, "runs_waiting", "reason") == {reason: 3}
    assert by(client, "studies_waiting", "reason") == {reason: 1}


def test_slots_and_restarts_of_devices(client: httpx.Client, store: Store) -> None:
    post(store, spec(budget={"trials": 20}))
    first, second = FakeWorker(store, num_slots=4, queue=3), FakeWorker(store, num_slots=2)
    first.sync(restarts={"cpu:0": 2})
    second.sync(restarts={"cpu:0": 1}, free_slots={"cpu:0": 1})
    labels = {"worker": "fake", "device": "cpu:0", "kind": "cpu"}  # two of one name
    assert value(client, "device_slots", **labels, use="busy") == 5
    assert value(client, "device_slots", **labels, use="idle") == 1
    assert value(client, "device_restarts_total", **labels) == 3
    first.sync(leaving=True)
    assert value(client, "device_restarts_total", **labels) == 1
    assert by(client, "workers", "state") == {"LIVE": 1, "GONE": 1}


def test_what_ends_and_what_is_reported_is_counted(client: httpx.Client, store: Store) -> None:
    post(store, spec())
    worker = FakeWorker(store, num_slots=3)
    one, two, three = worker.sync().start
    report = {"run": one.run, "attempt": 1, "epoch": 1, "metrics": {"validation_accuracy": 0.5}}
    statement = worker.statement(
        reports=[report], ended=[ended(one), ended(two, "diverged"), ended(three, "crashed")]
    )
    with (
        rises(client, "trials_ended_total", 1, state="COMPLETE", reason=""),
        rises(client, "trials_ended_total", 1, state="FAIL", reason="diverged"),
        rises(client, "reports_received_total", 1),
        rises(client, "charges_total", 1),
    ):
        worker.send(statement)
        worker.send(statement)  # what is repeated counts once


def test_what_is_not_committed_is_not_counted(
    client: httpx.Client, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    post(store, spec())
    worker = FakeWorker(store)
    (order,) = worker.sync().start
    statement = worker.statement(ended=[ended(order)])

    def fail(*_: object) -> None:
        raise Unavailable("the database is gone, say")

    with (
        rises(client, "trials_ended_total", 0, state="COMPLETE", reason=""),
        monkeypatch.context() as patch,
    ):
        patch.setattr("ridgeline.service.store.studies.Studies.write_back", fail)
        with pytest.raises(Unavailable):
            worker.send(statement)


def test_refused_writes(client: httpx.Client, store: Store, clock: ManualClock) -> None:
    post(store, external("e"))
    post(store, spec("w"))
    (trial,) = suggest(store, "e", SuggestRequest(lease_seconds=10)).trials
    worker = FakeWorker(store)
    (order,) = worker.sync().start

    def complete() -> None:
        request = CompleteRequest(attempt=trial.attempt, value=0.5)
        with store.transaction() as tx, pytest.raises(StaleAttempt):
            reporting.complete(tx, "e", trial.number, request, max_charges=3)

    clock.advance(11)
    with rises(client, "leases_expired_total", 1, holder="program"):
        workers.expire(store)
    suggest(store, "e", SuggestRequest())
    with rises(client, "refused_writes_total", 1, reason="stale_attempt"):
        complete()
    with rises(client, "refused_writes_total", 1, reason="stale_attempt"):
        worker.sync(ended=[ended(order, attempt=7)])
    with rises(client, "refused_writes_total", 1, reason="unknown_run"):
        worker.sync(ended=[ended(order, run=999)])
    clock.advance(SETTINGS.lease_seconds + 1)
    with rises(client, "leases_expired_total", 1, holder="worker"):
        workers.expire(store)
    with (
        rises(client, "refused_writes_total", 1, reason="worker_given_up"),
        pytest.raises(Exception, match="register again"),
    ):
        worker.sync(ended=[ended(order)])


def test_a_copy_that_is_behind_and_its_repair(client: httpx.Client, store: Store) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a wrong row, say")

    project, store._project = store._project, fail
    with rises(client, "projection_failures_total", 1):
        post(store, external())
    assert value(client, "projection_stale_studies") == 1
    store._project = project
    with rises(client, "projection_repairs_total", 1):
        suggest(store, "s", SuggestRequest())
    assert value(client, "projection_stale_studies") == 0


def test_waits_for_locks_and_calls_are_measured(
    client: httpx.Client, store: Store, request: pytest.FixtureRequest
) -> None:
    lock = "writer" if store.url.get_backend_name() == "sqlite" else "row"
    post(store, external())
    before = value(client, "lock_wait_seconds_count", lock=lock)
    with (
        rises(client, "lock_wait_seconds_count", 1, lock="study"),
        rises(client, "sync_duration_seconds_count", 1),
    ):
        suggest(store, "s", SuggestRequest())
        FakeWorker(store).sync()
    assert value(client, "lock_wait_seconds_count", lock=lock) > before


@sqlite_only
def test_requests_by_the_template_of_their_path(client: httpx.Client) -> None:
    def seconds(method: str, route: str, status: int) -> Any:
        labels = {"method": method, "route": route, "status": str(status)}
        return rises(client, "http_request_duration_seconds_count", 1, **labels)

    study, trial = "/v1/studies/{study}", "/v1/studies/{study}/trials/{number}"
    with (
        seconds("POST", "/v1/studies", 201),
        seconds("GET", study, 200),
        seconds("GET", trial, 404),
    ):
        ok(client.post("/v1/studies", json=EXTERNAL), 201)
        ok(client.get("/v1/studies/x"))
        client.get("/v1/studies/x/trials/7")
    with seconds("GET", "none", 404), seconds("other", study, 405):
        client.get("/v1/canary")
        client.request("BREW", "/v1/studies/x")
    with seconds("POST", f"{study}:cancel", 404), seconds("GET", "/healthz", 200):
        client.post("/v1/studies/canary:cancel")
        client.get("/healthz")
    assert "canary" not in client.get("/metrics").text


@sqlite_only
def test_openmetrics_for_those_who_ask(client: httpx.Client) -> None:
    answer = client.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_a_scrape_reads_neither_reports_nor_ended_trials(
    client: httpx.Client, store: Store
) -> None:
    """By the plans of its queries: they go by an index wherever tables grow with each run."""
    statements: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT") and "rl_" in statement:
            statements.append((statement, parameters))

    event.listen(store._engine, "before_cursor_execute", note)
    client.get("/metrics")
    event.remove(store._engine, "before_cursor_execute", note)
    assert 5 <= len(statements) <= 7  # two of them are about tokens
    is_sqlite = store.url.get_backend_name() == "sqlite"
    with store._engine.connect() as connection:
        if not is_sqlite:  # of an empty table it would read all
            connection.execute(text("SET enable_seqscan = off"))
        for statement, parameters in statements:
            assert "rl_reports" not in statement
            explain = "EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN "
            plan = connection.exec_driver_sql(explain + statement, parameters)
            steps = [" ".join(map(str, row)) for row in plan]
            assert not [s for s in steps if re.search(r"(SCAN|Seq Scan on) rl_(runs|trials)", s)]


def families(client: httpx.Client) -> dict[str, tuple[str, set[str]]]:
    """Type and labels of all metrics, by name."""
    found = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        labels = {name for sample in family.samples for name in sample.labels} - {"le"}
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = (family.type, labels)
    return found


@sqlite_only
def test_every_metric_is_documented(client: httpx.Client, store: Store) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|(.*?)\|", DOCS.read_text(), re.MULTILINE)
    documented = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    known = families(client)
    assert documented.keys() == known.keys()
    text = DOCS.read_text()
    for family in text_string_to_metric_families(client.get("/metrics").text):
        values = {value for sample in family.samples for value in sample.labels.values()}
        if family.name.startswith(("ridgeline_refused", "ridgeline_database", "ridgeline_leases")):
            assert values
            assert all(f"`{value}`" in text for value in values), family.name
    for name, (kind, labels) in known.items():
        assert documented[name][0] == kind, name
        assert labels <= documented[name][1], name
