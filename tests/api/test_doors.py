"""Every route refuses who may not come in; the routes are listed from the app itself."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI

from ridgeline.service import tokens
from ridgeline.service.store.session import Store
from tests.api.calling import ok, problem, sqlite_only
from tests.api.conftest import ClientOf
from tests.api.routes import call, routes_of
from tests.api.test_auth import new_token

pytestmark = sqlite_only

PUBLIC = {
    "/healthz": "probes have no token, and it tells nothing but that the process answers",
    "/readyz": "the same, and whether the database does",
    "/openapi.json": "what can be asked for, the same for everybody",
    "/docs": "a page of that document, without data",
    "/docs/start.js": "a part of that page",
    "/docs/swagger-ui-bundle.js": "a part of that page",
    "/docs/swagger-ui.css": "a part of that page",
}
"""Paths that are for everybody, and why.  All others demand a token."""

SUFFICIENT = {
    "read": {"read", "write", "admin"},
    "write": {"write", "admin"},
    "worker": {"worker", "admin"},
    "admin": {"admin"},
}
"""By the scope that a route demands: the scopes of the tokens that it lets in."""

PAGES_DEMAND = "read"
"""Pages for people are not in the document; who may read may see them."""


def path_of(route: str) -> str:
    return route.partition(" ")[2]


@pytest.fixture
def scopes(app: FastAPI, client_of: ClientOf) -> dict[str, str]:
    """The scope that each route demands, by the document; public ones left out."""
    document = ok(client_of(app).get("/openapi.json"))

    def scope(route: str) -> str:
        method, path = route.split(" ")
        operations = document["paths"].get(path)
        if operations is None:
            return PAGES_DEMAND
        operation = operations["get" if method == "HEAD" else method.lower()]
        (required,) = operation["security"]
        (scope,) = required["token"]
        return str(scope)

    return {route: scope(route) for route in routes_of(app) if path_of(route) not in PUBLIC}


def test_what_is_public_is_listed_with_its_reason(
    app: FastAPI, store: Store, client_of: ClientOf
) -> None:
    new_token(store, "admin")
    nobody = client_of(app)
    public = {path_of(route) for route in routes_of(app) if call(nobody, route).status_code != 401}
    assert public == PUBLIC.keys()


def test_every_other_route_refuses_who_shows_no_good_token(
    app: FastAPI, store: Store, client_of: ClientOf, scopes: dict[str, str]
) -> None:
    good = new_token(store, "admin")
    revoked = new_token(store, "admin")
    with store.transaction() as tx:
        tokens.revoke(tx, revoked.split("_")[1])
    wrong = good[:-1] + ("0" if good[-1] != "0" else "1")
    unknown = "_".join(["rl", "0" * len(good.split("_")[1]), good.split("_")[2]])
    callers = {
        "missing": client_of(app),
        "wrong": client_of(app, wrong),
        "unknown": client_of(app, unknown),
        "revoked": client_of(app, revoked),
        "none": client_of(app, "x"),
    }
    for route in scopes:
        for kind, caller in callers.items():
            answer = call(caller, route)
            assert answer.status_code == 401, (route, kind)
            assert answer.headers["www-authenticate"].startswith(("Bearer", "Basic"))
            if not route.startswith("HEAD"):
                problem(answer, 401)


def test_every_other_route_refuses_a_token_without_its_scope(
    app: FastAPI, store: Store, client_of: ClientOf, scopes: dict[str, str]
) -> None:
    callers = {scope: client_of(app, new_token(store, scope)) for scope in SUFFICIENT}
    for route, demanded in scopes.items():
        for held, caller in callers.items():
            answer = call(caller, route)
            if held in SUFFICIENT[demanded]:
                assert answer.status_code not in (401, 403), (route, held)
            else:
                assert answer.status_code == 403, (route, held)
                if not route.startswith("HEAD"):
                    assert demanded in problem(answer, 403)["detail"]


def test_no_answer_of_a_route_depends_on_another_door(
    app: FastAPI, store: Store, client_of: ClientOf
) -> None:
    """Neither the query, nor a cookie, nor another header stands for the token."""
    token = new_token(store, "admin")
    client = client_of(app)
    for sent in (
        httpx.Request("GET", "http://localhost/v1/studies", params={"token": token}),
        httpx.Request("GET", "http://localhost/v1/studies", params={"access_token": token}),
        httpx.Request("GET", "http://localhost/v1/studies", headers={"Cookie": f"token={token}"}),
        httpx.Request("GET", "http://localhost/v1/studies", headers={"X-Api-Key": token}),
        httpx.Request("GET", "http://localhost/v1/studies", headers={"Authorization": token}),
    ):
        problem(client.send(sent), 401)
