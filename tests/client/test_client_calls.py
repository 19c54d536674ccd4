"""The client against a scripted transport: what it sends, repeats and raises."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from ridgeline.service.client import ApiError, Client, Unreachable
from ridgeline.service.protocol import SyncRequest

URL = "http://127.0.0.1:8000"

SPEC = {
    "name": "s",
    "task": {"name": "external"},
    "space": {"x": {"type": "float", "low": 0, "high": 1}},
    "sampler": {"name": "random"},
    "objective": {"metric": "loss", "direction": "minimize"},
    "budget": {"trials": 2},
}
STUDY = {
    "name": "s",
    "state": "QUEUED",
    "reason": None,
    "stopping": False,
    "spec": SPEC,
    "num_trials": 2,
    "trials": {},
    "best": None,
    "device_seconds": 0.0,
    "data_fingerprint": None,
    "owner": None,
    "revision": 1,
    "mean_epoch": None,
    "optuna_study_id": None,
    "projection_error": None,
    "deadline_at": None,
    "created_at": 0.0,
    "started_at": None,
    "finished_at": None,
}
SYNC_ANSWER: dict[str, Any] = {"start": [], "stop": [], "refused": []}

Answer = Callable[[httpx.Request], httpx.Response] | httpx.Response | Exception


class Script(httpx.BaseTransport):
    """Gives the answers it was made with, in turn, and keeps the requests."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else answer(request)


def client_of(script: Script, token: str | None = None) -> Client:
    return Client(URL, token, retry_delays_seconds=(0, 0), transport=script)


def test_a_lost_connection_is_tried_again_with_the_same_key() -> None:
    script = Script(
        httpx.ConnectError("refused"),
        httpx.RemoteProtocolError("cut"),
        httpx.Response(201, json=STUDY),
    )
    with client_of(script) as client:
        assert client.create_study(SPEC).name == "s"
    keys = {request.headers["Idempotency-Key"] for request in script.requests}
    assert len(script.requests) == 3
    assert len(keys) == 1
    assert len({request.content for request in script.requests}) == 1


def test_every_post_has_a_key_of_its_own_and_a_given_one_is_used() -> None:
    script = Script(*[httpx.Response(200, json=STUDY)] * 3)
    with client_of(script) as client:
        client.cancel("s")
        client.cancel("s")
        client.create_study(SPEC, idempotency_key="mine")
    first, second, third = (request.headers["Idempotency-Key"] for request in script.requests)
    assert first != second
    assert third == "mine"


def test_a_sync_has_no_key_since_its_number_makes_it_repeatable() -> None:
    script = Script(httpx.ReadError("cut"), httpx.Response(200, json=SYNC_ANSWER))
    with client_of(script) as client:
        client.sync("w/1", SyncRequest(sync_seq=1))
    assert "Idempotency-Key" not in script.requests[1].headers
    assert script.requests[1].url.raw_path == b"/v1/workers/w%2F1:sync"


def test_repetitions_end_and_say_what_to_do() -> None:
    script = Script(*[httpx.ConnectError("[Errno 111] Connection\nrefused")] * 3)
    with client_of(script) as client, pytest.raises(Unreachable) as caught:
        client.study("s")
    assert str(caught.value) == (
        f"cannot reach {URL}: [Errno 111] Connection refused; is the service running?"
    )


def test_an_answer_that_takes_too_long_is_not_asked_for_again() -> None:
    script = Script(httpx.ReadTimeout("timed out"))
    with client_of(script) as client, pytest.raises(Unreachable, match="did not answer in 60 s"):
        client.study("s")


@pytest.mark.parametrize(
    "busy", [httpx.Response(503), httpx.Response(409, headers={"Retry-After": "1"})]
)
def test_a_busy_service_is_asked_again(busy: httpx.Response) -> None:
    script = Script(busy, httpx.Response(200, json=STUDY))
    with client_of(script) as client:
        assert client.pause("s").name == "s"


def test_a_service_that_stays_busy_is_an_error() -> None:
    problem = {"title": "Service Unavailable", "status": 503, "detail": "the disk is full"}
    script = Script(*[httpx.Response(503, json=problem)] * 3)
    with client_of(script) as client, pytest.raises(ApiError, match="the disk is full") as caught:
        client.study("s")
    assert caught.value.status == 503


def test_a_conflict_is_not_asked_again() -> None:
    problem = {"title": "Conflict", "status": 409, "detail": "there is a study named s already"}
    script = Script(httpx.Response(409, json=problem))
    with client_of(script) as client, pytest.raises(ApiError) as caught:
        client.create_study(SPEC)
    assert (caught.value.status, caught.value.title) == (409, "Conflict")
    assert str(caught.value) == "there is a study named s already (HTTP 409)"


def test_wrong_fields_are_named_on_one_line() -> None:
    errors = [{"field": "budget.trials", "message": "must be\nabove 0"}, {"field": "name"}]
    problem = {"title": "Invalid", "status": 422, "detail": "2 problems", "errors": errors}
    script = Script(httpx.Response(422, json=problem))
    with client_of(script) as client, pytest.raises(ApiError) as caught:
        client.create_study(SPEC)
    assert caught.value.problems == [("budget.trials", "must be\nabove 0"), ("name", "")]
    assert str(caught.value) == "budget.trials: must be above 0; name: (HTTP 422)"


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>hello</html>"),
        httpx.Response(200, json=[1, 2]),
        httpx.Response(200, json={"name": "s"}),
    ],
    ids=["html", "list", "another object"],
)
def test_an_answer_of_something_else_is_not_understood(answer: httpx.Response) -> None:
    with client_of(Script(answer)) as client, pytest.raises(ApiError, match="does not understand"):
        client.study("s")


@pytest.mark.parametrize(
    "answer",
    [httpx.Response(404, text="<html>no</html>"), httpx.Response(502, json=["x"])],
)
def test_an_error_of_something_else_still_is_one(answer: httpx.Response) -> None:
    with client_of(Script(answer)) as client, pytest.raises(ApiError) as caught:
        client.study("s")
    assert caught.value.status == answer.status_code


def test_the_token_is_shown() -> None:
    script = Script(*[httpx.Response(200, json=STUDY)] * 2)
    with client_of(script, "rl_a_b") as client:
        client.study("s")
    with client_of(script) as client:
        client.study("s")
    assert script.requests[0].headers["Authorization"] == "Bearer rl_a_b"
    assert "Authorization" not in script.requests[1].headers


def test_pages_are_followed() -> None:
    script = Script(
        httpx.Response(200, json={"studies": [STUDY], "next_page_token": "t&2"}),
        httpx.Response(200, json={"studies": [STUDY], "next_page_token": None}),
    )
    with client_of(script) as client:
        assert len(list(client.studies())) == 2
    assert script.requests[1].url.params["page_token"] == "t&2"


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../workers", "x?y", "a/trials/0", "x\n", "\ud800"]
)
def test_a_name_that_no_study_has_leads_nowhere_else(name: str) -> None:
    script = Script()
    with client_of(script) as client, pytest.raises(ApiError) as caught:
        client.study(name)
    assert caught.value.status in (404, 422)
    assert script.requests == []


@pytest.mark.parametrize("number", ["0/../1", "1:complete", -1, 1.5, "", None, 2**31])
def test_a_number_that_no_trial_has_leads_nowhere_else(number: Any) -> None:
    script = Script()
    with client_of(script) as client, pytest.raises(ApiError, match="a has no trial ") as caught:
        client.trial("a", number)
    assert caught.value.status == 404
    assert script.requests == []


def stream(*events: tuple[int, str, str]) -> httpx.Response:
    text = ": hello\n\n" + "".join(
        f"id: {id}\nevent: {type}\ndata: {data}\n\n" for id, type, data in events
    )
    return httpx.Response(200, text=text, headers={"Content-Type": "text/event-stream"})


class CutStream(httpx.SyncByteStream):
    """The beginning of a stream, and then the loss of its connection."""

    def __init__(self, beginning: httpx.Response) -> None:
        self.beginning = beginning.content

    def __iter__(self) -> Iterator[bytes]:
        yield self.beginning
        raise httpx.ReadError("cut")


def test_a_broken_stream_of_events_is_taken_up_where_it_broke() -> None:
    script = Script(
        httpx.Response(200, stream=CutStream(stream((1, "study", '{"a": 1}'), (2, "run", "{}")))),
        httpx.ConnectError("refused"),
        stream(),
        stream((5, "trial", "{}"), (5, "end", "{}")),
    )
    with client_of(script) as client:
        events = list(client.events("s"))
    assert [(event.id, event.type) for event in events] == [(1, "study"), (2, "run"), (5, "trial")]
    assert events[0].data == {"a": 1}
    assert [r.headers["Last-Event-ID"] for r in script.requests] == ["0", "2", "2", "2"]


def test_events_of_a_study_that_is_not_there() -> None:
    script = Script(httpx.Response(404, json={"detail": "there is no study named s"}))
    with client_of(script) as client, pytest.raises(ApiError, match="no study named s"):
        list(client.events("s"))


def test_readiness_is_asked_once_and_never_raises() -> None:
    script = Script(httpx.ConnectError("no"), httpx.Response(503), httpx.Response(200))
    with client_of(script) as client:
        assert [client.is_ready() for _ in range(3)] == [False, False, True]


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://", ""])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is not a URL such as"):
        Client(url)


def test_what_is_no_token_is_refused() -> None:
    with pytest.raises(ValueError, match="no token has"):
        Client(URL, "rl_a\nb")


def test_the_client_needs_neither_torch_nor_a_database() -> None:
    code = (
        "import sys, ridgeline.service.client; "
        "print(*{'torch', 'sqlalchemy', 'optuna', 'sklearn', 'fastapi'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == ""
