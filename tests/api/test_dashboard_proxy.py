"""The way to the dashboard: reading only, behind our authentication, nothing of ours passed on."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio.from_thread
import httpx
import pytest
from fastapi import FastAPI
from optuna.storages import InMemoryStorage
from optuna_dashboard import wsgi

from ridgeline.service import tokens
from ridgeline.service.api.app import create_app
from ridgeline.service.settings import Settings
from ridgeline.service.store.session import Store
from tests.api.calling import problem, sqlite_only
from tests.api.conftest import ClientOf
from tests.api.upstream import FILE, SLOW, Upstream, hung_at, upstream_at

PATHS = ("/dashboard", "/dashboard/studies/1", "/api/studies", "/csv/1", "/artifacts/1/a",
         "/static/bundle.js")  # fmt: skip

ODD_CREDENTIALS = (b"???", b"\xe9", b"/w==", b"")


@pytest.fixture
def upstream(socket_path: Path) -> Iterator[Path]:
    with upstream_at(socket_path):
        yield socket_path


@pytest.fixture
def app(
    settings: Settings, store: Store, upstream: Path, portal: anyio.from_thread.BlockingPortal
) -> Iterator[FastAPI]:
    app = create_app(settings.model_copy(update={"dashboard_socket": upstream}), store)
    with portal.wrap_async_context_manager(app.router.lifespan_context(app)):
        yield app


@sqlite_only
def test_reading_passes_as_it_is(client: httpx.Client) -> None:
    for path in PATHS:
        answer = client.get(f"{path}?a=%2F&b=%00", headers={"Accept-Encoding": "gzip"})
        assert (answer.status_code, answer.text) == (200, "hello")
        method, seen, headers = Upstream.seen.pop()
        assert (method, seen) == ("GET", f"{path}?a=%2F&b=%00")
        assert headers["accept-encoding"] == "gzip"
    answer = client.head("/static/%2e%2e/x")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "5"
    assert Upstream.seen.pop()[:2] == ("GET", "/static/%2e%2e/x")


@sqlite_only
def test_headers_pass_by_list_only(client: httpx.Client, store: Store) -> None:
    with store.transaction() as tx:
        _, text = tokens.create(tx, "reader", ["read"])
    sent = {"Authorization": f"Bearer {text}", "Cookie": "a=b", "X-Other": "1"}
    answer = client.get("/dashboard", headers=sent)
    assert answer.headers["content-security-policy"] == "default-src 'self'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    unwanted = {"access-control-allow-origin", "set-cookie", "keep-alive"}
    assert not unwanted & set(answer.headers)
    (_, _, headers) = Upstream.seen.pop()
    assert not {"authorization", "cookie", "x-other"} & headers.keys()
    assert text not in str(headers)


@sqlite_only
def test_bytes_pass_as_they_are(client: httpx.Client) -> None:
    odd = {b"if-none-match": b'"\xff"', b"accept-encoding": b"\xe9", b"range": b"\xc3\xa9"}
    assert client.get("/dashboard", headers=odd).text == "hello"
    (_, _, headers) = Upstream.seen.pop()
    sent = {name: headers[name.decode()].encode("latin-1") for name in odd}
    assert sent == odd


@sqlite_only
def test_names_of_files_in_any_language_pass_back(client: httpx.Client) -> None:
    answer = client.get("/csv/1")
    assert ("Content-Disposition".lower().encode(), FILE) in answer.headers.raw


@sqlite_only
def test_a_page_that_the_dashboard_does_not_have_is_a_problem(client: httpx.Client) -> None:
    told = problem(client.get("/static/absent"), 404)["detail"]
    assert told == "the dashboard cannot answer this: Not Found"
    answer = client.get("/api/absent")  # its own page reads this one
    assert (answer.status_code, answer.json()) == (404, {"reason": "absent"})


@sqlite_only
def test_a_target_that_is_no_url_is_refused(
    app: FastAPI, portal: anyio.from_thread.BlockingPortal
) -> None:
    for target in (b"/dashboard/a#b", b"/dashboard?a#b", b"/static/" + b"a" * 70_000):
        answer = portal.call(call_raw, app, target)
        assert "target" in problem(answer, 400)["detail"]
    assert Upstream.seen == []


async def call_raw(app: FastAPI, target: bytes) -> httpx.Response:
    """The answer to a target that httpx itself would not send."""
    path, _, query = target.partition(b"?")
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path.decode(),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", b"localhost")],
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return httpx.Response(sent[0]["status"], headers=sent[0]["headers"], content=body)


@sqlite_only
def test_an_error_of_the_dashboard_is_a_problem_of_ours(client: httpx.Client) -> None:
    assert "500" in problem(client.get("/api/broken"), 502)["detail"]
    assert client.head("/api/broken").status_code == 502


@sqlite_only
def test_redirects_stay_here(client: httpx.Client) -> None:
    answer = client.get("/dashboard/")
    assert (answer.status_code, answer.headers["location"]) == (302, "/dashboard?a=b")


@sqlite_only
def test_nothing_that_writes_passes(client: httpx.Client) -> None:
    for path in (*PATHS, "/api/studies/1/rename", "/api/trials/1/tell"):
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            answer = client.request(method, path, json={})
            refusal = problem(answer, 405)
            # What the dashboard's page shows.
            assert refusal["detail"].startswith(refusal["reason"])
            assert "/status" in refusal["reason"]
            assert answer.headers["allow"] == "GET, HEAD"
    problem(client.get("/incompatible-rdb-schema"), 404)
    assert Upstream.seen == []


@sqlite_only
def test_a_browser_may_show_the_token_as_its_password(client: httpx.Client, store: Store) -> None:
    def basic(user: str, password: str) -> dict[str, str]:
        return {
            "Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        }

    with store.transaction() as tx:
        info, text = tokens.create(tx, "reader", ["read"])
        _, worker = tokens.create(tx, "worker", ["worker"])
    odd = [httpx.Headers([(b"Authorization", b"Basic " + value)]) for value in ODD_CREDENTIALS]
    for headers in ({}, basic("me", "guess"), basic("me", "a\x00b"), *odd):
        answer = client.get("/dashboard", headers=httpx.Headers(headers))
        problem(answer, 401)
        assert answer.headers["www-authenticate"].startswith('Basic realm="Ridgeline"')
    problem(client.get("/dashboard", headers=basic("me", worker)), 403)
    assert Upstream.seen == []
    for headers in (basic("me", text), basic("", text), {"Authorization": f"Bearer {text}"}):
        assert client.get("/api/studies", headers=headers).text == "hello"
    with store.transaction() as tx:
        tokens.revoke(tx, info.id)
    problem(client.get("/dashboard", headers=basic("me", text)), 401)


@sqlite_only
def test_without_a_dashboard_it_says_how_to_start_one(
    settings: Settings, store: Store, client_of: ClientOf
) -> None:
    client = client_of(create_app(settings, store))
    for path in PATHS:
        assert "python -m ridgeline.service.dashboard" in problem(client.get(path), 404)["detail"]


@sqlite_only
@pytest.mark.parametrize("path", ["/nowhere/dashboard", "/" + "x" * 200])
def test_a_dashboard_that_is_away_is_503(
    settings: Settings,
    store: Store,
    client_of: ClientOf,
    portal: anyio.from_thread.BlockingPortal,
    path: str,
) -> None:
    app = create_app(settings.model_copy(update={"dashboard_socket": Path(path)}), store)
    with portal.wrap_async_context_manager(app.router.lifespan_context(app)):
        problem(client_of(app).get("/dashboard"), 503)


def test_the_dashboard_writes_nothing_under_get() -> None:
    app: Any = wsgi(InMemoryStorage())
    assert {route.rule for route in app.routes if route.method == "GET"} == {
        "/",
        "/dashboard<:re:(/.*)?>",
        "/api/meta",
        "/api/studies",
        "/api/studies/<study_id:int>",
        "/api/studies/<study_id:int>/param_importances",
        "/api/studies/<study_id:int>/plot/<plot_type>",
        "/csv/<study_id:int>",
        "/favicon.ico",
        "/static/<filename:path>",
        "/incompatible-rdb-schema",
        "/artifacts/<study_id:int>/<artifact_id:re:[0-9a-fA-F-]+>",
        "/artifacts/<study_id:int>/<trial_id:int>/<artifact_id:re:[0-9a-fA-F-]+>",
    }, "the dashboard has other GET routes than those that were looked at: look at the new ones"


@sqlite_only
def test_a_dashboard_that_hangs_is_not_waited_for(
    settings: Settings,
    store: Store,
    socket_path: Path,
    client_of: ClientOf,
    portal: anyio.from_thread.BlockingPortal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ridgeline.service.api.dashboard.PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr("ridgeline.service.api.dashboard.ALIVE_SECONDS", 0.01)
    app = create_app(settings.model_copy(update={"dashboard_socket": socket_path}), store)
    with hung_at(socket_path), portal.wrap_async_context_manager(app.router.lifespan_context(app)):
        answer = client_of(app).get("/api/studies")
    assert "the dashboard does not answer" in problem(answer, 503)["detail"]


@sqlite_only
def test_a_page_that_takes_long_is_waited_for_while_the_dashboard_lives(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ridgeline.service.api.dashboard.PATIENCE_SECONDS", 0.01)
    assert client.get(SLOW).text == "hello"
