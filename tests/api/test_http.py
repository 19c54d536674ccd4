"""What holds for every request, whatever it asks for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from ridgeline.service.errors import Unavailable
from ridgeline.service.store.session import Store, Transaction
from tests.api.calling import EXTERNAL, SPEC, ok, problem, sqlite_only
from tests.api.routes import call, routes_of

pytestmark = sqlite_only

POST = "/v1/studies"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "",
        "127.0.0.1.nip.io:8000",
        "[::2]",
        "localhost:1:2",
        "localhost:[",
        "localhost:x",
        "[",
    ],
)
def test_foreign_hosts_are_refused(client: httpx.Client, host: str) -> None:
    body = problem(client.get("/v1/studies", headers={"Host": host}), 421)
    assert "RIDGELINE_ALLOWED_HOSTS" in body["detail"]


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:9", "127.0.0.1:8000", "[::1]", "[::1]:80"]
)
def test_own_hosts_are_served_on_any_port(client: httpx.Client, host: str) -> None:
    ok(client.get("/v1/studies", headers={"Host": host}))


def test_probes_may_come_by_address(client: httpx.Client) -> None:
    for path in ("/healthz", "/readyz"):
        assert ok(client.get(path, headers={"Host": "10.0.0.7:8000"}))["status"] == "ok"


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://localhost:3000",
        "null",
        "",
        "http://[",
        "http://a]b",
        "http://[::1",
        "\xff",
    ],
)
def test_pages_of_others_cannot_write(client: httpx.Client, origin: str) -> None:
    headers = {b"Origin": origin.encode("latin-1")}
    problem(client.post("/v1/studies/s:cancel", headers=headers), 403)
    problem(client.get("/v1/studies/s", headers=headers), 404)
    answer = client.get("/v1/studies", headers=headers)
    assert not [name for name in answer.headers if name.startswith("access-control")]
    preflight = {**headers, b"Access-Control-Request-Method": b"POST"}
    answer = client.options("/v1/studies", headers=preflight)
    problem(answer, 405)
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_our_own_pages_can(client: httpx.Client) -> None:
    ok(client.post(POST, json=SPEC, headers={"Origin": "http://localhost"}), 201)


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "application/json; charset=utf-8; charset=utf-16",
        "application/json, text/plain",
        "application/jso\xf1; charset*=utf-8''%FF",
        "text/plain;1*=?utf-8?q?x?= ;=?utf-8?q?x?=;1*0*",
    ],
)
def test_bodies_are_json(client: httpx.Client, content_type: str | None) -> None:
    headers = httpx.Headers(encoding="latin-1")
    if content_type is not None:
        headers = httpx.Headers([(b"Content-Type", content_type.encode("latin-1"))])
    problem(client.post(POST, content=b"{}", headers=headers), 415)
    problem(client.post("/v1/studies/s:cancel", content=b"{}", headers=headers), 415)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON;charset=UTF-8",
        'application/json ; charset="utf-8"; x=y',
        "application/json;1*=?utf-8?q?x?= ;=?utf-8?q?x?=;1*0*",
    ],
)
def test_json_may_have_parameters(client: httpx.Client, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    problem(client.post("/v1/studies/s:cancel", content=b"{}", headers=headers), 404)


def test_bodies_are_not_compressed(client: httpx.Client) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    problem(client.post(POST, content=b"\x1f\x8b", headers=headers), 415)


def test_large_bodies_are_refused(client: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}
    body = b'"' + b"x" * 100_000 + b'"'
    problem(client.post(POST, content=body, headers=headers), 413)
    problem(client.post(POST, content=iter([body]), headers=headers), 413)
    problem(client.post("/v1/studies/s:cancel", content=iter([body]), headers=headers), 413)


def test_what_is_not_there(client: httpx.Client) -> None:
    assert "/docs" in problem(client.get("/v2/studies"), 404)["detail"]
    problem(client.get("/v1/studies/"), 404)
    # Whatever the Host of a probe is, nobody reads a URL from it.
    problem(client.post("/healthz", headers={"Host": "["}), 405)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/studies/s", "DELETE, GET, HEAD"),
        ("DELETE", "/v1/studies/s/best", "GET, HEAD"),
        ("DELETE", "/v1/studies", "GET, HEAD, POST"),
        ("PUT", "/v1/workers", "GET, HEAD, POST"),
        ("PATCH", "/v1/tokens", "GET, HEAD, POST"),
        ("GET", "/v1/studies/s:pause", "POST"),
        ("GET", "/v1/studies/s/trials:report", "POST"),
        ("GET", "/v1/studies/s/trials/17:complete", "POST"),
        ("GET", "/v1/workers/w:sync", "POST"),
        ("GET", "/v1/tokens/t:revoke", "POST"),
        ("POST", "/dashboard", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(
    client: httpx.Client, method: str, path: str, allowed: str
) -> None:
    answer = client.request(method, path)
    assert answer.headers["allow"] == allowed
    assert allowed in problem(answer, 405)["detail"]


def test_head_is_get_without_its_body(client: httpx.Client, app: FastAPI) -> None:
    ok(client.post(POST, json=EXTERNAL), 201)
    for route in routes_of(app):
        method, path = route.split(" ")
        if method != "HEAD":
            continue
        head = call(client, route, study="x")
        assert head.content == b"", path
        if path.endswith("/events"):  # of a study that goes on: GET does not end
            assert head.headers["content-type"].startswith("text/event-stream")
            continue
        got = call(client, f"GET {path}", study="x")
        assert head.status_code == got.status_code, path
        assert head.headers.keys() == got.headers.keys(), path
        if path != "/metrics":  # whose numbers the first request changes
            assert head.headers["content-length"] == got.headers["content-length"], path


def test_there_is_no_such_verb(client: httpx.Client) -> None:
    for path in ("/v1/studies/s:go", "/v1/studies/s/trials/1:go", "/v1/studies/s:pause:stop"):
        for method in ("GET", "POST"):
            problem(client.request(method, path), 404)


def test_every_answer_has_security_headers(client: httpx.Client) -> None:
    paths = ("/v1/studies", "/v1/nothing", "/healthz", "/docs", "/openapi.json", "/dashboard")
    for path in paths:
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        has_policy = path.startswith(("/v1/", "/docs"))
        assert ("content-security-policy" in headers) == has_policy


@contextmanager
def _broken() -> Iterator[Transaction]:
    raise RuntimeError("secret path /etc/shadow")
    yield


@contextmanager
def _busy() -> Iterator[Transaction]:
    raise Unavailable("the database cannot do this now")
    yield


def test_unexpected_errors_keep_their_text_inside(
    client: httpx.Client,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(store, "reading", _broken)
    with caplog.at_level(logging.ERROR):
        answer = client.get("/v1/studies")
    problem(answer, 500)
    assert "shadow" not in answer.text
    assert "shadow" in caplog.text


def test_a_database_that_is_away_is_503(
    client: httpx.Client, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "reading", _busy)
    for path in ("/v1/studies", "/readyz"):
        answer = client.get(path)
        problem(answer, 503)
        assert answer.headers["retry-after"] == "1"
    assert ok(client.get("/healthz")) == {"status": "ok"}


def test_a_database_that_is_not_migrated_is_not_ready(
    client: httpx.Client, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ridgeline.service.store.migrate.is_current", lambda _url: False)
    assert "ridgeline migrate" in problem(client.get("/readyz"), 503)["detail"]
    monkeypatch.undo()
    ok(client.get("/readyz"))
    monkeypatch.setattr("ridgeline.service.store.migrate.is_current", lambda _url: False)
    ok(client.get("/readyz"))


def test_a_crowd_that_takes_every_connection_is_503(client: httpx.Client, store: Store) -> None:
    pool: Any = store._engine.pool
    pool._timeout = 0
    with ExitStack() as crowd:
        for _ in range(pool.size() + pool._max_overflow):
            crowd.enter_context(store.reading())
        assert "in use" in problem(client.get("/v1/studies"), 503)["detail"]
    ok(client.get("/v1/studies"))
