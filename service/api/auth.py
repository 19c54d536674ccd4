"""Who may do what: every route takes one of `Reader`, `Writer`, `WorkerCaller`, `Admin`.

A caller shows a token as `Authorization: Bearer rl_…`.  A browser cannot be told to: where a page
demands a `PageReader`, it asks its person for a password, the token, and sends it as HTTP Basic
with all that the page asks for.  While no token was ever created, authentication is off, and the
service may listen on loopback only (`check_binding`).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

from fastapi import Security
from fastapi.security import HTTPBearer, SecurityScopes
from starlette.requests import Request

from ridgeline.service import tokens
from ridgeline.service.api.context import Api
from ridgeline.service.api.problems import HttpError
from ridgeline.service.errors import Forbidden, Unauthenticated
from ridgeline.service.network import is_loopback
from ridgeline.service.settings import Settings
from ridgeline.service.store.session import Store

_IMPLIED: dict[str, frozenset[str]] = {
    "read": frozenset({"read"}),
    "write": frozenset({"write", "read"}),
    "worker": frozenset({"worker"}),
    "admin": frozenset(tokens.SCOPES),
}


SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_ASK_FOR_PASSWORD = {"WWW-Authenticate": 'Basic realm="Ridgeline", charset="UTF-8"'}


class UnsafeBinding(Exception):
    """The service would be open to everybody."""


@dataclass(frozen=True)
class Caller:
    """Who sent a request; `token_id` is None while authentication is off."""

    token_id: str | None
    scopes: frozenset[str]

    def demand(self, scope: str) -> None:
        """Raises `Forbidden` where the caller's token lacks the scope."""
        if scope not in self.scopes:
            raise Forbidden(f"this token lacks the scope {scope}")


def identify(store: Store, token: str | None) -> Caller:
    """The caller who shows `token`, or none.

    Raises:
        Unauthenticated: a token is needed, and this is none that is valid.
    """
    with store.reading() as tx:
        if not tokens.any_exists(tx):
            return Caller(None, frozenset(tokens.SCOPES))
        if token is None:
            raise Unauthenticated("a token is needed: send Authorization: Bearer rl_…")
        info = tokens.authenticate(tx, token)
    return Caller(info.id, frozenset().union(*(_IMPLIED[scope] for scope in info.scopes)))


def check_binding(settings: Settings, store: Store) -> None:
    """Refuse to serve other machines while anybody could do anything.

    Raises:
        UnsafeBinding: the host is not loopback, and no token was ever created.
    """
    if is_loopback(settings.host):
        return
    with store.reading() as tx:
        if not tokens.any_exists(tx):
            raise UnsafeBinding(
                f"refusing to listen on {settings.host} without tokens: "
                "create one with `ridgeline token create`"
            )


def _token_of(request: Request) -> str | None:
    """The token in the Authorization header: Bearer, or Basic with the token as the password.

    A browser sends a password by itself, for other sites' pages too.  They cannot read the answer,
    and to change something, Basic counts only with the Origin of a page: `Edge` has refused those
    of other hosts.
    """
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic" and (
        request.method in SAFE_METHODS or "origin" in request.headers
    ):
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except ValueError:  # neither base64 nor UTF-8
            return None
    return None


_bearer = HTTPBearer(
    scheme_name="token",
    bearerFormat="rl_<id>_<secret>",
    description="A token made by `ridgeline token create` or `POST /v1/tokens`. Each operation "
    "names the scope it needs; `write` includes `read`, `admin` includes all. While no token was "
    "ever created none is needed, and the service listens on loopback only.",
    auto_error=False,
)


def _caller(
    scopes: SecurityScopes,
    request: Request,
    api: Api,
    _documented: Annotated[object, Security(_bearer)],
) -> Caller:
    caller = identify(api.store, _token_of(request))
    for scope in scopes.scopes:
        caller.demand(scope)
    return caller


def _page_caller(scopes: SecurityScopes, request: Request, api: Api) -> Caller:
    """The same, but a browser is told to ask its person for the token."""
    try:
        return _caller(scopes, request, api, None)
    except Unauthenticated as exc:
        detail = f"{exc.detail}; in a browser, reload: the password is the token, any name will do"
        raise HttpError(HTTPStatus.UNAUTHORIZED, detail, headers=_ASK_FOR_PASSWORD) from exc


Reader = Annotated[Caller, Security(_caller, scopes=["read"])]
Writer = Annotated[Caller, Security(_caller, scopes=["write"])]
WorkerCaller = Annotated[Caller, Security(_caller, scopes=["worker"])]
Admin = Annotated[Caller, Security(_caller, scopes=["admin"])]
PageReader = Security(_page_caller, scopes=["read"])
"""For `dependencies` of a route that shows people a page, or is asked by one for its parts."""
