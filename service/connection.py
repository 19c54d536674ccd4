"""Calls over HTTP that may be repeated, and the errors they end in.

ClientError
├── ApiError       the service said no; carries its status, title, detail and (field, reason) pairs
└── Unreachable    no answer came, after a few quick repetitions

A GET may be repeated by nature, others by their Idempotency-Key.  So a lost connection is tried
again at once, a few times, with the same key.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ValidationError

from ridgeline.search.problems import told
from ridgeline.service.file_headers import DIGEST, MEDIA_TYPE, digest_header
from ridgeline.service.network import proxy_for, tls_context

RETRY_DELAYS_SECONDS = (0.1, 0.4, 1.5)
"""Waits before repeating a call whose connection failed; long enough for an api to restart."""

_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
_READY_TIMEOUT_SECONDS = 5.0

_KEY = "Idempotency-Key"

_Model = TypeVar("_Model", bound=BaseModel)


class ClientError(Exception):
    """Base of what calls raise; its text is one line."""


class ApiError(ClientError):
    """An answer that is not a success; `problems` are (field path, reason) pairs.

    What the service would refuse with 422 for certain is refused so before it is sent.
    """

    def __init__(
        self, status: int, title: str, detail: str, problems: Sequence[tuple[str, str]] = ()
    ) -> None:
        self.status = status
        self.title = title
        self.detail = detail
        self.problems = list(problems)
        super().__init__(_one_line(told(self.problems) or detail or title) + f" (HTTP {status})")


class Unreachable(ClientError):
    """The service did not answer."""


class Connection:
    """The way to one service; `ridgeline.service.client.Client` explains the arguments.

    Raises:
        ValueError: the URL or the token cannot be one.
        InvalidEnvironment: nor a variable that names a proxy or certificates; a ValueError too.
    """

    def __init__(
        self,
        url: str,
        token: str | None,
        *,
        retry_delays_seconds: Sequence[float],
        transport: httpx.BaseTransport | None,
    ) -> None:
        host_of(url)
        if token is not None and not (token.isascii() and token.isprintable()):
            raise ValueError("the token has characters that no token has")
        self.url = url.rstrip("/")
        self._retry_delays_seconds = tuple(retry_delays_seconds)
        self._proxy = proxy_for(self.url)
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=_TIMEOUT,
            transport=transport,
            proxy=None if self._proxy is None else self._proxy.proxy,
            verify=tls_context() if self.url.startswith("https:") else True,
            trust_env=False,  # `ridgeline.service.network` reads the environment
        )

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, params: Mapping[str, str | int] | None = None) -> httpx.Response:
        return self._send(self._http.build_request("GET", path, params=params))

    def post(
        self,
        path: str,
        body: BaseModel | Mapping[str, Any] | None,
        *,
        idempotency_key: str | None,
    ) -> httpx.Response:
        """Without a key, the call must be one that may be repeated as it is."""
        headers = {"Content-Type": "application/json"}
        if idempotency_key is not None:
            headers[_KEY] = _header_value(idempotency_key)
        if isinstance(body, BaseModel):
            content = body.model_dump_json()
        else:
            content = json.dumps(body or {}, allow_nan=False)
        return self._send(self._http.build_request("POST", path, headers=headers, content=content))

    def delete(self, path: str, *, idempotency_key: str) -> httpx.Response:
        """Delete what is there, whatever it looks like by now."""
        headers = {"If-Match": "*", _KEY: idempotency_key}
        return self._send(self._http.build_request("DELETE", path, headers=headers))

    def put_file(
        self, path: str, params: Mapping[str, str | int], content: bytes
    ) -> httpx.Response:
        """Send a file; the call must be one that may be repeated."""
        headers = {"Content-Type": MEDIA_TYPE, DIGEST: _digest_of(content)}
        return self._send(
            self._http.build_request("PUT", path, params=params, headers=headers, content=content)
        )

    def get_file(
        self, path: str, params: Mapping[str, str | int], number_header: str
    ) -> tuple[int, bytes]:
        """A file, and the number in a header beside it.

        Raises:
            Unreachable: it arrived with another content than it was sent with.
        """
        answer = self.get(path, params)
        number = answer.headers.get(number_header, "")
        if not number.isdecimal():
            raise _not_ridgeline(answer)
        if answer.headers.get(DIGEST) != _digest_of(answer.content):
            raise Unreachable(f"what {self.url} sent was damaged on the way")
        return int(number), answer.content

    def why_not_ready(self) -> str | None:
        """Why GET /readyz, asked once, does not say that the service is; None: it is.

        An empty text where no answer comes.
        """
        try:
            answer = self._http.get("/readyz", timeout=_READY_TIMEOUT_SECONDS)
        except httpx.TransportError:
            return ""
        return None if answer.is_success else _api_error(answer).detail

    def events(self, path: str, after: int) -> Iterator[dict[str, str]]:
        """Server-sent events past the id `after`, as fields; a stream that breaks is taken up
        again where it broke, without end: the caller knows which event is the last.
        """
        while True:
            headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
            answer = self._send(self._http.build_request("GET", path, headers=headers), stream=True)
            try:
                for event in _server_sent_events(answer.iter_lines()):
                    after = int(event["id"])
                    yield event
            except httpx.TransportError:
                pass
            finally:
                answer.close()
            time.sleep(self._retry_delays_seconds[0] if self._retry_delays_seconds else 0)

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

    def _unreachable(self, exc: httpx.TransportError) -> Unreachable:
        if isinstance(exc, httpx.ReadTimeout):
            return Unreachable(f"{self.url} did not answer in {_TIMEOUT.read:g} seconds")
        reason = _one_line(str(exc)) or type(exc).__name__
        through = "" if self._proxy is None else f" through {self._proxy}"
        return Unreachable(f"cannot reach {self.url}{through}: {reason}; is the service running?")


def _digest_of(content: bytes) -> str:
    return digest_header(hashlib.sha256(content).hexdigest())


def host_of(url: str) -> str:
    """The host of a service's URL.

    Raises:
        ValueError: it is not the URL of a service.
    """
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        httpx.URL(url)  # knows what else cannot be in one, such as control characters
        (parts.hostname or "").encode("idna")  # as sockets will
    except (ValueError, httpx.InvalidURL):  # brackets that do not match, a port beyond 65535
        is_url = False
    if not is_url:
        raise ValueError(f"{url!r} is not a URL such as http://127.0.0.1:8000")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(f"leave the path out of {url!r}; it ends after the port")
    return str(parts.hostname)


def _header_value(key: object) -> str:
    """The key, where a header can hold it; raises the `ApiError` that the service would answer."""
    if isinstance(key, str) and key and key.isascii() and key.isprintable():
        return key
    reason = "must be printable ASCII characters, one at least"
    raise ApiError(422, "Invalid input", f"{_KEY}: {reason}", [(_KEY, reason)])


def parsed(model: type[_Model], answer: httpx.Response) -> _Model:
    """The answer as a model; raises `ApiError` where it is none."""
    return _validated(model, fields(answer), answer)


def listed(model: type[_Model], answer: httpx.Response, key: str) -> list[_Model]:
    """The models in a list of the answer."""
    return [_validated(model, item, answer) for item in fields(answer).get(key, [])]


def fields(answer: httpx.Response) -> dict[str, Any]:
    """The answer as a JSON object; raises `ApiError` where it is none."""
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


def _may_succeed_later(answer: httpx.Response) -> bool:
    """Busy (503), or the first sending of this very request is still at work (409 in flight)."""
    return answer.status_code == 503 or (
        answer.status_code == 409 and "retry-after" in answer.headers
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


def _one_line(text: str) -> str:
    return " ".join(text.split())
