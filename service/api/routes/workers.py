"""The worker protocol."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from ridgeline.search.objective import MAX_SECONDS
from ridgeline.service import workers
from ridgeline.service.api import examples
from ridgeline.service.api.auth import Reader, WorkerCaller
from ridgeline.service.api.bodies import Bulk, body_of, is_large
from ridgeline.service.api.context import Api
from ridgeline.service.api.openapi import problems, takes
from ridgeline.service.api.pages import WorkerPage
from ridgeline.service.api.routes.params import ID_PATTERN
from ridgeline.service.protocol import (
    SyncRequest,
    SyncResponse,
    WorkerRegistered,
    WorkerRegistration,
)

router = APIRouter(prefix="/v1", tags=["workers"])


@router.get(
    "/workers",
    summary="List workers",
    response_model=WorkerPage,
    responses=problems(422),
)
def list_workers(
    caller: Reader,
    api: Api,
    seen_within_seconds: Annotated[
        float | None,
        Query(ge=0, le=MAX_SECONDS, description="only those that called in the last so many"),
    ] = None,
) -> WorkerPage:
    """All workers in the order they came, those lost or gone too."""
    with api.store.reading() as tx:
        found = workers.list_all(tx, seen_within_seconds=seen_within_seconds)
    return WorkerPage(workers=found, next_page_token=None)


@router.post(
    "/workers",
    summary="Register a worker",
    response_model=WorkerRegistered,
    status_code=201,
    responses=problems(body=True),
    openapi_extra=takes(WorkerRegistration, one_cpu=examples.REGISTRATION),
)
def register_worker(
    caller: WorkerCaller,
    api: Api,
    body: Annotated[WorkerRegistration, Depends(body_of(WorkerRegistration))],
) -> WorkerRegistered:
    """Take in a process with devices; it then calls `:sync` at least once a lease."""
    with api.store.transaction() as tx:
        return workers.register(tx, body, owner=caller.token_id, settings=api.settings)


@router.post(
    "/workers/{worker:name}:sync",
    summary="State what a worker holds",
    response_model=SyncResponse,
    dependencies=[Bulk],
    responses=problems(404, 409, body=True),
    openapi_extra=takes(SyncRequest, one_run_ended=examples.SYNC),
)
async def sync_worker(
    request: Request,
    caller: WorkerCaller,
    api: Api,
    worker: Annotated[str, Path(description="the worker's id", pattern=ID_PATTERN, max_length=64)],
    body: Annotated[SyncRequest, Depends(body_of(SyncRequest))],
) -> Response:
    """What the worker holds, reports and has ended since; answered with runs to start and to stop.

    Where it has nothing to do and there is nothing for it, the answer waits for work to arrive, at
    most `sync_interval_seconds`.  Sending it twice changes nothing.  404 or 409: the worker is not,
    or no longer, registered; register again.
    """
    interval_seconds = api.settings.sync_interval_seconds
    may_wait = body.waits_for_work and not is_large(request)
    answer = await api.arrivals.answer(
        request,
        partial(workers.sync, api.store, worker, body, settings=api.settings),
        audience=None,
        is_final=lambda answer: bool(answer.start),
        seconds=interval_seconds if may_wait else 0.0,
        look_again_seconds=interval_seconds,
    )
    if answer is None:
        return Response()  # nobody is there to take the runs
    # FastAPI would validate it again, and make objects of each of hundreds of runs for that.
    return Response(answer.model_dump_json(), media_type="application/json")
