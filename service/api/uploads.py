"""Files in bodies: limited in size, known by their checksum beforehand, and never in memory.

The content goes to the artifact store chunk by chunk, as it arrives.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Callable, Iterator
from http import HTTPStatus
from typing import TypeVar

import anyio.from_thread
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from ridgeline.service.api.problems import HttpError
from ridgeline.service.artifacts.base import Content
from ridgeline.service.errors import InvalidInput
from ridgeline.service.file_headers import MEDIA_TYPE

SILENCE_SECONDS = 30.0
"""In which the next chunk must arrive."""

UPLOAD_SECONDS = 900.0
"""In which all of them must; well within `checkpoints.DRAFT_SECONDS`."""

_Result = TypeVar("_Result")


def announced(request: Request, digest: str, *, limit: int) -> Content:
    """What the headers say of the content in the body; the body is not read.

    Raises:
        HttpError: 411, 413 or 415.
        InvalidInput: the digest is none, or the body is empty.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise _unsupported("compressed bodies are not taken; leave Content-Encoding out")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != MEDIA_TYPE:
        raise _unsupported(f"a file is sent with Content-Type: {MEDIA_TYPE}")
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        raise HttpError(
            HTTPStatus.LENGTH_REQUIRED,
            "a file is sent with Content-Length",
            headers={"Connection": "close"},  # nobody knows where the body ends
        )
    num_bytes = int(length)
    if num_bytes > limit:
        raise HttpError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the file is larger than {limit} bytes, the limit that RIDGELINE_MAX_ARTIFACT_BYTES "
            "sets",
            headers={"Connection": "close"},  # the rest of the body is never read
        )
    if num_bytes == 0:
        raise InvalidInput([("content-length", "a file has one byte at least")])
    try:
        sha256 = base64.b64decode(digest.removeprefix("sha-256=:").removesuffix(":"), validate=True)
    except binascii.Error as exc:  # the last digit has bits that mean nothing
        raise InvalidInput([("content-digest", f"is not base64: {exc}")]) from exc
    return Content(num_bytes, sha256.hex())


async def receive(request: Request, take: Callable[[Iterator[bytes]], _Result]) -> _Result:
    """Have `take`, in a thread, take the chunks of the body as they arrive.

    Call it in one of the turns of `Context.uploads`.

    Raises:
        HttpError: 408, where the body does not arrive in time.
        ClientDisconnect: the caller has gone.
    And what `take` raises.
    """
    stream = request.stream()
    end_at = asyncio.get_running_loop().time() + UPLOAD_SECONDS

    def chunks() -> Iterator[bytes]:
        while (chunk := anyio.from_thread.run(_next, stream, end_at)) is not None:
            yield chunk

    return await run_in_threadpool(take, chunks())


async def _next(stream: AsyncIterator[bytes], end_at: float) -> bytes | None:
    """The next chunk; None after the last."""
    silent_at = asyncio.get_running_loop().time() + SILENCE_SECONDS
    try:
        async with asyncio.timeout_at(min(silent_at, end_at)):
            return await anext(stream, None)
    except TimeoutError as exc:
        raise HttpError(
            HTTPStatus.REQUEST_TIMEOUT,
            f"nothing arrived for {SILENCE_SECONDS:g} seconds, or not all of it in "
            f"{UPLOAD_SECONDS:g}",
            headers={"Connection": "close"},
        ) from exc


def _unsupported(detail: str) -> HttpError:
    return HttpError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail)
