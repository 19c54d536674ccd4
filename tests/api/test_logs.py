"""Lines of the logs: their format, the ids that they name, and what they never hold."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import insert
from sqlalchemy.engine import URL

from ridgeline.service import logs, projection
from ridgeline.service.errors import Unavailable
from ridgeline.service.logs import JsonLines, LoggedLines, TextLines
from ridgeline.service.store.session import DatabaseClock, Store
from ridgeline.service.store.tables import studies
from tests.api.calling import EXTERNAL, ok, problem, sqlite_only
from tests.api.conftest import ClientOf
from tests.api.serving import dashboard_process, wait_until_listening

CANARY = "rl_9f86d081884c7d65_canary-secret_x"
PASSWORD = "canary-password"


@contextmanager
def logged(formatter: logging.Formatter) -> Iterator[list[str]]:
    """The lines that are logged within the block, filled in at its end."""
    lines: list[str] = []
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        lines += stream.getvalue().splitlines()


@pytest.fixture(autouse=True)
def unknown_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of other tests have told their ids."""
    monkeypatch.setattr(logs, "_of_process", {})


def break_projection(store: Store, text: str = "a wrong row, say") -> None:
    def fail(*_: object) -> None:
        raise ValueError(text)

    store._project = fail


@sqlite_only
@pytest.mark.parametrize("given", ["a", "7e1f-4b_2.x", "Z" * 64])
def test_the_id_of_a_request_is_taken_over(client: httpx.Client, given: str) -> None:
    for path in ("/healthz", "/v1/studies", "/v1/nothing", "/metrics"):
        answer = client.get(path, headers={"X-Request-Id": given})
        assert answer.headers["x-request-id"] == given
    assert problem(answer := client.get("/v1/studies/x", headers={"X-Request-Id": given}), 404)
    assert answer.json()["request_id"] == given


@sqlite_only
@pytest.mark.parametrize("given", [None, b"", b"Z" * 65, b"a b", b"a\xe9", b"{x}", b"a/b", b"a,b"])
def test_other_requests_are_given_one(client: httpx.Client, given: bytes | None) -> None:
    headers = {} if given is None else {b"X-Request-Id": given}
    answers = [client.get("/v1/studies/x", headers=headers) for _ in range(2)]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert ids[0] != ids[1]
    assert [problem(answer, 404)["request_id"] for answer in answers] == ids


@sqlite_only
def test_refusals_at_the_edge_have_one_too(client: httpx.Client) -> None:
    answer = client.get("/v1/studies", headers={"Host": "evil.example", "X-Request-Id": "r7"})
    assert problem(answer, 421)["request_id"] == "r7"


def test_a_line_names_what_it_is_about(client: httpx.Client, store: Store) -> None:
    """Logged in a thread that answers a request, by code that knows nothing of requests."""
    ok(client.post("/v1/studies", json=EXTERNAL), 201)
    (trial,) = ok(client.post("/v1/studies/x/trials:suggest", json={}))["trials"]
    break_projection(store)
    body = {"attempt": trial["attempt"], "value": 0.5}
    path = f"/v1/studies/x/trials/{trial['number']}:complete"
    with logged(JsonLines()) as lines:
        ok(client.post(path, json=body, headers={"X-Request-Id": "r7"}))
    (line,) = [found for found in map(json.loads, lines) if found["level"] == "ERROR"]
    assert line["logger"] == "ridgeline.service.store.session"
    assert line["time"].endswith("+00:00")
    assert "Optuna's tables is behind" in line["message"]
    assert (line["request"], line["study"], line["trial"]) == ("r7", "x", "0")
    assert "ValueError: a wrong row, say" in line["exception"]


@sqlite_only
def test_an_unexpected_error_is_found_by_the_id_in_its_answer(
    client: httpx.Client, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(store, "reading", broken)
    with logged(JsonLines()) as lines:
        answer = client.get("/v1/studies/x")
    body = problem(answer, 500)
    (line,) = [found for found in map(json.loads, lines) if found["level"] == "ERROR"]
    assert line["request"] == body["request_id"] == answer.headers["x-request-id"]
    assert line["study"] == "x"
    assert "RuntimeError: boom" in line["exception"]


@pytest.mark.parametrize("formatter", [TextLines(), JsonLines()])
def test_ids_are_on_the_line_and_end_with_their_block(formatter: logging.Formatter) -> None:
    log = logging.getLogger("test")
    with logged(formatter) as lines:
        with logs.about(study="a\nb\x1b[2J", run=7), logs.about(run=8, worker=None):
            log.info("in it")
        log.info("after it")
    inside, after = lines
    assert "after it" in after
    assert "study" not in after
    if isinstance(formatter, JsonLines):
        found = json.loads(inside)
        assert (found["study"], found["run"]) == ("a\nb\x1b[2J", 8)
        assert "worker" not in found
    else:
        assert inside.endswith("test: in it [study=a b [2J run=8]")


def tell_secrets(app: FastAPI, client_of: ClientOf, store: Store) -> None:
    """Show secrets wherever a request has room for them, also where nothing goes well."""
    client = client_of(app, CANARY)
    key = {"X-Request-Id": CANARY, "Idempotency-Key": CANARY}
    for _ in range(2):
        client.get(f"/v1/studies/{CANARY}?after={CANARY}", headers=key)
        client.post(f"/v1/studies/x:cancel?x={CANARY}", json={"name": CANARY}, headers=key)
        client.post("/v1/studies", json={**EXTERNAL, "name": CANARY[:20], CANARY: 1}, headers=key)
        client.get(f"http://user:{PASSWORD}@localhost/v1/studies/x")
        break_projection(store, f"{CANARY} at postgresql+psycopg://user:{PASSWORD}@host/database")
        client.post("/v1/studies", json=EXTERNAL, headers=key)
        client.post("/v1/studies/x/trials:suggest", json={"client_id": CANARY}, headers=key)
        client.get(f"/dashboard?token={CANARY}", auth=("me", CANARY))
        store.reading = None  # type: ignore[method-assign,assignment]  # every request fails from here on
    url = URL.create("postgresql+psycopg", "user", PASSWORD, "localhost", 1, "database")
    away = Store(
        url.render_as_string(hide_password=False),
        clock=DatabaseClock(),
        project=projection.project,
    )
    with suppress(Unavailable), away.reading():
        pass
    away.close()
    logging.getLogger("test").warning("cannot reach %s", url.render_as_string(hide_password=False))


@sqlite_only
@pytest.mark.parametrize("formatter", [TextLines(), JsonLines()])
def test_no_secret_is_logged(
    app: FastAPI, client_of: ClientOf, store: Store, formatter: logging.Formatter
) -> None:
    with logged(formatter) as lines:
        tell_secrets(app, client_of, store)
    text = "\n".join(lines)
    assert "a request failed" in text  # there was something to log
    assert "Optuna's tables is behind" in text
    assert "canary" not in text
    assert "user:***@" in text


def test_what_is_written_is_not_in_errors_of_the_database(store: Store) -> None:
    with pytest.raises(Exception, match="rl_studies") as raised, store.transaction() as tx:
        tx.connection.execute(insert(studies).values(name="x", owner="canary"))
    assert "canary" not in str(raised.value).partition("DETAIL")[0]


def test_a_file_of_errors_is_logged_line_by_line() -> None:
    with logged(JsonLines()) as lines:
        file = LoggedLines(logging.getLogger("test"))
        file.write("Traceback\n  Fi")
        file.write("le\n\nno end")
    assert [json.loads(line)["message"] for line in lines] == ["Traceback", "  File"]


@sqlite_only
@pytest.mark.slow
def test_every_line_of_the_api_and_the_dashboard_is_json(
    store: Store, tmp_path: Path, socket_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = store.url.render_as_string()
    monkeypatch.setenv("RIDGELINE_LOG_FORMAT", "json")
    monkeypatch.setenv("RIDGELINE_DATABASE_URL", url)
    with subprocess.Popen(
        [sys.executable, "-m", "ridgeline.service.cli", "serve", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
        cwd=tmp_path,
    ) as api:
        assert api.stderr is not None
        lines = []
        for line in api.stderr:
            lines.append(line)
            if "Application startup complete" in line:
                api.send_signal(signal.SIGTERM)
    assert api.returncode == 0
    with dashboard_process(url, socket_path) as dashboard:
        wait_until_listening(dashboard, said=lines)
    found: list[dict[str, Any]] = [json.loads(line) for line in lines]
    assert {line["logger"] for line in found} >= {
        "uvicorn.error",
        "ridgeline.service.dashboard.server",
    }
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in found)
