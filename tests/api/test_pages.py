"""`/status` without a browser: who gets it, and what its headers allow it."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from ridgeline.service import tokens
from ridgeline.service.api.app import create_app
from ridgeline.service.settings import Settings
from ridgeline.service.store.session import Store
from tests.api.calling import problem, sqlite_only
from tests.api.conftest import ClientOf

pytestmark = sqlite_only

FOLDER = Path(__file__).parents[2] / "service" / "api" / "status"
PARTS = [
    "/status",
    *(f"/status/{file.name}" for file in FOLDER.iterdir() if file.suffix != ".html"),
]


def test_the_root_goes_there(client: httpx.Client) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (302, "/status")


@pytest.mark.parametrize("path", PARTS)
def test_it_may_load_nothing_but_its_parts(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy
    addresses = set(re.findall(r"\w+://[^\"' ]+", answer.text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    for part in re.findall(r'(?:src|href)="(/status[^"]*)"', answer.text):
        assert part in PARTS
    assert client.head(path).headers["content-type"] == answer.headers["content-type"]
    problem(client.post(path), 405)


def test_what_is_no_part(client: httpx.Client) -> None:
    for path in ("/status/", "/status/status.html", "/status/..%2fapp.py", "/status/none.js"):
        problem(client.get(path), 404)


def test_a_browser_is_told_to_ask_for_the_token(
    app: FastAPI, store: Store, client_of: ClientOf
) -> None:
    with store.transaction() as tx:
        _, reader = tokens.create(tx, "reader", ["read"])
        _, worker = tokens.create(tx, "worker", ["worker"])
    client = client_of(app)
    for path in ("/", *PARTS):
        answer = client.get(path)
        assert "the password is the token" in problem(answer, 401)["detail"]
        assert answer.headers["www-authenticate"].startswith('Basic realm="Ridgeline"')
        problem(client.get(path, auth=("anybody", worker)), 403)
        assert client.get(path, auth=("anybody", reader)).status_code in (200, 302)


def test_it_leads_to_a_dashboard_where_there_is_one(
    settings: Settings, store: Store, client: httpx.Client, client_of: ClientOf, socket_path: Path
) -> None:
    app = create_app(settings.model_copy(update={"dashboard_socket": socket_path}), store)
    assert "<html data-dashboard " in client_of(app).get("/status").text
    assert "data-dashboard" not in client.get("/status").text
