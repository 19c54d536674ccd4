"""Work that arrives, told at once to the workers that wait for some."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Arrivals:
    """Wakes requests of this process; those that other processes answer are not told."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[Arrival] = set()

    def tell(self) -> None:
        """There may be runs to start now; call it from any thread, once that is committed."""
        with self._lock:
            for arrival in self._waiting:
                arrival.come()

    @contextmanager
    def listening(self) -> Iterator[Arrival]:
        """Hear of every `tell` from now on; in an event loop."""
        arrival = Arrival()
        with self._lock:
            self._waiting.add(arrival)
        try:
            yield arrival
        finally:
            with self._lock:
                self._waiting.discard(arrival)


class Arrival:
    """What one request waits for."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def come(self) -> None:
        """Wake whoever waits, from any thread."""
        self._loop.call_soon_threadsafe(self._event.set)

    async def within(self, seconds: float) -> bool:
        """Wait for it; False where it has not come in time."""
        try:
            await asyncio.wait_for(self._event.wait(), seconds)
        except TimeoutError:
            return False
        return True
