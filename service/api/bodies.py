"""Request bodies: limited in size, strict JSON, validated, and only then given to a route.

Routes take these as dependencies behind their caller, so the body of a stranger is not even read.
An empty body stands for `{}`.

What a body costs is many times what it weighs: 16 MB of `{}` are 5 million objects.  So the values
in it are limited too, and requests with a large body take turns, from the moment that theirs has
arrived until their route has returned: at any time one of them is in work, and a few arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from fastapi import Depends
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from ridgeline.search.problems import validation_problems
from ridgeline.service.api import strict_json
from ridgeline.service.api.context import Api
from ridgeline.service.api.problems import HttpError
from ridgeline.service.errors import InvalidInput

MAX_VALUES = 100_000
MAX_VALUES_IN_BULK = 1_000_000
"""Of routes that take reports by the thousand; one value for each 16 bytes of the largest body."""

LARGE_BODY_BYTES = 128 * 2**10
ARRIVAL_SECONDS = 30.0
"""For a body up to `LARGE_BODY_BYTES`, and once more for the rest of a large one."""

_Model = TypeVar("_Model", bound=BaseModel)


class Nothing(BaseModel):
    """The body of a verb that needs none."""

    model_config = ConfigDict(extra="forbid")


async def _allow_bulk(request: Request) -> None:
    request.state.max_values = MAX_VALUES_IN_BULK


Bulk = Depends(_allow_bulk)
"""For `dependencies` of a route whose body may have `MAX_VALUES_IN_BULK`."""


def is_large(request: Request) -> bool:
    """Whether the request keeps others with a large body waiting until its route returns."""
    return getattr(request.state, "is_large", False)


async def _raw_body(request: Request, api: Api) -> AsyncIterator[bytes]:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HttpError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "compressed bodies are not taken; leave Content-Encoding out",
        )
    limit = api.settings.max_body_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    async with AsyncExitStack() as turn:
        stream = request.stream()
        body = bytearray()
        if await _receive(stream, body, min(LARGE_BODY_BYTES, limit)):
            request.state.is_large = True
            await turn.enter_async_context(api.large_bodies.arriving)
            if await _receive(stream, body, limit):
                raise _too_large(limit)
            await turn.enter_async_context(api.large_bodies.in_work)
        if body and not _is_json(request.headers.get("content-type", "")):
            raise HttpError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "bodies are JSON in UTF-8; send Content-Type: application/json",
            )
        yield bytes(body)


async def _receive(stream: AsyncIterator[bytes], body: bytearray, limit: int) -> bool:
    """Take in a body until it ends or is longer than `limit`; whether it is."""
    try:
        async with asyncio.timeout(ARRIVAL_SECONDS):
            while len(body) <= limit:
                chunk = await anext(stream, None)
                if chunk is None:
                    return False
                body += chunk
    except TimeoutError as exc:
        raise HttpError(
            HTTPStatus.REQUEST_TIMEOUT,
            f"the body did not arrive within {ARRIVAL_SECONDS:g} seconds",
            headers={"Connection": "close"},
        ) from exc
    return True


def _too_large(limit: int) -> HttpError:
    return HttpError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the body is larger than {limit} bytes, the limit that RIDGELINE_MAX_BODY_BYTES sets",
        headers={"Connection": "close"},  # the rest of the body is never read
    )


def _is_json(content_type: str) -> bool:
    media_type, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charsets = [
        value for name, _, value in (p.partition("=") for p in parameters) if name == "charset"
    ]
    return media_type == "application/json" and all(
        c.strip('"') in ("utf-8", "utf8") for c in charsets
    )


# Scope "function": a caller that does not read its answer keeps nobody waiting.
RawBody = Annotated[bytes, Depends(_raw_body, scope="function")]


def _json_body(request: Request, raw: RawBody) -> Any:
    max_values = getattr(request.state, "max_values", MAX_VALUES)
    try:
        return strict_json.loads(raw, max_values=max_values) if raw else {}
    except strict_json.NotJson as exc:
        raise HttpError(
            HTTPStatus.BAD_REQUEST,
            f"the body is not JSON: {exc}",
            errors=[("", f"is not JSON: {exc}")],
        ) from exc


JsonBody = Annotated[Any, Depends(_json_body)]


def body_of(model: type[_Model]) -> Callable[..., _Model]:
    """A dependency that gives a route its body as `model`."""

    def parse(data: JsonBody) -> _Model:
        try:
            return model.model_validate(data)
        except ValidationError as exc:
            raise InvalidInput(list(validation_problems(exc))) from exc

    return parse
