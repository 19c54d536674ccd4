"""Checkpoints on their way between a worker and the api, beside the worker's one call.

Sending and getting have a thread each, so that neither waits for the other, and `:sync` for none.
A checkpoint that cannot be sent is given up: the next one is newer.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue

from ridgeline.service.protocol import RunOrder
from ridgeline.service.worker.api import Api, CallFailed, made
from ridgeline.service.worker.messages import Checkpoint, Key, key_of

MAX_QUEUED_BYTES = 512 * 2**20
"""Of checkpoints that wait to be sent; past that the one that has waited longest is given up."""

RETRY_DELAYS_SECONDS = (0.5, 2.0, 5.0)
"""Waits before getting a checkpoint once more; its run waits for it meanwhile."""

_OVERTAKEN = (404, 409)
"""The run is not ours any more: nothing to complain about."""

_PASSING = (None, 408, 429, 503)

_log = logging.getLogger(__name__)


class Transfers:
    """The two threads, and what waits for them.

    Args:
        wake: called, from another thread, when `fetched` has something to tell.
        retry_delays_seconds: as `RETRY_DELAYS_SECONDS`.
    """

    def __init__(
        self,
        api: Api,
        wake: Callable[[], None],
        *,
        retry_delays_seconds: Sequence[float] = RETRY_DELAYS_SECONDS,
    ) -> None:
        self._api = api
        self._wake = wake
        self._retry_delays_seconds = retry_delays_seconds
        self._changed = threading.Condition()
        self._to_send: dict[int, tuple[str, Checkpoint]] = {}  # by run, in the order to be sent
        self._to_fetch: deque[tuple[str, RunOrder]] = deque()
        self._fetched: SimpleQueue[tuple[Key, Checkpoint | None]] = SimpleQueue()
        self._ending = threading.Event()
        self._is_failing = False
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for name, work in (("sending", self._send_all), ("getting", self._fetch_all))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Begin nothing more; what is on its way is not waited for."""
        self._ending.set()
        with self._changed:
            self._changed.notify_all()

    def send(self, worker_id: str, checkpoint: Checkpoint) -> None:
        """Send a checkpoint in its turn, instead of an older one of the run that still waits."""
        run, _ = checkpoint.key
        with self._changed:
            self._to_send[run] = worker_id, checkpoint
            num_bytes = sum(len(one.content) for _, one in self._to_send.values())
            while num_bytes > MAX_QUEUED_BYTES and len(self._to_send) > 1:
                _, given_up = self._to_send.pop(next(iter(self._to_send)))
                num_bytes -= len(given_up.content)
            self._changed.notify_all()

    def fetch(self, worker_id: str, order: RunOrder) -> None:
        """Get the checkpoint of a run, for `fetched` to tell."""
        with self._changed:
            self._to_fetch.append((worker_id, order))
            self._changed.notify_all()

    def fetched(self) -> list[tuple[Key, Checkpoint | None]]:
        """What was got since the last call; None of runs whose checkpoint could not be got."""
        found = []
        with suppress(Empty):
            while True:
                found.append(self._fetched.get_nowait())
        return found

    # ---- the two threads

    def _send_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._to_send or self._ending.is_set())
                if self._ending.is_set():
                    return
                worker_id, checkpoint = self._to_send.pop(next(iter(self._to_send)))
            sent = made(partial(self._api.put_checkpoint, worker_id, checkpoint))
            if not isinstance(sent, CallFailed):
                self._is_failing = False
            elif sent.status not in _OVERTAKEN:
                if not self._is_failing:
                    _log.warning("checkpoints cannot be sent, runs may start over: %s", sent)
                self._is_failing = True

    def _fetch_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._to_fetch or self._ending.is_set())
                if self._ending.is_set():
                    return
                worker_id, order = self._to_fetch.popleft()
            self._fetched.put((key_of(order), self._fetch(worker_id, order)))
            self._wake()

    def _fetch(self, worker_id: str, order: RunOrder) -> Checkpoint | None:
        get = partial(self._api.get_checkpoint, worker_id, order)
        for delay_seconds in self._retry_delays_seconds:
            got = made(get)
            if not isinstance(got, CallFailed) or got.status not in _PASSING:
                break
            if self._ending.wait(delay_seconds):
                return None
        else:
            got = made(get)
        if isinstance(got, CallFailed):
            _log.warning("run %d starts over; its checkpoint cannot be got: %s", order.run, got)
            return None
        return got
