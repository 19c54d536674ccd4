"""A worker that a campaign drives call by call, and calls that are made at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from tests.chaos.rig import PATIENCE_SECONDS

DATASET = {
    "name": "by-hand",
    "fingerprint": "ab" * 32,
    "num_rows": 1797,
    "num_features": 64,
    "num_classes": 10,
    "has_test_part": False,
}
"""That no other worker has: the runs of its studies are for these."""

NOT_NOW = 503

_T = TypeVar("_T")


def connect(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=PATIENCE_SECONDS)


class HandWorker:
    """A registered worker with one device."""

    def __init__(
        self, http: httpx.Client, *, num_slots: int = 1, dataset: dict[str, Any] | None = None
    ) -> None:
        self._http = http
        self._seq = 0
        device = {"name": "cpu:0", "kind": "cpu", "description": "CPU", "num_slots": num_slots}
        body = {
            "name": "by hand",
            "devices": [device],
            "tasks": ["mlp"],
            "datasets": [DATASET if dataset is None else dataset],
        }
        answer = http.post("/v1/workers", json=body)
        answer.raise_for_status()
        self.id: str = answer.json()["id"]

    def statement(self, **parts: Any) -> dict[str, Any]:
        """The next statement."""
        self._seq += 1
        return {"sync_seq": self._seq, **parts}

    def send(self, statement: dict[str, Any], through: httpx.Client | None = None) -> Any:
        return (through or self._http).post(f"/v1/workers/{self.id}:sync", json=statement)

    def take(self, count: int) -> list[dict[str, Any]]:
        """Runs that it is given."""
        answer = self.send(self.statement(free_slots={"cpu:0": count}))
        answer.raise_for_status()
        orders: list[dict[str, Any]] = answer.json()["start"]
        return orders


class Crowd:
    """Threads that do one thing each at the same moment."""

    def __init__(self, size: int) -> None:
        self._pool = ThreadPoolExecutor(size)

    def at_once(self, works: Sequence[Callable[[], _T]]) -> list[_T]:
        """What each came to, in their order."""
        barrier = threading.Barrier(len(works))

        def start(work: Callable[[], _T]) -> _T:
            barrier.wait()
            return work()

        return list(self._pool.map(start, works))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown()


class Callers:
    """A connection for each caller, in turn to each of the apis at `urls`."""

    def __init__(self, stack: ExitStack, urls: Sequence[str], size: int) -> None:
        self.https = [
            stack.enter_context(connect(urls[index % len(urls)])) for index in range(size)
        ]
        self.crowd = stack.enter_context(Crowd(size))
