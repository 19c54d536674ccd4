"""The outermost layer: which requests come in at all, and what every answer carries."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Iterable
from http import HTTPStatus
from time import monotonic
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ridgeline.service import logs, metrics
from ridgeline.service.api.auth import SAFE_METHODS
from ridgeline.service.api.problems import problem_response

log = logging.getLogger(__name__)

_PROBES = frozenset({"/healthz", "/readyz"})

_METHODS = SAFE_METHODS | {"POST", "PUT", "PATCH", "DELETE"}

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_IDS = re.compile(
    r"/v1/(?:studies/(?P<study>[^/:]+)(?:/trials/(?P<trial>[0-9]+))?|workers/(?P<worker>[^/:]+))"
)
_ABSOLUTE_FORM = re.compile(rb"https?://([^/]*)(/.*)?", re.IGNORECASE)

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_HEADERS_OF_DATA = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "private, no-cache",
}


class Edge:
    """Refuses foreign hosts and origins, adds security headers, and keeps tracebacks inside.

    A Host outside `allowed_hosts` (ports not compared) may be a foreign page whose name now
    resolves to this machine (DNS rebinding); probes by IP address need no name.  An Origin that is
    not this host's own is a foreign page too: no CORS header ever lets one read, and this keeps its
    forms from writing while no tokens are in use.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Iterable[str]) -> None:
        self._app = app
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with logs.about(request=_request_id(scope), **_ids_in(scope["path"])):
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = monotonic()
        started = False
        routed = scope

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _measure(scope["method"], routed, message["status"], monotonic() - began)
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = str(logs.current("request"))
                data = routed["path"].startswith("/v1/")
                for name, value in (_HEADERS | _HEADERS_OF_DATA if data else _HEADERS).items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            routed = _in_origin_form(scope)
            app = self._refusal(routed) or self._app
            if routed["method"] == "HEAD":
                routed = _as_get(routed)
                await _answer_head(app, routed, send_with_headers)
            else:
                await app(routed, receive, send_with_headers)
        except ClientDisconnect:
            return  # nobody is left to tell anything
        except Exception:
            log.exception("a request failed: %s %r", scope["method"], scope["path"])
            if started:
                raise
            detail = "an unexpected error; the service's log has it under this request_id"
            response = problem_response(HTTPStatus.INTERNAL_SERVER_ERROR, detail)
            await response(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if "content-length" in headers and "transfer-encoding" in headers:
            return problem_response(
                HTTPStatus.BAD_REQUEST,
                "Content-Length beside Transfer-Encoding: where the body ends is not clear",
                headers={"Connection": "close"},
            )
        host = headers.get("host", "")
        if _without_port(host) not in self._allowed_hosts and scope["path"] not in _PROBES:
            return problem_response(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"the host {host!r} is not served here; add it to RIDGELINE_ALLOWED_HOSTS",
            )
        origin = headers.get("origin")
        foreign = origin is not None and _host_of(origin) != host.lower()
        if foreign and scope["method"] not in SAFE_METHODS:
            return problem_response(
                HTTPStatus.FORBIDDEN, f"pages of {origin!r} may not change anything here"
            )
        return None


def _request_id(scope: Scope) -> str:
    """The id that the caller has given the request, if it can be one, or else a new one."""
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _ids_in(path: str) -> dict[str, str]:
    """What a request is about, by its path."""
    found = _IDS.match(path)
    return {} if found is None else {k: v for k, v in found.groupdict().items() if v is not None}


def _measure(method: str, routed: Scope, status: int, seconds: float) -> None:
    """Note the time until the answer began, by the template of the path, never by the path."""
    route = getattr(routed.get("route"), "path_format", "none")
    known = method if method in _METHODS else "other"
    metrics.REQUEST_SECONDS.labels(known, route, status).observe(seconds)


def _in_origin_form(scope: Scope) -> Scope:
    """`GET http://host/path`, as a client may send it, as `GET /path` with that Host.

    RFC 9112, section 3.2.2: the host in the target counts, whatever the header says.
    """
    target = _ABSOLUTE_FORM.fullmatch(scope["raw_path"])
    if target is None:
        return scope
    host, path = target.groups(default=b"/")
    headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
    return {
        **scope,
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "headers": [*headers, (b"host", host)],
    }


def _as_get(scope: Scope) -> Scope:
    # From 2.4 on Starlette waits for `send` to fail instead of looking for a disconnect.
    return {**scope, "method": "GET", "asgi": {**scope["asgi"], "spec_version": "2.3"}}


async def _answer_head(app: ASGIApp, scope: Scope, send: Send) -> None:
    """Answer as GET would, without the body; a stream is broken off as if its reader had gone."""
    started = asyncio.Event()
    request: list[Message] = [{"type": "http.request"}]

    async def receive() -> Message:
        if request:
            return request.pop()
        await started.wait()
        return {"type": "http.disconnect"}

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.start":
            started.set()
            await send(message)
            await send({"type": "http.response.body"})

    await app(scope, receive, send_head)


def _host_of(origin: str) -> str | None:
    """Host and port of an Origin header; None where it is no URL."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _without_port(host: str) -> str:
    """The host of a Host header: `[::1]:8000` → `[::1]`."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and (port == "" or port.isdecimal()) else host.lower()
