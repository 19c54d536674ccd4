"""The api as a worker sees it: its calls, and one way for them to fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from ridgeline.service.client import ApiError, Client, Unreachable
from ridgeline.service.protocol import (
    RunOrder,
    SyncRequest,
    SyncResponse,
    WorkerRegistered,
    WorkerRegistration,
)
from ridgeline.service.worker.messages import Checkpoint, key_of

_Answer = TypeVar("_Answer")


class CallFailed(Exception):
    """A call that was not answered as it should be; `status` is None where nobody was reached."""

    def __init__(self, status: int | None, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def made(call: Callable[[], _Answer]) -> _Answer | CallFailed:
    """The answer to a call, or how it failed.

    Whatever it raises is a failure: left alone, it would end the thread that makes the call.
    """
    try:
        return call()
    except CallFailed as exc:
        return exc
    except Exception as exc:
        return CallFailed(None, f"{type(exc).__name__}: {exc}")


class Api(Protocol):
    """What a worker calls; all methods raise `CallFailed`, and may be called from any thread."""

    def register_worker(self, registration: WorkerRegistration) -> WorkerRegistered: ...
    def sync(self, worker_id: str, request: SyncRequest) -> SyncResponse: ...
    def put_checkpoint(self, worker_id: str, checkpoint: Checkpoint) -> None: ...
    def get_checkpoint(self, worker_id: str, order: RunOrder) -> Checkpoint: ...


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

    def put_checkpoint(self, worker_id: str, checkpoint: Checkpoint) -> None:
        run, attempt = checkpoint.key
        with _client_errors():
            self._client.put_checkpoint(
                worker_id,
                run,
                attempt=attempt,
                epoch=checkpoint.epoch,
                program=checkpoint.program,
                content=checkpoint.content,
            )

    def get_checkpoint(self, worker_id: str, order: RunOrder) -> Checkpoint:
        assert order.checkpoint is not None
        with _client_errors():
            epoch, content = self._client.get_checkpoint(
                worker_id, order.run, attempt=order.attempt
            )
        return Checkpoint(key_of(order), epoch, order.checkpoint.program, content)


@contextmanager
def _client_errors() -> Iterator[None]:
    try:
        yield
    except ApiError as exc:
        raise CallFailed(exc.status, str(exc)) from exc
    except Unreachable as exc:
        raise CallFailed(None, str(exc)) from exc
