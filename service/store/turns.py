"""Turns: threads get what they share one after the other, in the order in which they asked."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from ridgeline.service import metrics
from ridgeline.service.errors import Unavailable


class Turns:
    """Locks by key that are handed from thread to thread; thread-safe.

    The one who releases a lock gives it to whoever has waited longest, so that nobody who has just
    come can be faster.  Python's own locks, and SQLite's, make no such promise.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, deque[threading.Event]] = {}
        """By key, for each that somebody has."""

    @contextmanager
    def take(self, key: Hashable) -> Iterator[None]:
        """Have the lock for the block; it must not be taken again within.

        Raises:
            Unavailable: `timeout_seconds` have passed before it was free.
        """
        self._acquire(key)
        try:
            yield
        finally:
            self._hand_on(key)

    def num_waiting(self, key: Hashable) -> int:
        """How many wait for the lock now."""
        with self._lock:
            return len(self._waiting.get(key, ()))

    def _acquire(self, key: Hashable) -> None:
        my_turn = threading.Event()
        with self._lock:
            queue = self._waiting.get(key)
            if queue is None:
                self._waiting[key] = deque()
                return
            queue.append(my_turn)
        if my_turn.wait(self._timeout_seconds):
            return
        with self._lock:
            if my_turn.is_set():  # it came at the last moment
                return
            queue.remove(my_turn)
        metrics.DATABASE_ERRORS.labels("turn").inc()
        raise Unavailable("too many others write to the database now; try again in a moment")

    def _hand_on(self, key: Hashable) -> None:
        with self._lock:
            queue = self._waiting[key]
            if queue:
                queue.popleft().set()
            else:
                del self._waiting[key]
