"""Tokens and scopes: who may do what."""

from __future__ import annotations

import logging
from functools import partial

import httpx
import pytest
from fastapi import FastAPI
from pydantic import ValidationError

from ridgeline.service import tokens
from ridgeline.service.api import examples
from ridgeline.service.api.auth import UnsafeBinding, check_binding
from ridgeline.service.settings import Settings
from ridgeline.service.store.session import Store
from tests.api.calling import EXTERNAL, SPEC, fields, ok, problem, sqlite_only
from tests.api.conftest import ClientOf


def new_token(store: Store, *scopes: str) -> str:
    with store.transaction() as tx:
        return tokens.create(tx, "test", scopes)[1]


def test_a_token_from_creation_to_revocation(app: FastAPI, client_of: ClientOf) -> None:
    request = {"name": "root", "scopes": ["admin"]}
    answer = client_of(app).post("/v1/tokens", json=request)
    assert answer.headers["cache-control"] == "no-store"
    root = client_of(app, ok(answer, 201)["token"])
    problem(client_of(app).post("/v1/tokens", json=request), 401)

    made = ok(root.post("/v1/tokens", json={"name": "x", "scopes": ["write", "write"]}), 201)
    writer = client_of(app, made["token"])
    assert made["token"].startswith(f"rl_{made['id']}_")
    assert ok(writer.post("/v1/studies", json=SPEC), 201)["owner"] == made["id"]
    listed = ok(root.get("/v1/tokens"))["tokens"]
    assert {token["name"]: token["scopes"] for token in listed} == {
        "root": ["admin"],
        "x": ["write"],
    }
    assert not any("token" in token for token in listed)

    revoked = ok(root.post(f"/v1/tokens/{made['id']}:revoke"))
    assert revoked["revoked_at"] is not None
    assert "revoked" in problem(writer.get("/v1/studies"), 401)["detail"]
    assert ok(root.post(f"/v1/tokens/{made['id']}:revoke")) == revoked
    problem(root.post("/v1/tokens/nobody:revoke"), 404)


@sqlite_only
@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Basic cm9vdDpyb290",
        "bearer rl_0_0",
        "Bearer rl_\xe9_\xe9",
    ],
)
def test_what_is_no_token(
    app: FastAPI, store: Store, client_of: ClientOf, authorization: str
) -> None:
    new_token(store, "admin")
    headers = {b"Authorization": authorization.encode("latin-1")}
    problem(client_of(app).get("/v1/studies", headers=headers), 401)


@sqlite_only
def test_a_caller_may_ask_what_it_may_do(app: FastAPI, store: Store, client_of: ClientOf) -> None:
    everything = ["read", "write", "worker", "admin"]
    assert ok(client_of(app).get("/v1/caller")) == {"token_id": None, "scopes": everything}
    for scope, scopes in (("read", ["read"]), ("write", ["read", "write"]), ("admin", everything)):
        token = new_token(store, scope)
        caller = ok(client_of(app, token).get("/v1/caller"))
        assert caller == {"token_id": token.split("_")[1], "scopes": scopes}


@sqlite_only
def test_a_password_changes_something_only_from_a_page_of_this_host(
    app: FastAPI, store: Store, client_of: ClientOf
) -> None:
    auth = ("anybody", new_token(store, "write"))
    client = client_of(app)
    ok(client.get("/v1/studies", auth=auth))
    post = partial(client.post, "/v1/studies", json=EXTERNAL, auth=auth)
    assert "Bearer" in problem(post(), 401)["detail"]
    for origin in ("http://elsewhere", "null", "", "http://localhost.elsewhere"):
        problem(post(headers={"Origin": origin}), 403)
    ok(post(headers={"Origin": "http://localhost"}), 201)
    problem(client.delete("/v1/studies/x", auth=auth), 401)
    # A page's script must not make the browser ask for another password.
    answer = client.get("/v1/studies", auth=("anybody", "guess"))
    assert answer.headers["www-authenticate"].startswith("Bearer")


@sqlite_only
def test_a_wrong_secret_of_a_right_id(app: FastAPI, store: Store, client_of: ClientOf) -> None:
    token = new_token(store, "admin")
    last = "0" if token[-1] != "0" else "1"
    problem(client_of(app, token[:-1] + last).get("/v1/studies"), 401)
    ok(client_of(app, token).get("/v1/studies"))


@sqlite_only
def test_a_strangers_body_is_not_read(app: FastAPI, store: Store, client_of: ClientOf) -> None:
    new_token(store, "admin")

    stranger = client_of(app)
    problem(stranger.post("/v1/studies", content=b"x" * 200_000), 401)
    problem(stranger.post("/v1/studies", content=b"not json"), 401)


@sqlite_only
def test_tokens_that_cannot_be(client: httpx.Client) -> None:
    assert "scopes" in fields(client.post("/v1/tokens", json={"name": "x", "scopes": []}))
    named = fields(client.post("/v1/tokens", json={"name": "", "scopes": ["root"]}))
    assert named.keys() == {"name", "scopes.0"}
    assert ok(client.get("/v1/tokens"))["tokens"] == []


@sqlite_only
def test_without_tokens_the_service_stays_on_loopback(store: Store) -> None:
    def settings(host: str) -> Settings:
        return Settings(host=host, _env_file=None)

    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        check_binding(settings(host), store)
    with pytest.raises(ValidationError, match=r"0\.0\.0\.0 stands for all"):
        settings("")
    for host in ("0.0.0.0", "::", "192.168.1.7", "api.example"):
        with pytest.raises(UnsafeBinding, match="ridgeline token create"):
            check_binding(settings(host), store)
    new_token(store, "read")
    check_binding(settings("0.0.0.0"), store)


def test_secrets_are_neither_stored_nor_logged(
    app: FastAPI,
    store: Store,
    client_of: ClientOf,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    token = new_token(store, "admin")
    secret = token.rpartition("_")[2]
    client = client_of(app, token)
    key = {"Idempotency-Key": "k"}
    made = ok(client.post("/v1/tokens", json=examples.TOKEN_REQUEST, headers=key), 201)
    ok(client.post("/v1/studies", json=EXTERNAL, headers=key), 201)
    problem(client_of(app, token + "0").get("/v1/studies"), 401)
    canaries = [secret, made["token"].rpartition("_")[2]]
    with store.reading() as tx:
        for table in ("rl_tokens", "rl_idempotency_keys", "rl_studies"):
            for row in tx.connection.exec_driver_sql(f"SELECT * FROM {table}"):
                assert not any(canary in str(row) for canary in canaries)
    assert not any(canary in caplog.text for canary in canaries)
