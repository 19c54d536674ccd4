"""The worker protocol over HTTP, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fastapi import FastAPI

from ridgeline.service.api import examples
from ridgeline.service.api.app import create_app
from ridgeline.service.settings import Settings
from ridgeline.service.store.session import Store
from tests.api.calling import EXTERNAL, SPEC, fields, ok, problem
from tests.api.conftest import ClientOf
from tests.conftest import ManualClock


def test_a_worker_from_registration_to_result(client: httpx.Client) -> None:
    ok(client.post("/v1/studies", json=SPEC), 201)
    registered = ok(client.post("/v1/workers", json=examples.REGISTRATION), 201)
    assert registered["lease_seconds"] > 0
    sync = f"/v1/workers/{registered['id']}:sync"
    statement = {"sync_seq": 1, "free_slots": {"cpu:0": 1}}
    (order,) = ok(client.post(sync, json=statement))["start"]
    assert ok(client.post(sync, json=statement))["start"] == [order]
    end = {
        "run": order["run"],
        "attempt": order["attempt"],
        "outcome": "complete",
        "value": 0.9,
        "kept_epoch": 1,
        "metrics": {"validation_accuracy": 0.9},
    }
    statement = {
        "sync_seq": 2,
        "ended": [end],
        "idle_slots": {"cpu:0": 7},
        "restarts": {"cpu:0": 2},
    }
    answer = ok(client.post(sync, json=statement))
    assert answer == {"start": [], "stop": [], "refused": [], "rules": []}
    assert ok(client.get("/v1/studies/s/best"))["value"] == 0.9
    (worker,) = ok(client.get("/v1/workers"))["workers"]
    assert (worker["id"], worker["state"], worker["num_runs"]) == (registered["id"], "LIVE", 0)
    assert worker["idle_slots"] == {"cpu:0": 7}
    assert worker["restarts"] == {"cpu:0": 2}
    (dataset,) = ok(client.get("/v1/datasets"))["datasets"]
    assert (dataset["name"], dataset["num_workers"]) == ("digits", 1)


def test_a_run_is_pruned_by_the_rules_it_was_sent(client: httpx.Client) -> None:
    pruner = {"name": "halving", "eta": 2}
    ok(client.post("/v1/studies", json={**SPEC, "pruner": pruner}), 201)
    worker = ok(client.post("/v1/workers", json=examples.REGISTRATION), 201)["id"]
    sync = f"/v1/workers/{worker}:sync"
    good, bad = ok(client.post(sync, json={"sync_seq": 1, "free_slots": {"cpu:0": 2}}))["start"]
    assert not good["reproducible"]
    key = {"run": good["run"], "attempt": 1}
    held = [{"run": order["run"], "attempt": 1, "device": "cpu:0"} for order in (good, bad)]
    report = {**key, "epoch": 1, "metrics": {"validation_accuracy": 0.75}}
    answer = ok(client.post(sync, json={"sync_seq": 2, "held": held, "reports": [report]}))
    (rules,) = answer["rules"]
    assert rules == {
        "study": "s",
        "bracket": 0,
        "version": rules["version"],
        "metric": "validation_accuracy",
        "direction": "maximize",
        "thresholds": {"1": 0.75},
        "predictions": {},
    }
    end = {
        "run": bad["run"],
        "attempt": 1,
        "outcome": "pruned",
        "value": 0.5,
        "kept_epoch": 1,
        "rule_version": rules["version"],
    }
    known = {"s": rules["version"]}
    statement = {"sync_seq": 3, "held": held[:1], "ended": [end], "rules": known}
    assert ok(client.post(sync, json=statement))["refused"] == []
    trial = ok(client.get(f"/v1/studies/s/trials/{bad['trial']}"))
    assert (trial["state"], trial["value"]) == ("PRUNED", 0.5)
    assert trial["runs"][0]["pruned_by_version"] == rules["version"]
    assert ok(client.get("/v1/studies/s"))["trials"]["pruned"] == 1


def test_what_a_worker_may_not_say(client: httpx.Client) -> None:
    problem(client.post("/v1/workers/nobody:sync", json={"sync_seq": 1}), 404)
    assert fields(client.post("/v1/workers", json={"name": "w", "devices": []})).keys() >= {
        "devices",
        "tasks",
        "datasets",
    }
    worker = ok(client.post("/v1/workers", json=examples.REGISTRATION), 201)["id"]
    sync = f"/v1/workers/{worker}:sync"
    named = fields(client.post(sync, json={"sync_seq": 1, "free_slots": {"cuda:9": 1}}))
    assert "free_slots.cuda:9" in named
    named = fields(client.post(sync, json={"sync_seq": 1, "idle_slots": {"cuda:9": 1}}))
    assert "idle_slots.cuda:9" in named
    named = fields(client.post(sync, json={"sync_seq": 1, "restarts": {"cuda:9": 1}}))
    assert "restarts.cuda:9" in named
    named = fields(client.post(sync, json={"sync_seq": 0, "held": [{"run": 1}]}))
    assert named.keys() == {"sync_seq", "held.0.attempt", "held.0.device"}
    end = {"run": 1, "attempt": 1, "outcome": "pruned", "rule_version": 0}
    named = fields(client.post(sync, json={"sync_seq": 1, "ended": [end], "rules": {"s": -1}}))
    assert named.keys() == {"ended.0.rule_version", "rules.s"}


@pytest.fixture
def patient_app(settings: Settings, store: Store) -> FastAPI:
    """One that keeps a worker without work waiting for a minute."""
    return create_app(settings.model_copy(update={"sync_interval_seconds": 60.0}), store)


ROOM_FOR_ONE = {"sync_seq": 1, "free_slots": {"cpu:0": 1}}


def sync_path(client: httpx.Client) -> str:
    """That of a new worker."""
    registered = ok(client.post("/v1/workers", json=examples.REGISTRATION), 201)
    return f"/v1/workers/{registered['id']}:sync"


def wait_until_one_waits(app: FastAPI, client: httpx.Client) -> None:
    for _ in range(10_000):
        ok(client.get("/healthz"))
        if app.state.context.arrivals._listeners:
            return


def test_a_worker_without_work_is_answered_when_some_arrives(
    patient_app: FastAPI, client_of: ClientOf
) -> None:
    client, worker = client_of(patient_app), client_of(patient_app)
    sync = sync_path(worker)
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(worker.post, sync, json=ROOM_FOR_ONE)
        wait_until_one_waits(patient_app, client)
        assert not answer.done()
        ok(client.post("/v1/studies", json=SPEC), 201)
        assert len(ok(answer.result(timeout=30))["start"]) == 1


def test_runs_that_come_back_are_told_to_workers_that_wait(
    patient_app: FastAPI, client_of: ClientOf
) -> None:
    client, worker = client_of(patient_app), client_of(patient_app)
    ok(client.post("/v1/studies", json=SPEC | {"budget": {"trials": 1}}), 201)
    first, second = sync_path(client), sync_path(client)
    (order,) = ok(client.post(first, json=ROOM_FOR_ONE))["start"]
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(worker.post, second, json=ROOM_FOR_ONE)
        wait_until_one_waits(patient_app, client)
        end = {"run": order["run"], "attempt": order["attempt"], "outcome": "released"}
        ok(client.post(first, json={"sync_seq": 2, "ended": [end]}))
        assert len(ok(answer.result(timeout=30))["start"]) == 1


def test_a_worker_waits_on_when_what_arrives_is_not_for_it(
    patient_app: FastAPI, client_of: ClientOf
) -> None:
    client, worker = client_of(patient_app), client_of(patient_app)
    sync = sync_path(worker)
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(worker.post, sync, json=ROOM_FOR_ONE)
        for number in range(3):
            ok(client.post("/v1/studies", json=EXTERNAL | {"name": f"x{number}"}), 201)
        assert not answer.done()
        ok(client.post("/v1/studies", json=SPEC), 201)
        assert len(ok(answer.result(timeout=30))["start"]) == 1


def test_a_worker_without_work_is_answered_in_its_interval_at_the_latest(
    settings: Settings, store: Store, client_of: ClientOf
) -> None:
    app = create_app(settings.model_copy(update={"sync_interval_seconds": 0.01}), store)
    client = client_of(app)
    assert ok(client.post(sync_path(client), json=ROOM_FOR_ONE))["start"] == []
    assert not app.state.context.arrivals._listeners


def test_runs_are_counted_by_device(client: httpx.Client) -> None:
    ok(client.post("/v1/studies", json=SPEC), 201)
    (device,) = examples.REGISTRATION["devices"]
    devices = [{**device, "name": name} for name in ("cpu:0", "cpu:1", "cpu:2")]
    registration = {**examples.REGISTRATION, "devices": devices}
    worker = ok(client.post("/v1/workers", json=registration), 201)["id"]
    free = {"sync_seq": 1, "free_slots": {"cpu:0": 1, "cpu:1": 2}}
    ok(client.post(f"/v1/workers/{worker}:sync", json=free))
    (shown,) = ok(client.get("/v1/workers"))["workers"]
    assert (shown["num_runs"], shown["runs_by_device"]) == (3, {"cpu:0": 1, "cpu:1": 2})


def test_workers_that_called_lately(client: httpx.Client, clock: ManualClock) -> None:
    for name in ("early", "late"):
        ok(client.post("/v1/workers", json={**examples.REGISTRATION, "name": name}), 201)
        clock.advance(60)

    def names(query: str) -> list[str]:
        return [worker["name"] for worker in ok(client.get(f"/v1/workers{query}"))["workers"]]

    assert names("") == ["early", "late"]
    assert names("?seen_within_seconds=90") == ["late"]
    assert names("?seen_within_seconds=0") == []
    for query in ("-1", "x", "1e99", "NaN"):
        assert "seen_within_seconds" in fields(
            client.get(f"/v1/workers?seen_within_seconds={query}")
        )
