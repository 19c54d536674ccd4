"""Probes."""

from __future__ import annotations

from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from ridgeline.service.api.context import Api
from ridgeline.service.api.openapi import problem
from ridgeline.service.api.problems import problem_response
from ridgeline.service.api.readiness import Check

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    status: Literal["ok", "degraded"]
    checks: list[Check]


@router.get("/healthz", summary="Is the process up?", response_model=Health)
async def healthz() -> Health:
    """Answers as long as the process serves requests; the database is not asked."""
    return Health()


@router.get(
    "/readyz",
    summary="Can it do its work?",
    response_model=Ready,
    responses={503: problem(503)},
)
def readyz(api: Api) -> Response:
    """The database answers, can be written to and has the schema of this version.

    `degraded`: the dashboard does not answer, or copies in Optuna's tables are behind; studies go
    on.  503: a check has failed; `errors` names each, and why.
    """
    checks = api.readiness.checks()
    failed = [check for check in checks if check.status == "failed"]
    if failed:
        return problem_response(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "; ".join(check.detail for check in failed),
            type_="urn:ridgeline:unavailable",
            title="Unavailable",
            errors=[(check.name, check.detail) for check in failed],
            headers={"Retry-After": "1"},
        )
    is_ok = all(check.status == "ok" for check in checks)
    ready = Ready(status="ok" if is_ok else "degraded", checks=checks)
    return JSONResponse(ready.model_dump(mode="json"))
