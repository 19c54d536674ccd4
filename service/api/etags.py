"""ETags: which state of a thing a caller has seen."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from fastapi import Header
from pydantic import BaseModel
from starlette.responses import Response

from ridgeline.service.errors import PreconditionFailed, PreconditionRequired

IfNoneMatch = Annotated[
    str | None,
    Header(
        description="`ETag` of the answer you have",
        examples=['"9e107d9d372bb6826bd81d3542a419d6"'],
    ),
]

IfMatch = Annotated[str | None, Header(include_in_schema=False)]

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "It is as `If-None-Match` knows it."}
}


def takes_if_match(what: str) -> dict[str, Any]:
    """`openapi_extra` of a route that takes `IfMatch`; `what` is the thing it names."""
    return {
        "parameters": [
            {
                "name": "If-Match",
                "in": "header",
                "required": True,  # without it the answer is 428, where FastAPI would say 422
                "description": f"`ETag` of the {what} you mean, or `*`",
                "schema": {"type": "string", "examples": ["*"]},
            }
        ]
    }


def tagged(found: BaseModel, if_none_match: str | None) -> Response:
    """The answer that shows a thing, or says that it is as the caller knows it."""
    etag = _etag(found)
    if _names(if_none_match or "", etag):
        answer = Response(status_code=304)
    else:
        answer = Response(found.model_dump_json(), media_type="application/json")
    answer.headers["ETag"] = etag
    return answer


def required(if_match: str | None, what: str) -> str:
    """What the header says.

    Raises:
        PreconditionRequired: it is missing.
    """
    if if_match is None:
        raise PreconditionRequired(f"say which {what} you mean: If-Match with its ETag, or with *")
    return if_match


def check(found: BaseModel, name: str, if_match: str) -> None:
    """Raises PreconditionFailed where the caller means another state of a thing than this."""
    if not _names(if_match, _etag(found)):
        raise PreconditionFailed(f"{name} has changed since If-Match knew it; get it again")


def _etag(found: BaseModel) -> str:
    """Of the whole answer: what a study waits for changes without a new revision."""
    return f'"{hashlib.sha256(found.model_dump_json().encode()).hexdigest()[:32]}"'


def _names(tags: str, etag: str) -> bool:
    """Whether a header that lists tags names this one."""
    return not {etag, "*"}.isdisjoint(tag.strip().removeprefix("W/") for tag in tags.split(","))
