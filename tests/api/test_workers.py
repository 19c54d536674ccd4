"""The worker protocol over HTTP, on both databases."""

from __future__ import annotations

import httpx

from service.api import examples
from tests.api.calling import SPEC, fields, ok, problem


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
    answer = ok(client.post(sync, json={"sync_seq": 2, "ended": [end]}))
    assert answer == {"start": [], "stop": [], "refused": []}
    assert ok(client.get("/v1/studies/s/best"))["value"] == 0.9
    (worker,) = ok(client.get("/v1/workers"))["workers"]
    assert (worker["id"], worker["state"], worker["num_runs"]) == (registered["id"], "LIVE", 0)
    (dataset,) = ok(client.get("/v1/datasets"))["datasets"]
    assert (dataset["name"], dataset["num_workers"]) == ("digits", 1)


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
    named = fields(client.post(sync, json={"sync_seq": 0, "held": [{"run": 1}]}))
    assert named.keys() == {"sync_seq", "held.0.attempt", "held.0.device"}
