"""The client's errors, as a worker sees them."""

from __future__ import annotations

import httpx
import pytest

from ridgeline.service.client import Client
from ridgeline.service.protocol import SyncRequest, SyncResponse, WorkerRegistration
from ridgeline.service.worker.api import CallFailed, HttpApi
from tests.worker.fakes import device_info

REGISTRATION = WorkerRegistration(
    name="test", devices=(device_info("cpu:0"),), tasks=("mlp",), datasets=()
)
STATEMENT = SyncRequest(sync_seq=1)


def api_answering(answer: httpx.Response | Exception) -> HttpApi:
    def handle(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    client = Client(
        "http://127.0.0.1",
        "rl_canary_secret",
        retry_delays_seconds=(),
        transport=httpx.MockTransport(handle),
    )
    return HttpApi(client)


def test_answers_are_passed_on() -> None:
    answer = SyncResponse(start=(), stop=(), refused=())
    api = api_answering(httpx.Response(200, text=answer.model_dump_json()))
    assert api.sync("w0", STATEMENT) == answer


@pytest.mark.parametrize("status", [401, 404, 409, 503])
def test_refusals_keep_their_status(status: int) -> None:
    api = api_answering(httpx.Response(status, json={"detail": "because"}))
    with pytest.raises(CallFailed, match="because") as caught:
        api.register_worker(REGISTRATION)
    assert caught.value.status == status
    with pytest.raises(CallFailed) as caught:
        api.sync("w0", STATEMENT)
    assert caught.value.status == status
    assert "canary" not in str(caught.value)


def test_no_answer_has_no_status() -> None:
    api = api_answering(httpx.ConnectError("refused"))
    with pytest.raises(CallFailed) as caught:
        api.sync("w0", STATEMENT)
    assert caught.value.status is None
