"""The api as a worker sees it: two calls, and one way for them to fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from ridgeline.service.client import ApiError, Client, Unreachable
from ridgeline.service.protocol import (
    SyncRequest,
    SyncResponse,
    WorkerRegistered,
    WorkerRegistration,
)


class CallFailed(Exception):
    """A call that was not answered as it should be; `status` is None where nobody was reached."""

    def __init__(self, status: int | None, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Api(Protocol):
    """What a worker calls; both methods raise `CallFailed`."""

    def register_worker(self, registration: WorkerRegistration) -> WorkerRegistered: ...
    def sync(self, worker_id: str, request: SyncRequest) -> SyncResponse: ...


class HttpApi:
    """The api over HTTP; turns the client's errors into `CallFailed`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def register_worker(self, registration: WorkerRegistration) -> WorkerRegistered:
        with _client_errors():
            return self._client.register_worker(registration)

    def sync(self, worker_id: str, request: SyncRequest) -> SyncResponse:
        with _client_errors():
            return self._client.sync(worker_id, request)


@contextmanager
def _client_errors() -> Iterator[None]:
    try:
        yield
    except ApiError as exc:
        raise CallFailed(exc.status, str(exc)) from exc
    except Unreachable as exc:
        raise CallFailed(None, str(exc)) from exc
