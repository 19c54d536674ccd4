"""What can be trained."""

from __future__ import annotations

from fastapi import APIRouter

from service import catalog
from service.api.auth import Reader
from service.api.context import Api
from service.api.openapi import problems
from service.api.pages import DatasetPage, TaskPage

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
    """The data sets of live workers and of the api's own data root, by name and fingerprint."""
    local = api.local_datasets.cards()
    with api.store.reading() as tx:
        return DatasetPage(datasets=catalog.datasets(tx, local), next_page_token=None)
