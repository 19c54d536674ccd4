"""`/status`, a page that shows what runs and what waits, and stops it; all of it in three files.

The page asks /v1 like every other client.  It needs nothing from another host, and no text that it
shows can become markup: its policy allows scripts of its own files alone, and no HTML from strings.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from importlib import resources

from fastapi import APIRouter
from starlette.responses import RedirectResponse, Response

from ridgeline.service.api.auth import PageReader
from ridgeline.service.api.context import Context

_MEDIA_TYPES = {
    "status.html": "text/html; charset=utf-8",
    "status.css": "text/css; charset=utf-8",
    "status.js": "text/javascript; charset=utf-8",
    "view.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_HEADERS = {
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    ),
}


def router(api: Context) -> APIRouter:
    """The page, its parts, and the way there from `/`."""
    router = APIRouter(include_in_schema=False, dependencies=[PageReader])
    for name, media_type in _MEDIA_TYPES.items():
        text = (
            resources.files("ridgeline.service.api")
            .joinpath("status", name)
            .read_text(encoding="utf-8")
        )
        if name == "status.html" and api.settings.dashboard_socket is not None:
            text = text.replace("<html ", "<html data-dashboard ")
        path = "/status" if name == "status.html" else f"/status/{name}"
        _add(router, path, partial(Response, text, headers=_HEADERS, media_type=media_type))
    _add(router, "/", partial(RedirectResponse, "/status", HTTPStatus.FOUND))
    return router


def _add(router: APIRouter, path: str, answer: Callable[[], Response]) -> None:
    async def endpoint() -> Response:
        return answer()

    router.add_api_route(path, endpoint, methods=["GET"])
