"""The outermost layer: which requests come in at all, and what every answer carries."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import problem_response

log = logging.getLogger(__name__)

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_PROBES = frozenset({"/healthz", "/readyz"})

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
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                data = scope["path"].startswith("/v1/")
                for name, value in (_HEADERS | _HEADERS_OF_DATA if data else _HEADERS).items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            app = self._refusal(scope) or self._app
            await app(scope, receive, send_with_headers)
        except ClientDisconnect:
            return  # nobody is left to tell anything
        except Exception:
            request_id = secrets.token_hex(8)
            log.exception("request %s failed: %s %r", request_id, scope["method"], scope["path"])
            if started:
                raise
            detail = "an unexpected error; the service's log has it under this request_id"
            response = problem_response(
                HTTPStatus.INTERNAL_SERVER_ERROR, detail, request_id=request_id
            )
            await response(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if _without_port(host) not in self._allowed_hosts and scope["path"] not in _PROBES:
            return problem_response(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"the host {host!r} is not served here; add it to RIDGELINE_ALLOWED_HOSTS",
            )
        origin = headers.get("origin")
        foreign = origin is not None and _host_of(origin) != host.lower()
        if foreign and scope["method"] not in _SAFE_METHODS:
            return problem_response(
                HTTPStatus.FORBIDDEN, f"pages of {origin!r} may not change anything here"
            )
        return None


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
