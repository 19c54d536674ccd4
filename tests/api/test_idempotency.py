"""Idempotency-Key: an effect once, the same answer each time; on both databases."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from fastapi import FastAPI

from ridgeline.service import projection, studies, tokens
from ridgeline.service.api.app import create_app
from ridgeline.service.settings import Settings
from ridgeline.service.store.session import Store, Transaction
from tests.api.calling import EXTERNAL, SPEC, fields, ok, problem, sqlite_only
from tests.api.conftest import ClientOf
from tests.conftest import ManualClock

KEY = {"Idempotency-Key": "key 1"}


def same(first: httpx.Response, again: httpx.Response) -> None:
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert (again.status_code, again.content) == (first.status_code, first.content)


def test_each_post_is_answered_like_the_first_time(client: httpx.Client) -> None:
    def post(path: str, body: object) -> httpx.Response:
        first = client.post(path, json=body, headers=KEY)
        assert first.is_success, first.text
        same(first, client.post(path, json=body, headers=KEY))
        return first

    post("/v1/studies", EXTERNAL)
    post("/v1/studies/x/trials:enqueue", {"configs": [{"depth": 3}, {}]})
    given = post("/v1/studies/x/trials:suggest", {"count": 2}).json()["trials"]
    assert [trial["number"] for trial in given] == [0, 1]
    post("/v1/studies/x/trials/0:report", {"attempt": 1, "epoch": 1, "metrics": {"error": 1}})
    post("/v1/studies/x/trials/0:complete", {"attempt": 1})
    post("/v1/studies/x/trials:report", {"trials": [{"number": 1, "attempt": 1}]})
    post("/v1/studies/x:pause", {})
    post("/v1/studies/x:resume", {})
    assert post("/v1/studies/x:extend", {"trials": 2}).json()["num_trials"] == 6
    post("/v1/studies/x:retry", {})
    post("/v1/studies/x:clone", {"name": "y"})
    post("/v1/studies/x:stop", {})
    post("/v1/studies/x:cancel", {})
    post("/v1/studies/x:archive", {})
    post("/v1/studies/x:unarchive", {})
    page = ok(client.get("/v1/studies/x/trials"))
    assert len(page["trials"]) == 2


def test_the_answer_is_the_first_one_whatever_came_after(client: httpx.Client) -> None:
    first = client.post("/v1/studies", json=SPEC, headers=KEY)
    ok(client.post("/v1/studies/s:cancel"))
    again = client.post("/v1/studies", content=first.request.content, headers={
        **KEY, "Content-Type": "application/json"
    })  # fmt: skip
    same(first, again)
    spaced = httpx.Response(200, json=SPEC).text.replace(",", ",\n  ")
    again = client.post("/v1/studies", content=spaced, headers={
        **KEY, "Content-Type": "application/json"
    })  # fmt: skip
    same(first, again)


def test_another_body_needs_another_key(client: httpx.Client) -> None:
    ok(client.post("/v1/studies", json=SPEC, headers=KEY), 201)
    answer = client.post("/v1/studies", json={**SPEC, "name": "t"}, headers=KEY)
    assert "Idempotency-Key" in fields(answer)
    ok(client.post("/v1/studies", json={**SPEC, "name": "t"}), 201)


def test_an_error_is_not_remembered(client: httpx.Client) -> None:
    problem(client.post("/v1/studies/s:pause", headers=KEY), 404)
    ok(client.post("/v1/studies", json=SPEC), 201)
    ok(client.post("/v1/studies/s:pause", headers=KEY))


def test_keys_belong_to_a_token_and_a_path(app: FastAPI, store: Store, client_of: ClientOf) -> None:
    with store.transaction() as tx:
        texts = [tokens.create(tx, name, ["write"])[1] for name in ("a", "b")]
    one, other = (client_of(app, text) for text in texts)
    ok(one.post("/v1/studies", json=SPEC, headers=KEY), 201)
    problem(other.post("/v1/studies", json=SPEC, headers=KEY), 409)
    ok(one.post("/v1/studies/s:pause", headers=KEY))


def test_of_many_at_once_one_has_its_effect(client: httpx.Client) -> None:
    def post(_: int) -> httpx.Response:
        return client.post("/v1/studies", json=SPEC, headers=KEY)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(8)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    for answer in answers:
        if answer.status_code == 409:
            body = problem(answer, 409)
            assert body["type"] == "urn:ridgeline:request-in-flight"
            assert answer.headers["retry-after"] == "1"
    first = [a for a in answers if a.status_code == 201 and "idempotency-replayed" not in a.headers]
    assert len(first) == 1
    same(first[0], post(0))


@sqlite_only
def test_a_request_in_flight_is_not_begun_again(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    create = studies.create

    def slow(*args: object, **kwargs: object) -> object:
        begun.set()
        assert go_on.wait(30)
        return create(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(studies, "create", slow)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/studies", json=SPEC, headers=KEY)
        assert begun.wait(30)
        body = problem(client.post("/v1/studies", json=SPEC, headers=KEY), 409)
        assert body["type"] == "urn:ridgeline:request-in-flight"
        go_on.set()
        same(first.result(), client.post("/v1/studies", json=SPEC, headers=KEY))


class LateStore(Store):
    """The store of another api process: something happens just before it first locks anything."""

    happens: Callable[[], object] | None = None

    @contextmanager
    def turn(self, study: str) -> Iterator[None]:
        self._happen()
        with super().turn(study):
            yield

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        self._happen()
        with super().transaction() as tx:
            yield tx

    def _happen(self) -> None:
        happens, self.happens = self.happens, None
        if happens is not None:
            happens()


def _create(client: httpx.Client) -> httpx.Response:
    return client.post("/v1/studies", json=SPEC, headers=KEY)


def _enqueue_all_there_is_room_for(client: httpx.Client) -> httpx.Response:
    body = {"configs": [{"depth": depth} for depth in (1, 2, 3, 4)]}
    return client.post("/v1/studies/x/trials:enqueue", json=body, headers=KEY)


def _suggest(client: httpx.Client) -> httpx.Response:
    return client.post("/v1/studies/x/trials:suggest", json={"count": 4}, headers=KEY)


def _fail(client: httpx.Client) -> httpx.Response:
    body = {"attempt": 1, "state": "FAIL", "reason": "diverged"}
    return client.post("/v1/studies/y/trials/0:complete", json=body, headers=KEY)


@pytest.mark.parametrize("post", [_create, _enqueue_all_there_is_room_for, _suggest, _fail])
def test_of_two_processes_the_later_gives_the_answer_of_the_first(
    post: Callable[[httpx.Client], httpx.Response],
    client: httpx.Client,
    client_of: ClientOf,
    migrated_url: str,
    clock: ManualClock,
    settings: Settings,
) -> None:
    """What the first has changed would refuse the later: a name taken, say."""
    ok(client.post("/v1/studies", json=EXTERNAL), 201)
    ok(client.post("/v1/studies", json={**EXTERNAL, "name": "y"}), 201)
    ok(client.post("/v1/studies/y/trials:suggest", json={}))
    other_store = LateStore(migrated_url, clock=clock, project=projection.project)
    other = client_of(create_app(settings, other_store))
    firsts: list[httpx.Response] = []
    other_store.happens = lambda: firsts.append(post(client))
    later = post(other)
    other_store.close()
    (first,) = firsts
    assert first.is_success, first.text
    same(first, later)


def test_an_error_of_ones_own_is_told_whoever_else_is_answered(
    client: httpx.Client,
    client_of: ClientOf,
    migrated_url: str,
    clock: ManualClock,
    settings: Settings,
) -> None:
    other_store = LateStore(migrated_url, clock=clock, project=projection.project)
    other = client_of(create_app(settings, other_store))
    other_store.happens = lambda: client.post("/v1/studies", json=SPEC, headers=KEY)
    answer = other.post("/v1/studies", json=SPEC, headers={"Idempotency-Key": "key 2"})
    other_store.close()
    assert problem(answer, 409)["type"] == "urn:ridgeline:conflict"


@sqlite_only
@pytest.mark.parametrize("key", ["x" * 201, "caf\xe9", "", "a\tb"])
def test_keys_that_cannot_be(client: httpx.Client, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode("latin-1")}
    answer = client.post("/v1/studies/s:pause", headers=headers)
    assert "Idempotency-Key" in fields(answer)


def test_the_key_of_a_deleted_study_makes_no_other_and_says_so(
    client: httpx.Client, clock: ManualClock
) -> None:
    ok(client.post("/v1/studies", json=EXTERNAL, headers=KEY), 201)
    ok(client.post("/v1/studies/x:clone", json={"name": "y"}, headers=KEY), 201)
    for name in ("x", "y"):
        ok(client.post(f"/v1/studies/{name}:cancel"))
    ok(client.delete("/v1/studies/y", headers={"If-Match": "*"}))
    answer = problem(client.post("/v1/studies/x:clone", json={"name": "y"}, headers=KEY), 409)
    assert answer["detail"].startswith("the study y that this Idempotency-Key has made was deleted")
    ok(client.delete("/v1/studies/x", headers={"If-Match": "*"}))
    problem(client.post("/v1/studies", json=EXTERNAL, headers=KEY), 409)
    clock.advance(1)
    ok(client.post("/v1/studies", json=EXTERNAL), 201)
    problem(client.post("/v1/studies", json=EXTERNAL, headers=KEY), 409)
