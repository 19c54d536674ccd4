"""The typed client: one method per call of the API, for people's programs, the CLI and workers.

ClientError
├── ApiError       the service said no; carries its status, title, detail and (field, reason) pairs
└── Unreachable    no answer came, after a few quick repetitions

Every call may be repeated safely: a GET and a `:sync` by nature, other POSTs by an
Idempotency-Key.  So a lost connection is tried again at once, a few times, with the same key.
"""

from __future__ import annotations

import ipaddress
import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from pydantic import BaseModel, ValidationError

from search.space import Config
from search.spec import StudySpec
from service.lifecycle import StudyState, TrialState
from service.protocol import SyncRequest, SyncResponse, WorkerRegistered, WorkerRegistration
from service.resources import (
    CompleteRequest,
    Dataset,
    EnqueueRequest,
    Event,
    ReportRequest,
    Study,
    SuggestRequest,
    SuggestResponse,
    TaskInfo,
    Trial,
    TrialWithHistory,
    Worker,
)

RETRY_DELAYS_SECONDS = (0.1, 0.4, 1.5)
"""Waits before repeating a call whose connection failed; long enough for an api to restart."""

_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
_PAGE_SIZE = 500

_Model = TypeVar("_Model", bound=BaseModel)
_Method = Literal["GET", "POST"]


class ClientError(Exception):
    """Base of what calls raise; its text is one line."""


class ApiError(ClientError):
    """An answer that is not a success; `problems` are (field path, reason) pairs."""

    def __init__(
        self, status: int, title: str, detail: str, problems: Sequence[tuple[str, str]] = ()
    ) -> None:
        self.status = status
        self.title = title
        self.detail = detail
        self.problems = list(problems)
        named = "; ".join(f"{field}: {reason}" for field, reason in self.problems)
        super().__init__(_one_line(named or detail or title) + f" (HTTP {status})")


class Unreachable(ClientError):
    """The service did not answer."""


class Client:
    """A connection to one Ridgeline service; close it, or use it in a `with` block.

    Args:
        url: where the api listens, such as http://127.0.0.1:8000.
        token: `rl_<id>_<secret>`; not needed by a service that has no tokens.
        retry_delays_seconds: waits before each repetition after a failed connection.
        transport: replaces the network, for tests.

    Every method raises `ApiError` or `Unreachable`.

    Raises:
        ValueError: the URL or the token cannot be one.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        retry_delays_seconds: Sequence[float] = RETRY_DELAYS_SECONDS,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not a URL such as http://127.0.0.1:8000")
        if token is not None and not (token.isascii() and token.isprintable()):
            raise ValueError("the token has characters that no token has")
        self.url = url.rstrip("/")
        self._retry_delays_seconds = tuple(retry_delays_seconds)
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=_TIMEOUT,
            transport=transport,
            trust_env=not _is_loopback(parts.hostname),  # a proxy cannot reach our loopback
        )

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- studies ---------------------------------------------------------------------------------

    def create_study(
        self, spec: StudySpec | Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> Study:
        """Post a study; with the same key, posting it again gives the same study."""
        body = spec.model_dump(mode="json") if isinstance(spec, StudySpec) else dict(spec)
        answer = self._call("POST", "/v1/studies", body=body, idempotency_key=idempotency_key)
        return self._parsed(Study, answer)

    def study(self, name: str) -> Study:
        return self._parsed(Study, self._call("GET", _study_path(name)))

    def studies(self, *, state: StudyState | None = None) -> Iterator[Study]:
        """All studies, in the order of their creation, page by page."""
        return self._pages("/v1/studies", "studies", Study, state=state)

    def pause(self, name: str) -> Study:
        return self._verb(name, "pause")

    def resume(self, name: str) -> Study:
        return self._verb(name, "resume")

    def stop(self, name: str) -> Study:
        """Create no new trials; the running ones finish."""
        return self._verb(name, "stop")

    def cancel(self, name: str) -> Study:
        return self._verb(name, "cancel")

    def best(self, name: str) -> Trial:
        return self._parsed(Trial, self._call("GET", f"{_study_path(name)}/best"))

    def export(self, name: str) -> str:
        """The study's trials as CSV."""
        return self._call("GET", f"{_study_path(name)}/export").text

    def events(self, name: str, *, after: int = 0) -> Iterator[Event]:
        """What changes in a study from revision `after` on, live, until the study is closed.

        A stream that breaks is taken up again where it broke.
        """
        while True:
            for event in self._stream(name, after):
                if event["type"] == "end":
                    return
                after = int(event["id"])
                yield Event.model_validate({**event, "data": json.loads(event["data"])})
            time.sleep(self._retry_delays_seconds[0] if self._retry_delays_seconds else 0)

    # -- trials ----------------------------------------------------------------------------------

    def trials(self, study: str, *, state: TrialState | None = None) -> Iterator[Trial]:
        """The trials of a study in the order of their numbers, page by page."""
        return self._pages(f"{_study_path(study)}/trials", "trials", Trial, state=state)

    def trial(self, study: str, number: int) -> TrialWithHistory:
        path = f"{_study_path(study)}/trials/{number}"
        return self._parsed(TrialWithHistory, self._call("GET", path))

    def enqueue(self, study: str, configs: Iterable[Config]) -> list[Trial]:
        """Trials to try next, before the sampler is asked."""
        body = EnqueueRequest(configs=tuple(configs))
        answer = self._call("POST", f"{_study_path(study)}/trials:enqueue", body=body)
        return self._listed(answer, "trials", Trial)

    def suggest(
        self, study: str, *, count: int = 1, lease_seconds: float = 3_600.0
    ) -> SuggestResponse:
        """Trials for your own program to train; report on each within its lease."""
        body = SuggestRequest(count=count, lease_seconds=lease_seconds)
        answer = self._call("POST", f"{_study_path(study)}/trials:suggest", body=body)
        return self._parsed(SuggestResponse, answer)

    def report(
        self, study: str, number: int, *, attempt: int, epoch: int, metrics: Mapping[str, float]
    ) -> Trial:
        body = ReportRequest(attempt=attempt, epoch=epoch, metrics=dict(metrics))
        answer = self._call("POST", f"{_study_path(study)}/trials/{number}:report", body=body)
        return self._parsed(Trial, answer)

    def complete(self, study: str, number: int, request: CompleteRequest) -> Trial:
        path = f"{_study_path(study)}/trials/{number}:complete"
        return self._parsed(Trial, self._call("POST", path, body=request))

    # -- what there is ---------------------------------------------------------------------------

    def tasks(self) -> list[TaskInfo]:
        return list(self._pages("/v1/tasks", "tasks", TaskInfo))

    def datasets(self) -> list[Dataset]:
        return list(self._pages("/v1/datasets", "datasets", Dataset))

    def workers(self) -> list[Worker]:
        return list(self._pages("/v1/workers", "workers", Worker))

    def is_ready(self) -> bool:
        """Whether the service answers and its database does; tried once."""
        try:
            return self._http.get("/readyz", timeout=2.0).is_success
        except httpx.TransportError:
            return False

    # -- workers ---------------------------------------------------------------------------------

    def register_worker(self, registration: WorkerRegistration) -> WorkerRegistered:
        return self._parsed(WorkerRegistered, self._call("POST", "/v1/workers", body=registration))

    def sync(self, worker_id: str, request: SyncRequest) -> SyncResponse:
        """State what a worker holds; its `sync_seq` makes a repetition harmless."""
        path = f"/v1/workers/{quote(worker_id, safe='')}:sync"
        return self._parsed(SyncResponse, self._call("POST", path, body=request))

    # -- the call itself -------------------------------------------------------------------------

    def _verb(self, name: str, verb: str) -> Study:
        return self._parsed(Study, self._call("POST", f"{_study_path(name)}:{verb}"))

    def _pages(
        self, path: str, key: str, model: type[_Model], *, state: str | None = None
    ) -> Iterator[_Model]:
        params: dict[str, str | int] = {"page_size": _PAGE_SIZE}
        if state is not None:
            params["state"] = state
        while True:
            answer = self._call("GET", path, params=params)
            yield from self._listed(answer, key, model)
            token = _json(answer).get("next_page_token")
            if token is None:
                return
            params["page_token"] = token

    def _listed(self, answer: httpx.Response, key: str, model: type[_Model]) -> list[_Model]:
        return [_validated(model, item, answer) for item in _json(answer).get(key, [])]

    def _parsed(self, model: type[_Model], answer: httpx.Response) -> _Model:
        return _validated(model, _json(answer), answer)

    def _call(
        self,
        method: _Method,
        path: str,
        *,
        body: BaseModel | Mapping[str, Any] | None = None,
        params: Mapping[str, str | int] | None = None,
        idempotency_key: str | None = None,
    ) -> httpx.Response:
        headers = {}
        if method == "POST" and not path.endswith(":sync"):
            headers["Idempotency-Key"] = idempotency_key or str(uuid.uuid4())
        content = None
        if method == "POST":
            headers["Content-Type"] = "application/json"
            content = _encode(body)
        request = self._http.build_request(
            method, path, params=params, headers=headers, content=content
        )
        return self._send(request)

    def _send(self, request: httpx.Request, *, stream: bool = False) -> httpx.Response:
        """Send a request that may be repeated; returns a success, of a stream its beginning."""
        for delay_seconds in (*self._retry_delays_seconds, None):
            try:
                answer = self._http.send(request, stream=stream)
                if answer.is_success:
                    return answer
                answer.read()
            except httpx.TransportError as exc:
                if delay_seconds is None or isinstance(exc, httpx.ReadTimeout):
                    raise self._unreachable(exc) from exc
            else:
                if delay_seconds is None or not _may_succeed_later(answer):
                    raise _api_error(answer)
            time.sleep(delay_seconds)
        raise AssertionError("the last repetition returns or raises")

    def _stream(self, name: str, after: int) -> Iterator[dict[str, str]]:
        """One connection's events; ends where the server ends it or the connection breaks."""
        request = self._http.build_request(
            "GET",
            f"{_study_path(name)}/events",
            headers={"Accept": "text/event-stream", "Last-Event-ID": str(after)},
        )
        answer = self._send(request, stream=True)
        try:
            yield from _server_sent_events(answer.iter_lines())
        except httpx.TransportError:
            return
        finally:
            answer.close()

    def _unreachable(self, exc: httpx.TransportError) -> Unreachable:
        if isinstance(exc, httpx.ReadTimeout):
            return Unreachable(f"{self.url} did not answer in {_TIMEOUT.read:g} seconds")
        reason = _one_line(str(exc)) or type(exc).__name__
        return Unreachable(f"cannot reach {self.url}: {reason}; is the service running?")


def _study_path(name: str) -> str:
    return f"/v1/studies/{quote(name, safe='')}"


def _encode(body: BaseModel | Mapping[str, Any] | None) -> bytes:
    if body is None:
        return b"{}"
    if isinstance(body, BaseModel):
        return body.model_dump_json().encode()
    return json.dumps(body, allow_nan=False).encode()


def _may_succeed_later(answer: httpx.Response) -> bool:
    """Busy (503), or the first sending of this very request is still at work (409 in flight)."""
    return answer.status_code == 503 or (
        answer.status_code == 409 and "retry-after" in answer.headers
    )


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        data = answer.json()
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise _not_ridgeline(answer)
    return data


def _validated(model: type[_Model], data: Any, answer: httpx.Response) -> _Model:
    try:
        return model.model_validate(data)
    except ValidationError as exc:
        raise _not_ridgeline(answer) from exc


def _not_ridgeline(answer: httpx.Response) -> ApiError:
    url = answer.request.url
    return ApiError(
        answer.status_code,
        "not understood",
        f"{url} gave an answer that this version of Ridgeline does not understand",
    )


def _api_error(answer: httpx.Response) -> ApiError:
    """The error that a problem+json answer (RFC 9457) tells."""
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {}
    errors = problem.get("errors")
    return ApiError(
        answer.status_code,
        str(problem.get("title") or answer.reason_phrase or "error"),
        str(problem.get("detail") or f"{answer.request.url} answered {answer.reason_phrase}"),
        [
            (str(error.get("field", "")), str(error.get("message", "")))
            for error in (errors if isinstance(errors, list) else [])
            if isinstance(error, dict)
        ],
    )


def _server_sent_events(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """Fields up to an empty line make an event; a line that begins with ':' is a comment.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
    """
    event = {"id": "", "type": "", "data": ""}
    for line in lines:
        field, _, value = line.partition(":")
        if field:
            event["type" if field == "event" else field] = value.removeprefix(" ")
        elif not line and event["data"]:
            yield event
            event = {"id": "", "type": "", "data": ""}


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _one_line(text: str) -> str:
    return " ".join(text.split())
