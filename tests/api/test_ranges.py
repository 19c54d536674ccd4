"""What a request may name is what the database can hold, on both databases."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ridgeline.service.api import examples
from ridgeline.service.api.pages import next_page_token
from ridgeline.service.protocol import MAX_INT_32
from tests.api.calling import EXTERNAL, SPEC, fields, ok, problem

TRIALS = "/v1/studies/x/trials"


@pytest.fixture
def client(client: httpx.Client) -> httpx.Client:
    """A client of a service with an external study, of which one trial runs."""
    ok(client.post("/v1/studies", json=EXTERNAL), 201)
    ok(client.post(f"{TRIALS}:suggest"))
    return client


def numbers(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any], int, int]]:
    """(method, path, parameter, least, most) of all numbers in paths, queries and headers."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for parameter in operation.get("parameters", ()):
                schema = parameter["schema"]
                for one in schema.get("anyOf", [schema]):
                    if one.get("type") in ("integer", "number"):
                        yield method, path, parameter, one["minimum"], one["maximum"]


def test_every_number_in_its_range_is_one_that_the_database_can_hold(client: httpx.Client) -> None:
    names = set()
    ok(client.post("/v1/studies/x:cancel"))  # its stream of events ends then
    for method, path, parameter, least, most in numbers(ok(client.get("/openapi.json"))):
        names.add(parameter["name"])
        for number in (least, most):
            values = {parameter["name"]: str(number)}
            url = re.sub(r"\{\w+\}", "x", path.replace(f"{{{parameter['name']}}}", str(number)))
            answer = client.request(
                method,
                url,
                params=values if parameter["in"] == "query" else {},
                headers=values if parameter["in"] == "header" else {},
            )
            assert answer.status_code < 500, (method, url, values)
    assert names == {
        *("number", "page_size", "last-event-id", "after", "seen_within_seconds"),
        *("run", "attempt", "epoch"),
    }


@pytest.mark.parametrize("number", [2**31, 2**53, 2**63, 2**64])
def test_no_trial_has_a_number_that_large(client: httpx.Client, number: int) -> None:
    body = {"attempt": 1, "epoch": 1, "metrics": {"error": 0.5}}
    assert fields(client.get(f"{TRIALS}/{number}")).keys() == {"number"}
    assert "number" in fields(client.post(f"{TRIALS}/{number}:report", json=body))
    assert "number" in fields(client.post(f"{TRIALS}/{number}:complete", json={"attempt": 1}))
    token = next_page_token(number)
    assert fields(client.get(TRIALS, params={"page_token": token})).keys() == {"page_token"}
    several = {"trials": [{"number": number, "attempt": 1}]}
    assert "trials.0.number" in fields(client.post(f"{TRIALS}:report", json=several))
    stale = {**body, "attempt": number}
    assert "attempt" in fields(client.post(f"{TRIALS}/0:report", json=stale))


def test_the_largest_numbers_of_all(client: httpx.Client) -> None:
    body = {"attempt": MAX_INT_32, "epoch": 100_000, "metrics": {"error": 0.5}}
    for verb in ("report", "complete"):
        sent = body if verb == "report" else {"attempt": MAX_INT_32}
        problem(client.post(f"{TRIALS}/{MAX_INT_32}:{verb}", json=sent), 404)
        problem(client.post(f"{TRIALS}/0:{verb}", json=sent), 409)
    several = {"trials": [{"number": MAX_INT_32, "attempt": MAX_INT_32}]}
    (answer,) = ok(client.post(f"{TRIALS}:report", json=several))["trials"]
    assert answer["error"]["status"] == 404
    ok(client.post(f"{TRIALS}/0:report", json={**body, "attempt": 1}))
    for path, most in ((TRIALS, MAX_INT_32), ("/v1/studies", 2**53)):
        ok(client.get(path, params={"page_token": next_page_token(most)}))


def test_the_longest_name_of_a_device_is_one_that_a_run_can_keep(client: httpx.Client) -> None:
    ok(client.post("/v1/studies", json=SPEC), 201)
    (device,) = examples.REGISTRATION["devices"]
    for length, status in ((64, 201), (65, 422)):
        name = "d" * length
        registration = {**examples.REGISTRATION, "devices": [{**device, "name": name}]}
        answer = client.post("/v1/workers", json=registration)
        assert answer.status_code == status
        if status == 201:
            statement = {"sync_seq": 1, "free_slots": {name: 1}}
            sync = f"/v1/workers/{answer.json()['id']}:sync"
            assert ok(client.post(sync, json=statement))["start"][0]["device"] == name
        else:
            assert fields(answer).keys() == {"devices.0.name"}
