"""Probes."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from service.api.context import Api
from service.api.openapi import problem

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: Literal["ok"] = "ok"


@router.get("/healthz", summary="Is the process up?", response_model=Health)
async def healthz() -> Health:
    """Answers as long as the process serves requests; the database is not asked."""
    return Health()


@router.get(
    "/readyz",
    summary="Can it do its work?",
    response_model=Health,
    responses={503: problem(503)},
)
def readyz(api: Api) -> Health:
    """The database answers and has the schema of this version."""
    api.readiness.check()
    return Health()
