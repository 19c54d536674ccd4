"""Request bodies: limited in size, strict JSON, validated, and only then given to a route.

Routes take these as dependencies behind their caller, so the body of a stranger is not even read.
An empty body stands for `{}`.
"""

from __future__ import annotations

from collections.abc import Callable
from email.message import Message
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from fastapi import Depends
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from search.problems import validation_problems
from service.api import strict_json
from service.api.context import Api
from service.api.problems import HttpError
from service.errors import InvalidInput

_Model = TypeVar("_Model", bound=BaseModel)


class Nothing(BaseModel):
    """The body of a verb that needs none."""

    model_config = ConfigDict(extra="forbid")


async def _raw_body(request: Request, api: Api) -> bytes:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HttpError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "compressed bodies are not taken; leave Content-Encoding out",
        )
    limit = api.settings.max_body_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    if size > 0 and not _is_json(request.headers.get("content-type", "")):
        raise HttpError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "bodies are JSON in UTF-8; send Content-Type: application/json",
        )
    return b"".join(chunks)


def _too_large(limit: int) -> HttpError:
    return HttpError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the body is larger than {limit} bytes, the limit that RIDGELINE_MAX_BODY_BYTES sets",
        headers={"Connection": "close"},  # the rest of the body is never read
    )


def _is_json(content_type: str) -> bool:
    message = Message()
    message["content-type"] = content_type
    charset = str(message.get_param("charset", "utf-8")).lower()
    return message.get_content_type() == "application/json" and charset in ("utf-8", "utf8")


def _json_body(raw: Annotated[bytes, Depends(_raw_body)]) -> Any:
    try:
        return strict_json.loads(raw) if raw else {}
    except strict_json.NotJson as exc:
        raise HttpError(
            HTTPStatus.BAD_REQUEST, f"the body is not JSON: {exc}", errors=[("", str(exc))]
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
