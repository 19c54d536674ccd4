"""Requests with a large body take turns, and nobody else waits for them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import anyio.from_thread
import httpx
import pytest
from fastapi import FastAPI

from ridgeline.service.api import bodies, examples
from ridgeline.service.api.app import create_app
from ridgeline.service.settings import Settings
from ridgeline.service.store.session import Store
from tests.api.calling import SPEC, fields, ok, problem, sqlite_only
from tests.api.conftest import ClientOf

pytestmark = sqlite_only

HEADERS = {"Content-Type": "application/json"}
PADDING = b" " * bodies.LARGE_BODY_BYTES


@pytest.fixture
def settings() -> Settings:
    return Settings(_env_file=None, sync_interval_seconds=5.0)


def test_large_bodies_take_turns_and_small_ones_pass(
    app: FastAPI, client_of: ClientOf, portal: anyio.from_thread.BlockingPortal
) -> None:
    lock = app.state.context.large_bodies.in_work
    portal.call(lock.acquire)
    large = json.dumps(SPEC).encode() + PADDING
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(client_of(app).post, "/v1/studies", content=large, headers=HEADERS)
        client = client_of(app)
        ok(client.post("/v1/studies", json={**SPEC, "name": "small"}), 201)
        assert [study["name"] for study in ok(client.get("/v1/studies"))["studies"]] == ["small"]
        assert not waiting.done()
        portal.call(lock.release)
        ok(waiting.result(timeout=60), 201)
    assert not lock.locked()


def test_a_large_body_that_is_refused_ends_its_turn(app: FastAPI, client: httpx.Client) -> None:
    context = app.state.context.large_bodies
    for content, status in ((b"x" + PADDING, 400), (b"[]" + PADDING, 422)):
        answer = client.post("/v1/studies", content=content, headers=HEADERS)
        problem(answer, status)
    problem(client.post("/v1/studies", content=PADDING), 415)
    too_large = iter([PADDING] * 200)
    problem(client.post("/v1/studies", content=too_large, headers=HEADERS), 413)
    assert not context.in_work.locked()
    assert context.arriving._value == 4


def test_nobody_waits_for_work_in_a_turn(
    settings: Settings, store: Store, client_of: ClientOf
) -> None:
    app = create_app(settings.model_copy(update={"sync_interval_seconds": 3_600.0}), store)
    client = client_of(app)
    worker = ok(client.post("/v1/workers", json=examples.REGISTRATION), 201)["id"]
    large = json.dumps({"sync_seq": 1, "free_slots": {"cpu:0": 1}}).encode() + PADDING
    answer = client.post(f"/v1/workers/{worker}:sync", content=large, headers=HEADERS)
    assert ok(answer)["start"] == []


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/studies", b'{"a":[' + b"{}," * 200_000 + b"{}]}", ""),
        ("/v1/tokens", b"[" + b"1," * 200_000 + b"1]", ""),
        ("/v1/workers/w:sync", b'{"held":[' + b"{}," * 1_000_000 + b"{}]}", ""),
        ("/v1/workers/w:sync", b'{"sync_seq":1,"held":[' + b"{}," * 20_000 + b"{}]}", "held.0.run"),
        (
            "/v1/studies/s/trials:report",
            b'{"trials":[' + b"{}," * 20_000 + b"{}]}",
            "trials.0.number",
        ),
        (
            "/v1/studies",
            b'{"space":{"l2":{"type":"values","values":[' + b"[]," * 40_000 + b"1]}}}",
            "",
        ),
    ],
)
def test_more_values_than_any_request_needs_are_refused(
    client: httpx.Client, path: str, body: bytes, field: str
) -> None:
    assert field in fields(client.post(path, content=body, headers=HEADERS))
