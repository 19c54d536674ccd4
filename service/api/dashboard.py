"""optuna-dashboard, passed through: GET and HEAD only, behind our own authentication.

The dashboard has no authentication and routes that write, none of them under GET.  It runs as a
process of its own on a read-only database (`service.dashboard`), behind a Unix socket, and works
only at the root of a host, which is why our own API lives under /v1.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from urllib.parse import urlsplit

import httpx
from fastapi import APIRouter
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ridgeline.service.api.auth import PageReader
from ridgeline.service.api.context import Context
from ridgeline.service.api.dashboard_alive import (
    ALIVE_PATH,
    ALIVE_SECONDS,
    DOES_NOT_ANSWER,
)
from ridgeline.service.api.problems import HttpError, problem_response
from ridgeline.service.errors import NotFound, Unavailable

PATHS = (
    "/dashboard",
    "/dashboard/{rest:path}",
    "/api/{rest:path}",
    "/csv/{rest:path}",
    "/artifacts/{rest:path}",
    "/static/{rest:path}",
)
_REQUEST_HEADERS = frozenset(
    {b"accept", b"accept-encoding", b"if-modified-since", b"if-none-match", b"range"}
)
_RESPONSE_HEADERS = frozenset(
    {
        b"accept-ranges",
        b"cache-control",
        b"content-disposition",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-security-policy",
        b"content-type",
        b"etag",
        b"last-modified",
    }
)
"""What passes, as the bytes that came: whatever they mean to the other side, they are not decoded.

Hop-by-hop headers, cookies, CORS and our Authorization are not on the lists.
"""

RawHeaders = list[tuple[bytes, bytes]]

_REFUSED = ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
_WHY = "the dashboard only reads; studies are changed at /status, by `ridgeline` and over /v1"
_HOST = "http://localhost"
_TIMEOUT = httpx.Timeout(60.0, connect=3.0)

PATIENCE_SECONDS = 10.0
"""How long the beginning of a page may take before the dashboard is asked whether it is alive.

Its largest pages take about that long, and longer where others use the processor.  So a slow answer
is waited for, and a process that answers nothing is not.
"""


class Dashboard:
    """The way to the dashboard's process; without a socket it says how to start one."""

    def __init__(self, api: Context) -> None:
        self._api = api
        self._client: httpx.AsyncClient | None = None
        self.router = APIRouter(include_in_schema=False)
        for path in PATHS:
            self.router.add_api_route(
                path, self._pass_through, methods=["GET"], dependencies=[PageReader]
            )
            self.router.add_api_route(path, _refuse, methods=_REFUSED, dependencies=[PageReader])

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Connections to the dashboard are kept for the length of the block."""
        path = self._api.settings.dashboard_socket
        if path is None:
            yield
            return
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(
            transport=transport, base_url=_HOST, timeout=_TIMEOUT, trust_env=False
        ) as client:
            self._client = client
            yield
            self._client = None

    async def _pass_through(self, request: Request) -> Response:
        if self._client is None:
            raise NotFound(
                "no dashboard runs; `ridgeline up` starts one, or set RIDGELINE_DASHBOARD_SOCKET "
                "and start `python -m ridgeline.service.dashboard`"
            )
        upstream = self._client.build_request(
            request.method,
            _upstream_url(self._client.base_url, request),
            headers=_passed_on(request.headers.raw),
        )
        try:
            answer = await self._answer(self._client, upstream)
        except httpx.TransportError as exc:
            raise Unavailable(DOES_NOT_ANSWER) from exc
        if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            await answer.aclose()
            raise HttpError(
                HTTPStatus.BAD_GATEWAY,
                f"the dashboard answered with status {answer.status_code}; its log says why",
            )
        if answer.is_client_error and not _is_json(answer):
            await answer.aclose()
            raise HttpError(
                HTTPStatus(answer.status_code),
                f"the dashboard cannot answer this: {HTTPStatus(answer.status_code).phrase}",
            )
        response = StreamingResponse(
            answer.aiter_raw(), answer.status_code, background=BackgroundTask(answer.aclose)
        )
        response.raw_headers = _passed_back(answer.headers.raw)
        return response

    async def _answer(self, client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
        """The beginning of the answer, waited for as long as the dashboard lives.

        Raises:
            httpx.TransportError: it does not, or takes longer than any page does.
        """
        sending = asyncio.ensure_future(client.send(request, stream=True))
        try:
            while not (await asyncio.wait({sending}, timeout=PATIENCE_SECONDS))[0]:
                await client.head(ALIVE_PATH, timeout=ALIVE_SECONDS)
            return sending.result()
        finally:
            sending.cancel()


def _is_json(answer: httpx.Response) -> bool:
    """Its own page reads errors as JSON; the pages that its framework makes of others, nobody."""
    return str(answer.headers.get("content-type", "")).startswith("application/json")


async def _refuse() -> Response:
    """Its own page reads `reason`, and shows it."""
    allowed = "GET, HEAD"
    return problem_response(
        HTTPStatus.METHOD_NOT_ALLOWED,
        f"{_WHY}; possible here: {allowed}",
        reason=_WHY,
        headers={"Allow": allowed},
    )


def _upstream_url(base: httpx.URL, request: Request) -> httpx.URL:
    """Path and query as they came: decoding and encoding them again might change them."""
    query: bytes = request.scope["query_string"]
    path: bytes = request.scope["raw_path"]
    try:
        return base.copy_with(raw_path=path + b"?" + query if query else path)
    except httpx.InvalidURL as exc:
        raise HttpError(HTTPStatus.BAD_REQUEST, f"the request's target is no URL: {exc}") from exc


def _passed_on(headers: RawHeaders) -> RawHeaders:
    passed = [(name, value) for name, value in headers if name in _REQUEST_HEADERS and value]
    if not any(name == b"accept-encoding" for name, _ in passed):
        passed.append((b"accept-encoding", b"identity"))  # or httpx would name its own
    return passed


def _passed_back(headers: RawHeaders) -> RawHeaders:
    passed = []
    for name, value in headers:
        name = name.lower()
        if name == b"location":
            # The dashboard redirects to its own address, which nobody else can reach.
            value = urlsplit(value)._replace(scheme=b"", netloc=b"").geturl()
        elif name not in _RESPONSE_HEADERS:
            continue
        passed.append((name, value))
    return passed
