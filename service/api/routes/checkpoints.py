"""Checkpoints of runs, which workers send and get beside their one call."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Header, Path, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ridgeline.search.fields import MAX_EPOCHS, MAX_INT
from ridgeline.service import checkpoints, file_headers
from ridgeline.service.api import uploads
from ridgeline.service.api.auth import WorkerCaller
from ridgeline.service.api.context import Api
from ridgeline.service.api.openapi import problem, problems
from ridgeline.service.api.routes.params import ID_PATTERN
from ridgeline.service.artifacts.base import chunks_of
from ridgeline.service.protocol import MAX_INT_32, CheckpointInfo

router = APIRouter(prefix="/v1", tags=["workers"])

_PATH = "/workers/{worker:name}/runs/{run:name}/checkpoint"

WorkerPath = Annotated[
    str,
    Path(alias="worker", description="the worker's id", pattern=ID_PATTERN, max_length=64),
]
RunPath = Annotated[
    int, Path(alias="run", description="the run's id, as in its order", ge=1, le=MAX_INT)
]
Attempt = Annotated[
    int, Query(ge=1, le=MAX_INT_32, description="the attempt at the run that the worker holds")
]

_BYTES: dict[str, Any] = {"type": "string", "format": "binary"}
_FILE: dict[str, Any] = {
    "description": "the checkpoint",
    "content": {file_headers.MEDIA_TYPE: {"schema": _BYTES}},
    "headers": {
        file_headers.EPOCH: {
            "description": "after which the checkpoint was made",
            "schema": {"type": "integer"},
        },
        file_headers.DIGEST: {
            "description": "SHA-256 of the checkpoint, as RFC 9530 has it",
            "schema": {"type": "string", "pattern": file_headers.DIGEST_PATTERN},
        },
    },
}


class FileResponse(StreamingResponse):
    """Sends a file and closes it, whether all of it is sent or, as to a HEAD, nothing."""

    media_type = file_headers.MEDIA_TYPE

    def __init__(self, file: BinaryIO, headers: Mapping[str, str]) -> None:
        super().__init__(chunks_of(file), headers=headers)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            await super().__call__(scope, receive, send)


@router.put(
    _PATH,
    summary="Keep a checkpoint",
    response_model=CheckpointInfo,
    responses={
        **problems(404, 408, 409, 413, 422),
        411: problem(411),
        415: {**problem(415), "description": f"The body is not `{file_headers.MEDIA_TYPE}`."},
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {file_headers.MEDIA_TYPE: {"schema": {**_BYTES, "minLength": 1}}},
        }
    },
)
async def put_checkpoint(
    request: Request,
    caller: WorkerCaller,
    api: Api,
    worker: WorkerPath,
    run: RunPath,
    attempt: Attempt,
    epoch: Annotated[
        int, Query(ge=1, le=MAX_EPOCHS, description="after which it was made; reported before")
    ],
    program: Annotated[
        str,
        Query(
            min_length=1,
            max_length=128,
            pattern=r"^[^\x00-\x1f]+$",
            description="that trains the run; from the checkpoint it goes on in no other",
        ),
    ],
    content_digest: Annotated[
        str,
        Header(
            pattern=file_headers.DIGEST_PATTERN,
            description="SHA-256 of the body, as RFC 9530 has it",
            examples=[file_headers.digest_header("5f2c" * 16)],
        ),
    ],
) -> CheckpointInfo:
    """The state of a run that the worker holds, after an epoch; the body is the file.

    It is kept as a whole or not at all; sending it twice changes nothing.  The newest two of a run
    are kept until it ends.  409: the run is not the worker's any more, or its epoch was not
    reported yet.
    """
    content = uploads.announced(request, content_digest, limit=api.settings.max_artifact_bytes)
    holder = checkpoints.Holder(worker, run, attempt)
    async with api.uploads:  # before it is announced, since a draft has so much time and no more
        row, is_there = await run_in_threadpool(
            checkpoints.announce, api.store, holder, epoch=epoch, program=program, content=content
        )
        if not is_there:
            take = partial(checkpoints.keep, api.store, api.artifacts, holder, row)
            await uploads.receive(request, take)
    return row.info()


@router.get(
    _PATH,
    summary="Get the newest checkpoint",
    status_code=200,
    response_class=FileResponse,
    responses={200: _FILE, **problems(404, 409, 422)},
)
def get_checkpoint(
    caller: WorkerCaller, api: Api, worker: WorkerPath, run: RunPath, attempt: Attempt
) -> Response:
    """Of a run that the worker holds: the newest checkpoint that is as it was kept.

    One that is not is given up, and the one before is sent.
    """
    holder = checkpoints.Holder(worker, run, attempt)
    row, file = checkpoints.newest(api.store, api.artifacts, holder)
    headers = {
        "Content-Length": str(row.num_bytes),
        file_headers.DIGEST: file_headers.digest_header(row.sha256),
        file_headers.EPOCH: str(row.epoch),
    }
    return FileResponse(file, headers)
