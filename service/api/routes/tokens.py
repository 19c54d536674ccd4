"""Tokens: for admins, and what every caller may know of its own."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from starlette.responses import Response

from ridgeline.service import tokens
from ridgeline.service.api import examples
from ridgeline.service.api.auth import Admin, Reader
from ridgeline.service.api.bodies import Nothing, body_of
from ridgeline.service.api.context import Api
from ridgeline.service.api.openapi import problems, takes
from ridgeline.service.api.pages import TokenPage
from ridgeline.service.api.routes.params import ID_PATTERN
from ridgeline.service.resources import CallerInfo, TokenCreated, TokenInfo, TokenRequest

router = APIRouter(prefix="/v1", tags=["tokens"])


@router.post(
    "/tokens",
    summary="Create a token",
    response_model=TokenCreated,
    status_code=201,
    responses=problems(body=True),
    openapi_extra=takes(TokenRequest, for_a_person=examples.TOKEN_REQUEST),
)
def create_token(
    caller: Admin,
    api: Api,
    body: Annotated[TokenRequest, Depends(body_of(TokenRequest))],
    response: Response,
) -> TokenCreated:
    """The answer shows the token this once.  From the first token on, every call needs one.

    An Idempotency-Key does nothing here: an answer that holds a secret is not stored.
    """
    response.headers["Cache-Control"] = "no-store"
    with api.store.transaction() as tx:
        info, text = tokens.create(tx, body.name, body.scopes, note=body.note)
    return TokenCreated(**dict(info), token=text)


@router.get(
    "/caller",
    summary="Who am I?",
    response_model=CallerInfo,
    responses=problems(),
)
def get_caller(caller: Reader) -> CallerInfo:
    """The token that the request shows, and what it may do."""
    scopes = tuple(scope for scope in tokens.SCOPES if scope in caller.scopes)
    return CallerInfo(token_id=caller.token_id, scopes=scopes)


@router.get(
    "/tokens",
    summary="List tokens",
    response_model=TokenPage,
    responses=problems(),
)
def list_tokens(caller: Admin, api: Api) -> TokenPage:
    """All tokens without their secrets, oldest first, the revoked ones too."""
    with api.store.reading() as tx:
        return TokenPage(tokens=tokens.list_all(tx), next_page_token=None)


@router.post(
    "/tokens/{id:name}:revoke",
    summary="Revoke a token",
    response_model=TokenInfo,
    responses=problems(404, body=True),
    openapi_extra=takes(Nothing),
)
def revoke_token(
    caller: Admin,
    api: Api,
    token_id: Annotated[
        str, Path(alias="id", description="the token's id", pattern=ID_PATTERN, max_length=64)
    ],
    body: Annotated[Nothing, Depends(body_of(Nothing))],
) -> TokenInfo:
    """The next request with the token is answered with 401.  Repeating it changes nothing."""
    with api.store.transaction() as tx:
        return tokens.revoke(tx, token_id)
