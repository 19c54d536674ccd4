"""Server-sent events; on both databases."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import anyio.from_thread
import httpx
import pytest
from fastapi import FastAPI

from ridgeline.service import tokens
from ridgeline.service.api import events
from ridgeline.service.api.auth import Caller
from ridgeline.service.errors import Unavailable
from ridgeline.service.store.session import Store, Transaction
from tests.api.calling import EXTERNAL, ok, sqlite_only

EVERYBODY = Caller(None, frozenset(tokens.SCOPES))


def parse(text: str) -> list[tuple[int, str, Any]]:
    found = []
    for block in text.split("\n\n"):
        if block and not block.startswith(":"):
            fields = dict(line.split(": ", 1) for line in block.split("\n"))
            found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


def finish_a_study(client: httpx.Client) -> None:
    ok(client.post("/v1/studies", json=EXTERNAL), 201)
    for trial in ok(client.post("/v1/studies/x/trials:suggest", json={"count": 4}))["trials"]:
        path = f"/v1/studies/x/trials/{trial['number']}"
        report = {"attempt": 1, "epoch": 1, "metrics": {"error": 0.5}}
        ok(client.post(f"{path}:report", json=report))
        ok(client.post(f"{path}:complete", json={"attempt": 1}))


def test_a_finished_study_is_told_to_its_end(client: httpx.Client) -> None:
    finish_a_study(client)
    answer = client.get("/v1/studies/x/events")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    told = parse(answer.text)
    ids = [id_ for id_, _, _ in told]
    assert ids == sorted(ids)
    kinds = [kind for _, kind, _ in told]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "study": 1,
        "trial": 4,
        "run": 4,
        "report": 4,
        "end": 1,
    }
    assert kinds[-1] == "end"
    revision = ok(client.get("/v1/studies/x"))["revision"]
    assert told[-1][0] <= revision


def test_a_reader_goes_on_where_it_was(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_BATCH", 3)
    finish_a_study(client)
    told = parse(client.get("/v1/studies/x/events").text)
    middle = told[5][0]
    by_header = client.get("/v1/studies/x/events", headers={"Last-Event-ID": str(middle)})
    by_query = client.get("/v1/studies/x/events", params={"after": middle})
    assert parse(by_header.text) == parse(by_query.text) == told[6:]
    end = client.get("/v1/studies/x/events", params={"after": told[-1][0]})
    assert [kind for _, kind, _ in parse(end.text)] == ["end"]


@pytest.fixture
def next_of(
    app: FastAPI,
    portal: anyio.from_thread.BlockingPortal,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """Makes a function that waits for the next piece of a live stream."""
    monkeypatch.setattr(events, "POLL_SECONDS", 0)
    monkeypatch.setattr(events, "HEARTBEAT_POLLS", 2)

    def next_of(caller: Caller = EVERYBODY) -> Any:
        stream: AsyncIterator[str] = events.stream(app.state.context, caller, "x", 0)

        async def advance() -> str:
            return await anext(stream, "closed")

        return lambda: portal.call(advance)

    return next_of


def test_a_live_study_is_followed(client: httpx.Client, next_of: Any) -> None:
    ok(client.post("/v1/studies", json=EXTERNAL), 201)
    next_piece = next_of()
    assert parse(next_piece())[0][1] == "study"
    assert next_piece().startswith(": ")
    assert next_piece().startswith(": ")
    ok(client.post("/v1/studies/x:cancel"))
    ((_, kind, data),) = parse(next_piece())
    assert (kind, data["state"]) == ("study", "CANCELLED")
    assert parse(next_piece())[0][1] == "end"
    assert next_piece() == "closed"


@sqlite_only
def test_a_revoked_token_ends_the_stream(client: httpx.Client, store: Store, next_of: Any) -> None:
    ok(client.post("/v1/studies", json=EXTERNAL), 201)
    with store.transaction() as tx:
        info, _ = tokens.create(tx, "reader", ["read"])
    next_piece = next_of(Caller(info.id, frozenset({"read"})))
    assert parse(next_piece())[0][1] == "study"
    with store.transaction() as tx:
        tokens.revoke(tx, info.id)
    assert next_piece() == "closed"


@sqlite_only
def test_a_database_that_is_away_for_a_while_ends_nothing(
    client: httpx.Client, store: Store, next_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok(client.post("/v1/studies", json=EXTERNAL), 201)
    next_piece = next_of()
    assert parse(next_piece())[0][1] == "study"
    ok(client.post("/v1/studies/x:pause"))

    @contextmanager
    def away() -> Iterator[Transaction]:
        raise Unavailable("restarting")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(store, "reading", away)
        assert next_piece().startswith(": ")
    assert parse(next_piece())[0][2]["state"] == "PAUSED"


@sqlite_only
def test_a_stream_that_waits_holds_no_connection(
    client: httpx.Client, store: Store, next_of: Any
) -> None:
    ok(client.post("/v1/studies", json=EXTERNAL), 201)
    next_piece = next_of()
    next_piece()
    assert store._engine.pool.checkedout() == 0  # type: ignore[attr-defined]


@sqlite_only
def test_a_reader_that_leaves_ends_the_stream(
    app: FastAPI, client: httpx.Client, portal: anyio.from_thread.BlockingPortal
) -> None:
    ok(client.post("/v1/studies", json=EXTERNAL), 201)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/v1/studies/x/events",
        "raw_path": b"/v1/studies/x/events",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }
    told: list[bytes] = []

    async def run() -> None:
        has_told = anyio.Event()

        async def receive() -> dict[str, Any]:
            await has_told.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            told.append(message.get("body", b""))
            if told[-1]:
                has_told.set()

        await app(scope, receive, send)

    portal.call(run)
    assert b"event: study" in b"".join(told)
