"""Metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from fastapi import APIRouter
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from ridgeline.service.api.auth import Reader
from ridgeline.service.api.context import Api
from ridgeline.service.api.openapi import problems
from ridgeline.service.gauges import Gauges
from ridgeline.service.metrics import REGISTRY

router = APIRouter(tags=["health"])


class MetricsResponse(Response):
    media_type = "text/plain"


class _All(Collector):
    def __init__(self, gauges: Gauges) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        return chain(self._gauges.collect(), REGISTRY.collect())


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=MetricsResponse,
    responses=problems(),
)
def get_metrics(caller: Reader, api: Api, request: Request) -> Response:
    """The queue, workers and their slots as the database has them now, and what this process of the
    api counted since its start.

    docs/metrics.md says what each metric means.
    """
    encode, media_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(_All(Gauges(api.store))), headers={"Content-Type": media_type})
