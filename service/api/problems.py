"""Errors as RFC 9457 problem+json, all of them.

A problem's `type` is `about:blank` where the HTTP status says it all, and `urn:ridgeline:<error>`
for an error of `ridgeline.service.errors`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ridgeline.search.problems import error_problems
from ridgeline.search.spec import InvalidSpec
from ridgeline.service import logs, views
from ridgeline.service.errors import (
    InvalidInput,
    RequestInFlight,
    ServiceError,
    Unauthenticated,
    Unavailable,
)

MEDIA_TYPE = "application/problem+json"
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="Ridgeline"'}

_RETRY_AFTER_SECONDS = 1
_MAX_ERRORS = 100
_MAX_TEXT = 500


class HttpError(Exception):
    """Something wrong with a request as HTTP, before any use case saw it."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        errors: Iterable[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = list(errors)
        self.headers = headers


def problem_response(
    status: int,
    detail: str,
    *,
    type_: str = "about:blank",
    title: str | None = None,
    errors: Iterable[tuple[str, str]] = (),
    headers: Mapping[str, str] | None = None,
    **extensions: str,
) -> Response:
    """The answer that tells a problem, and the id of the request, where one has come.

    RFC 9457 allows `extensions`, members beside its own.
    """
    request_id = logs.current("request")
    body: dict[str, Any] = {
        "type": type_,
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "detail": _cut(detail),
        "errors": [
            {"field": _cut(field), "message": _cut(message)}
            for field, message in list(errors)[:_MAX_ERRORS]
        ],
        **extensions,
    }
    if request_id is not None:
        body["request_id"] = request_id
    # ASCII escapes write whatever text a request brought, half a surrogate pair too.
    return Response(json.dumps(body), status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Let `app` answer every error it knows with a problem."""
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(InvalidSpec, _on_invalid_spec)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HttpError, _on_http_error)
    app.add_exception_handler(HTTPException, _on_framework_error)


async def _on_service_error(_request: Request, exc: Exception) -> Response:
    error = cast("ServiceError", exc)
    headers: dict[str, str] = {}
    if isinstance(error, Unauthenticated):
        headers = CHALLENGE
    elif isinstance(error, Unavailable | RequestInFlight):
        headers = {"Retry-After": str(_RETRY_AFTER_SECONDS)}
    problem = views.problem(error)
    return problem_response(
        problem.status,
        problem.detail,
        type_=problem.type,
        title=problem.title,
        errors=[(wrong.field, wrong.message) for wrong in problem.errors],
        headers=headers,
    )


async def _on_invalid_spec(request: Request, exc: Exception) -> Response:
    problems = cast("InvalidSpec", exc).problems
    return await _on_service_error(request, InvalidInput(problems))


async def _on_invalid_request(request: Request, exc: Exception) -> Response:
    """A parameter of the path, the query or a header; `loc` begins with which of them."""
    errors = [
        {**error, "loc": error["loc"][1:]} for error in cast("RequestValidationError", exc).errors()
    ]
    return await _on_service_error(request, InvalidInput(list(error_problems(errors))))


async def _on_http_error(_request: Request, exc: Exception) -> Response:
    error = cast("HttpError", exc)
    return problem_response(error.status, error.detail, errors=error.errors, headers=error.headers)


async def _on_framework_error(request: Request, exc: Exception) -> Response:
    error = cast("HTTPException", exc)
    path = request.scope["path"]  # `request.url` would parse the Host header too
    detail, headers = error.detail, error.headers
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail = f"there is nothing at {path}; /docs lists what there is"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(sorted(_methods_at(request.app, path)))
        detail = f"{request.method} is not possible at {path}; possible: {allowed}"
        headers = {"Allow": allowed}
    return problem_response(error.status_code, detail, headers=headers)


def _methods_at(app: FastAPI, path: str) -> set[str]:
    """The methods of all routes of a path; the framework's Allow has those of the first one.

    `ridgeline.service.api.middleware` answers HEAD wherever there is GET.
    """
    methods: set[str] = set()
    for route in iter_route_contexts(app.routes):
        if route.path_regex.match(path):
            methods |= route.methods or set()
    return methods | {"HEAD"} if "GET" in methods else methods


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
