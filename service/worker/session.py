"""When to call the api, with what, and what its answers and failures mean: no threads, no network.

unregistered ──Register──► registered ──Sync, over and over──► over
      ▲                        │ 404, 409: the api has given our runs to others
      └────────────────────────┘
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from ridgeline.search.tasks.registry import of_workers
from ridgeline.service import logs
from ridgeline.service.protocol import (
    FUNCTIONS,
    DatasetInfo,
    SyncRequest,
    SyncResponse,
    WorkerRegistered,
    WorkerRegistration,
)
from ridgeline.service.worker.api import CallFailed
from ridgeline.service.worker.backoff import backoff_seconds
from ridgeline.service.worker.holdings import Holdings

RETRY_CAP_SECONDS = 5.0
"""Well below the lease, so that an api that comes back finds its workers."""

ENDS_SECONDS = 0.5
"""At the latest after a call runs that have ended are told, though the api has no others."""

_LOST = (404, 409)
_PASSING = (408, 425, 429)
_NO_ACCESS = (401, 403)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Register:
    registration: WorkerRegistration


@dataclass(frozen=True)
class Sync:
    worker_id: str
    request: SyncRequest


Call = Register | Sync
Answer = WorkerRegistered | SyncResponse


class Session:
    """A worker's dealings with the api, one call at a time.

    Args:
        clock: monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        datasets: Sequence[DatasetInfo],
        holdings: Holdings,
        *,
        clock: Callable[[], float],
        random: Random,
    ) -> None:
        self._name = name
        self.datasets = self._told_datasets = tuple(datasets)
        """What the worker has; where that changes, the next statement says so."""
        self._holdings = holdings
        self._clock = clock
        self._random = random
        self._worker_id: str | None = None
        self._interval_seconds = 0.0
        self._last: SyncRequest | None = None
        self._call: Call | None = None
        self._called_at = self._next_at = clock()
        self._num_failures = 0
        self._trouble: Literal["silent", "lost"] | None = None
        self._leaving = False
        self.over = False
        """Whether there is nothing left to say."""
        self.fatal: str | None = None
        """Why the worker cannot go on, in one line for a person."""

    @property
    def worker_id(self) -> str | None:
        """As which the worker is registered now, if it is."""
        return self._worker_id

    @property
    def due_at(self) -> float:
        """When the next call is to be made; infinite while an answer is awaited."""
        if self._call is not None:
            return math.inf
        if self._num_failures > 0:
            return self._next_at
        if self._holdings.urgent:
            return -math.inf
        if self._holdings.has_ends:
            return min(self._next_at, self._called_at + ENDS_SECONDS)
        return self._next_at

    def next_call(self) -> Call | None:
        """The call to make now, if one is due; then `answered` or `failed` is to follow."""
        now = self._clock()
        if self.over or self.fatal is not None or now < self.due_at:
            return None
        if self._worker_id is None:
            self._call = Register(
                WorkerRegistration(
                    name=self._name,
                    devices=self._holdings.device_infos,
                    tasks=self._tasks(),
                    datasets=self.datasets,
                )
            )
        else:
            self._call = Sync(self._worker_id, self._request())
        self._called_at, self._next_at = now, now + self._interval_seconds
        return self._call

    def _tasks(self) -> tuple[str, ...]:
        """The names of those that one of the devices can train."""
        has_processes = {info.kind == FUNCTIONS for info in self._holdings.device_infos}
        return tuple(task.name for task in of_workers() if task.needs_process in has_processes)

    def _request(self) -> SyncRequest:
        """The statement, with the data sets where they are news; a repeated one stays as it was."""
        statement = self._holdings.statement()
        if self._last is None or self._last.sync_seq != statement.sync_seq:
            is_news = self.datasets != self._told_datasets
            datasets = self.datasets if is_news else None
            self._last = statement.model_copy(update={"datasets": datasets})
        return self._last

    def leave(self) -> None:
        """Give back all there is, as soon as the api hears of it."""
        self._leaving = True
        if self._worker_id is None:
            self.over = True
            return
        self._holdings.release_all()
        self._next_at = self._clock()

    def answered(self, answer: Answer) -> None:
        """Take in the answer to the call."""
        call, self._call = self._call, None
        if isinstance(answer, WorkerRegistered):
            devices = ", ".join(info.name for info in self._holdings.device_infos)
            _log.info("registered as worker %s (%s) with %s", answer.id, self._name, devices)
            logs.identify(worker=answer.id)
            assert isinstance(call, Register)
            self._worker_id = answer.id
            self._told_datasets = call.registration.datasets
            self._interval_seconds = answer.sync_interval_seconds
            self._next_at = self._clock()
            return
        assert isinstance(call, Sync)
        if call.request.datasets is not None:
            self._told_datasets = call.request.datasets
        if self._trouble == "silent":
            _log.info("the api answers again")
        self._trouble = None
        self._num_failures = 0
        self.over = call.request.leaving
        self._holdings.answered(answer)
        if self._holdings.waits_for_work and not call.request.waits_for_work:
            # The api keeps such a call until work arrives: nobody who posts some is to wait for the
            # next one.
            self._next_at = self._clock()

    def failed(self, failure: CallFailed) -> None:
        """Take in that the call failed: try again later, register again, or give up."""
        call, self._call = self._call, None
        status = failure.status
        if isinstance(call, Sync) and status in _LOST:
            self._enter("lost", "registering again, without the runs held: %s", failure)
            self._worker_id = None
            self._holdings.drop_all()
            self.over = self._leaving
        elif status in _NO_ACCESS:
            self.fatal = (
                f"the api refuses this worker: {failure}; it needs a token with the scope worker, "
                "in RIDGELINE_TOKEN or RIDGELINE_TOKEN_FILE"
            )
        elif status is not None and 400 <= status < 500 and status not in _PASSING:
            self.fatal = f"the api does not understand this worker: {failure}"
        else:
            self._enter("silent", "no answer from the api; trying on: %s", failure)
        # Counted until a statement is taken, so that an api that registers a worker only to
        # disown it is not called in a tight loop.
        self._num_failures += 1
        self._next_at = self._clock() + backoff_seconds(
            self._num_failures, self._random, cap_seconds=RETRY_CAP_SECONDS
        )

    def _enter(self, trouble: Literal["silent", "lost"], message: str, failure: CallFailed) -> None:
        """Log a change for the worse, once."""
        if self._trouble != trouble:
            _log.warning(message, failure)
        self._trouble = trouble
