"""Bad input is answered at once with a problem that names the field."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.api.calling import EXTERNAL, SPEC, fields, ok, sqlite_only

pytestmark = sqlite_only

FLOAT = {"type": "float", "low": 0.001, "high": 0.1}
WIDE = {f"x{n}": {"type": "float", "low": 0, "high": 1, "points": 100} for n in range(20)}


def spec(**changes: Any) -> dict[str, Any]:
    return {**SPEC, **changes}


def space(**parameters: Any) -> dict[str, Any]:
    return spec(space=parameters)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (spec(task={"name": "resnet", "dataset": "digits"}), "task.name"),
        (space(learning_rat=FLOAT), "space.learning_rat"),
        (space(learning_rate={**FLOAT, "low": 0.1}), "space.learning_rate"),
        (space(learning_rate={**FLOAT, "low": 0.2}), "space.learning_rate"),
        (space(learning_rate={**FLOAT, "low": 0, "log": True}), "space.learning_rate"),
        (space(learning_rate={**FLOAT, "low": "a"}), "space.learning_rate.low"),
        (space(learning_rate={**FLOAT, "lo": 1}), "space.learning_rate.lo"),
        (space(learning_rate={"type": "normal"}), "space.learning_rate.type"),
        (space(l2={"type": "values", "values": [0.1, None]}), "space.l2.values.1"),
        (spec(space={}), "space"),
        (
            spec(space={"learning_rate": FLOAT}, sampler={"name": "grid"}, budget={}),
            "space.learning_rate.points",
        ),
        (spec(budget={"trials": 0}), "budget.trials"),
        (spec(budget={"trials": 4, "epochs": 0}), "budget.epochs"),
        (spec(budget={}), "budget.trials"),
        (
            {**EXTERNAL, "space": WIDE, "sampler": {"name": "grid"}, "budget": {}},
            "space",
        ),
        (spec(task={"name": "mlp", "dataset": "imagenet"}), "task.dataset"),
        (spec(task={"name": "mlp", "dataset": "../digits"}), "task.dataset"),
        (spec(task={"name": "mlp", "dataset": "/etc"}), "task.dataset"),
        (spec(name="../up"), "name"),
        (spec(name="a" * 129), "name"),
        (spec(name=7), "name"),
        (spec(objective={"metric": "f1"}), "objective.metric"),
        (spec(priority=2**40), "priority"),
        (spec(sampler={"name": "auto"}, warm_start=["nobody"]), "warm_start.0"),
        (spec(extra=1), "extra"),
        ({}, "space"),
        ([SPEC], ""),
        ("spec", ""),
    ],
)
def test_a_spec_that_cannot_be(client: httpx.Client, body: Any, field: str) -> None:
    answer = client.post("/v1/studies", json=body)
    assert field in fields(answer)
    assert ok(client.get("/v1/studies"))["studies"] == []


def test_every_wrong_field_is_named_at_once(client: httpx.Client) -> None:
    body = spec(name="", budget={"trials": -1}, sampler={"name": "magic"}, replicates=0)
    named = fields(client.post("/v1/studies", json=body))
    assert named.keys() == {"name", "budget.trials", "sampler.name", "replicates"}


@pytest.mark.parametrize(
    ("content", "status", "field"),
    [
        (b"name: s\n", 400, ""),
        (b"null", 422, ""),
        (b"", 422, "name"),
        (b'{"name": ', 400, ""),
        (b"\xff\xfe", 400, ""),
        (json.dumps(spec(name="a\x00b")).encode(), 422, "name"),
        (json.dumps(spec(name="a\ud800")).encode(), 422, "name"),
        (json.dumps(spec(priority=2**70)).encode(), 422, "priority"),
        (json.dumps(spec(priority=float("nan"))).encode(), 422, "priority"),
        (b'{"name": "a", "name": "b"}', 422, "name"),
        (b'{"budget": {"seconds": 1e400}}', 422, "budget.seconds"),
        (b"[" * 50_000, 422, ""),
        (b'{"a":' * 15_000, 422, ""),
        (b"1" * 5_000, 400, ""),
    ],
)
def test_bodies_that_are_no_strict_json(
    client: httpx.Client, content: bytes, status: int, field: str
) -> None:
    headers = {"Content-Type": "application/json"}
    answer = client.post("/v1/studies", content=content, headers=headers)
    assert field in fields(answer, status)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("workers/w:sync", {"sync_seq": "1"}, "sync_seq"),
        ("workers/w:sync", {"sync_seq": True}, "sync_seq"),
        ("workers/w:sync", {"sync_seq": 1, "leaving": 0}, "leaving"),
        ("workers/w:sync", {"sync_seq": 1, "free_slots": {"cpu:0": "1"}}, "free_slots.cpu:0"),
        ("studies/x/trials:suggest", {"count": "2"}, "count"),
        ("studies/x/trials:suggest", {"lease_seconds": "60"}, "lease_seconds"),
        ("studies/x/trials/0:report", {"attempt": "1"}, "attempt"),
        ("studies/x/trials/0:complete", {"attempt": 1, "value": "0.5"}, "value"),
        ("studies/x/trials/0:complete", {"attempt": 1, "metrics": {"m": True}}, "metrics.m"),
        ("studies/x/trials:report", {"trials": [{"number": "0", "attempt": 1}]}, "trials.0.number"),
    ],
)
def test_texts_are_no_numbers_and_numbers_no_flags(
    client: httpx.Client, path: str, body: Any, field: str
) -> None:
    assert fields(client.post(f"/v1/{path}", json=body)).keys() >= {field}


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/studies?page_size=0", "page_size"),
        ("/v1/studies?page_size=1001", "page_size"),
        ("/v1/studies?page_size=x", "page_size"),
        ("/v1/studies?page_token=%00", "page_token"),
        ("/v1/studies?page_token=LTE=", "page_token"),
        ("/v1/studies?page_token=OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5", "page_token"),
        ("/v1/studies?state=busy", "state.0"),
        ("/v1/studies?" + "&state=QUEUED" * 7, "state"),
        ("/v1/studies/a%00b", "study"),
        ("/v1/studies/%2e%2e", "study"),
        ("/v1/studies/..%00/trials", "study"),
        (f"/v1/studies/{'a' * 200}", "study"),
        ("/v1/studies/s/trials/x", "number"),
        ("/v1/studies/s/trials/-1", "number"),
        (f"/v1/studies/s/trials/{2**70}", "number"),
        ("/v1/studies/s/trials/1.5", "number"),
        ("/v1/studies/s/events?after=-1", "after"),
    ],
)
def test_parameters_that_cannot_be(client: httpx.Client, path: str, field: str) -> None:
    ok(client.post("/v1/studies", json=SPEC), 201)
    assert field in fields(client.get(path))


def test_a_header_that_cannot_be(client: httpx.Client) -> None:
    answer = client.get("/v1/studies/s/events", headers={"Last-Event-ID": "one"})
    assert "last-event-id" in fields(answer)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"depth": 10}, "configs.0.depth"),
        ({"depth": 2.5}, "configs.0.depth"),
        ({"depth": True}, "configs.0.depth"),
        ({"depth": None}, "configs.0.depth"),
        ({"depth": [1]}, "configs.0.depth"),
        ({"depth": 1, "width": 2}, "configs.0.width"),
        (7, "configs.0"),
    ],
)
def test_a_configuration_that_cannot_be(client: httpx.Client, config: Any, field: str) -> None:
    ok(client.post("/v1/studies", json=EXTERNAL), 201)
    answer = client.post("/v1/studies/x/trials:enqueue", json={"configs": [config]})
    assert field in fields(answer)


def test_what_a_program_may_not_report(client: httpx.Client) -> None:
    ok(client.post("/v1/studies", json=EXTERNAL), 201)
    ok(client.post("/v1/studies/x/trials:suggest"))
    path = "/v1/studies/x/trials/0"
    report = {"attempt": 1, "epoch": 0, "metrics": {"error": "low"}}
    named = fields(client.post(f"{path}:report", json=report))
    assert named.keys() == {"epoch", "metrics.error"}
    named = fields(client.post(f"{path}:complete", json={"attempt": 1}))
    assert "value" in named


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "trials"),
        ({"trials": []}, "trials"),
        ({"trials": [{"number": 0}]}, "trials.0.attempt"),
        ({"trials": [{"number": -1, "attempt": 1}]}, "trials.0.number"),
        (
            {"trials": [{"number": 0, "attempt": 1, "epochs": [{"epoch": 0, "metrics": {}}]}]},
            "trials.0.epochs.0.epoch",
        ),
        (
            {"trials": [{"number": 0, "attempt": 1, "end": {"state": "RUNNING"}}]},
            "trials.0.end.state",
        ),
        ({"trials": [{"number": 0, "attempt": 1}] * 2}, "trials.1.number"),
        ({"trials": [{"number": 0, "attempt": 1}] * 1_001}, "trials"),
    ],
)
def test_reports_on_trials_that_cannot_be(
    client: httpx.Client, body: dict[str, Any], field: str
) -> None:
    ok(client.post("/v1/studies", json=EXTERNAL), 201)
    ok(client.post("/v1/studies/x/trials:suggest"))
    assert field in fields(client.post("/v1/studies/x/trials:report", json=body))


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, {"epoch", "metrics"}),
        ({"epoch": 1}, {"metrics"}),
        ({"metrics": {}}, {"epoch"}),
        ({"epoch": 1, "epochs": [{"epoch": 2, "metrics": {}}]}, {"epoch"}),
        ({"epochs": [{"epoch": 2, "metrics": {"error": None}}]}, {"epochs.0.metrics.error"}),
        ({"epochs": [{"metrics": {}}]}, {"epochs.0.epoch"}),
    ],
)
def test_epochs_that_cannot_be(client: httpx.Client, body: dict[str, Any], named: set[str]) -> None:
    ok(client.post("/v1/studies", json=EXTERNAL), 201)
    ok(client.post("/v1/studies/x/trials:suggest"))
    answer = client.post("/v1/studies/x/trials/0:report", json={"attempt": 1, **body})
    assert fields(answer).keys() == named


def test_an_end_that_cannot_be_is_named_by_its_place_among_the_trials(
    client: httpx.Client,
) -> None:
    ok(client.post("/v1/studies", json=EXTERNAL), 201)
    ok(client.post("/v1/studies/x/trials:suggest", json={"count": 2}))
    reports = [
        {"number": 1, "attempt": 1, "end": {"value": 0.5}},
        {"number": 0, "attempt": 1, "end": {}},
    ]
    answer = ok(client.post("/v1/studies/x/trials:report", json={"trials": reports}))
    good, bad = answer["trials"]
    assert (good["state"], good["error"]) == ("COMPLETE", None)
    assert (bad["state"], bad["error"]["status"]) == (None, 422)
    assert bad["error"]["errors"] == [
        {"field": "trials.1.end.value", "message": "is missing, and no epoch has reported error"}
    ]
