"""Calling an ASGI app from tests, and what its answers have in common."""

from __future__ import annotations

from typing import Any

import anyio.from_thread
import httpx
import pytest
from fastapi import FastAPI

sqlite_only = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)
"""For tests of what does not depend on the database."""

SPEC: dict[str, Any] = {
    "name": "s",
    "task": {"name": "mlp", "dataset": "digits"},
    "space": {
        "learning_rate": {"type": "float", "low": 0.001, "high": 0.1, "log": True, "points": 3},
        "l2": {"type": "values", "values": [0.0, 0.001]},
    },
    "sampler": {"name": "random", "seed": 1},
    "budget": {"trials": 4},
}
EXTERNAL: dict[str, Any] = {
    "name": "x",
    "task": {"name": "external"},
    "space": {"depth": {"type": "int", "low": 1, "high": 9}},
    "sampler": {"name": "random", "seed": 1},
    "objective": {"metric": "error", "direction": "minimize"},
    "budget": {"trials": 4},
}


class AsgiTransport(httpx.BaseTransport):
    """httpx's transport for ASGI apps is asynchronous; this one waits for its answers."""

    def __init__(self, app: FastAPI, portal: anyio.from_thread.BlockingPortal) -> None:
        self._transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._portal = portal

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._portal.call(self._handle, request)

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        request.read()  # leaves a stream that can be read asynchronously too
        answer = await self._transport.handle_async_request(request)
        content = await answer.aread()
        return httpx.Response(answer.status_code, headers=answer.headers, content=content)


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The problem that `answer` tells, checked to be one."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "errors"} <= body.keys()
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert "Traceback" not in answer.text
    return body


def fields(answer: httpx.Response, status: int = 422) -> dict[str, str]:
    """The fields that a problem names, with the reasons."""
    return {error["field"]: error["message"] for error in problem(answer, status)["errors"]}


def ok(answer: httpx.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()
