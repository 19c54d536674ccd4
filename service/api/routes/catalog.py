"""What can be trained."""

from __future__ import annotations

from fastapi import APIRouter

from ridgeline.service import catalog
from ridgeline.service.api.auth import Reader
from ridgeline.service.api.context import PATIENCE_SECONDS, Api
from ridgeline.service.api.openapi import problems
from ridgeline.service.api.pages import DatasetPage, TaskPage
from ridgeline.service.resources import LeftOut

router = APIRouter(prefix="/v1", tags=["catalog"])


@router.get(
    "/tasks",
    summary="List tasks",
    response_model=TaskPage,
    responses=problems(),
)
def list_tasks(caller: Reader, api: Api) -> TaskPage:
    """What can be trained: each task with its parameters, metrics and settings."""
    with api.store.reading() as tx:
        return TaskPage(tasks=catalog.tasks(tx), next_page_token=None)


@router.get(
    "/datasets",
    summary="List data sets",
    response_model=DatasetPage,
    responses=problems(),
)
def list_datasets(caller: Reader, api: Api) -> DatasetPage:
    """The data sets of live workers and of the api's own data root, by name and fingerprint.

    `left_out` has the folders of that data root that are none, each with the reason; one that
    takes long to be read is among them meanwhile.
    """
    local = api.local_datasets.look(patience_seconds=PATIENCE_SECONDS)
    left_out = [LeftOut(name=name, reason=reason) for name, reason in local.left_out.items()]
    with api.store.reading() as tx:
        found = catalog.datasets(tx, local.cards)
    return DatasetPage(datasets=found, left_out=left_out, next_page_token=None)
