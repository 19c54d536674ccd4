"""Suggestions that wait for a trial, on both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from ridgeline.service import workers
from ridgeline.service.api.app import create_app
from ridgeline.service.settings import Settings
from ridgeline.service.store.session import Store
from tests.api.calling import EXTERNAL, fields, ok
from tests.api.conftest import ClientOf
from tests.conftest import ManualClock

SUGGEST = "/v1/studies/x/trials:suggest"
WAIT = {"count": 1, "wait_seconds": 30}
ONE_AT_ONCE = {**EXTERNAL, "budget": {"trials": 2, "max_parallel": 1}}


@pytest.fixture
def app(settings: Settings, store: Store) -> FastAPI:
    """One that hears of other processes too late for these tests."""
    return create_app(settings.model_copy(update={"sync_interval_seconds": 60.0}), store)


@pytest.fixture
def wait(app: FastAPI, client_of: ClientOf) -> Iterator[Callable[..., Future[httpx.Response]]]:
    """Asks for a trial in another thread; returns once the request waits."""
    other = client_of(app)
    with ThreadPoolExecutor(1) as thread:

        def wait(**headers: str) -> Future[httpx.Response]:
            answer = thread.submit(other.post, SUGGEST, json=WAIT, headers=headers)
            for _ in range(10_000):
                ok(other.get("/healthz"))
                if app.state.context.arrivals._listeners:
                    break
            assert not answer.done()
            return answer

        yield wait


def complete(client: httpx.Client, trial: dict[str, Any]) -> None:
    body = {"attempt": trial["attempt"], "value": 0.5}
    ok(client.post(f"/v1/studies/x/trials/{trial['number']}:complete", json=body))


def taken(client: httpx.Client) -> dict[str, Any]:
    (trial,) = ok(client.post(SUGGEST, json={"lease_seconds": 10}))["trials"]
    return dict(trial)


def test_one_waits_for_room(
    client: httpx.Client, wait: Callable[..., Future[httpx.Response]]
) -> None:
    ok(client.post("/v1/studies", json=ONE_AT_ONCE), 201)
    first = taken(client)
    answer = wait()
    complete(client, first)
    assert [trial["number"] for trial in ok(answer.result(timeout=30))["trials"]] == [1]


def test_one_waits_for_the_trial_of_a_program_that_died(
    client: httpx.Client,
    wait: Callable[..., Future[httpx.Response]],
    app: FastAPI,
    store: Store,
    clock: ManualClock,
) -> None:
    ok(client.post("/v1/studies", json=ONE_AT_ONCE), 201)
    taken(client)
    answer = wait()
    clock.advance(11)
    assert workers.expire(store) == 1
    (again,) = ok(answer.result(timeout=30))["trials"]
    assert (again["number"], again["attempt"]) == (0, 2)


def test_the_end_of_the_study_ends_the_waiting(
    client: httpx.Client, wait: Callable[..., Future[httpx.Response]]
) -> None:
    ok(client.post("/v1/studies", json=ONE_AT_ONCE), 201)
    complete(client, taken(client))
    last = taken(client)
    answer = wait()
    complete(client, last)
    body = ok(answer.result(timeout=30))
    assert (body["trials"], body["state"]) == ([], "COMPLETED")
    assert ok(client.post(SUGGEST, json=WAIT))["state"] == "COMPLETED"


def test_a_key_is_not_used_up_by_waiting(
    client: httpx.Client, wait: Callable[..., Future[httpx.Response]]
) -> None:
    ok(client.post("/v1/studies", json=ONE_AT_ONCE), 201)
    first = taken(client)
    key = {"Idempotency-Key": "one"}
    answer = wait(**key)
    complete(client, first)
    body = ok(answer.result(timeout=30))
    assert [trial["number"] for trial in body["trials"]] == [1]
    assert ok(client.post(SUGGEST, json=WAIT, headers=key)) == body


def test_those_that_wait_keep_no_thread(
    app: FastAPI, client_of: ClientOf, client: httpx.Client, store: Store
) -> None:
    """The api has 40 threads: a study is read while 100 programs wait for a turn at it."""
    ok(client.post("/v1/studies", json=ONE_AT_ONCE), 201)
    first = taken(client)
    arrivals = app.state.context.arrivals
    with ThreadPoolExecutor(100) as threads:
        with store.turn("x"):
            answers = [threads.submit(client_of(app).post, SUGGEST, json=WAIT) for _ in range(100)]
            while arrivals.num_listening("x") < len(answers):
                pass
            assert ok(client.get("/v1/studies/x"))["trials"]["running"] == 1
            assert not any(answer.done() for answer in answers)
        complete(client, first)
        last = next(
            trial for answer in as_completed(answers) for trial in ok(answer.result())["trials"]
        )
        complete(client, last)
        found = [ok(answer.result(timeout=30)) for answer in answers]
    assert [trial["number"] for body in found for trial in body["trials"]] == [1]
    assert {body["state"] for body in found if not body["trials"]} == {"COMPLETED"}


def test_those_that_came_first_are_served_first(
    app: FastAPI, client_of: ClientOf, client: httpx.Client
) -> None:
    ok(
        client.post(
            "/v1/studies", json={**ONE_AT_ONCE, "budget": {"trials": 4, "max_parallel": 1}}
        ),
        201,
    )
    trial = taken(client)
    arrivals = app.state.context.arrivals
    with ThreadPoolExecutor(3) as threads:
        answers = []
        for number in range(3):
            answers.append(threads.submit(client_of(app).post, SUGGEST, json=WAIT))
            while arrivals.num_listening("x") <= number:
                pass
        for number, answer in enumerate(answers, start=1):
            complete(client, trial)
            (trial,) = ok(answer.result(timeout=30))["trials"]
            assert trial["number"] == number
            assert not any(later.done() for later in answers[number:])


def test_the_waiting_ends_in_time(client: httpx.Client) -> None:
    ok(client.post("/v1/studies", json=ONE_AT_ONCE), 201)
    taken(client)
    body = ok(client.post(SUGGEST, json={"wait_seconds": 0.01}))
    assert body["trials"] == []
    assert "max_parallel is 1" in body["reason"]


def test_the_wait_has_a_limit(client: httpx.Client) -> None:
    ok(client.post("/v1/studies", json=ONE_AT_ONCE), 201)
    assert "wait_seconds" in fields(client.post(SUGGEST, json={"wait_seconds": 31}))
    assert "client_id" in fields(client.post(SUGGEST, json={"client_id": ""}))
