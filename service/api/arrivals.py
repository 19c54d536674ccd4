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
        self._listeners: set[Listener] = set()

    def tell(self) -> None:
        """There may be runs to start now; call it from any thread, once that is committed."""
        with self._lock:
            for listener in self._listeners:
                listener.wake()

    @contextmanager
    def listening(self) -> Iterator[Listener]:
        """Hear of every `tell` from now on; in an event loop."""
        listener = Listener()
        with self._lock:
            self._listeners.add(listener)
        try:
            yield listener
        finally:
            with self._lock:
                self._listeners.discard(listener)


class Listener:
    """What one request hears."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def wake(self) -> None:
        """Work has arrived; call it from any thread."""
        self._loop.call_soon_threadsafe(self._event.set)

    async def next(self, seconds: float) -> bool:
        """Wait for what has arrived since the last call; False where nothing comes in time."""
        try:
            await asyncio.wait_for(self._event.wait(), seconds)
        except TimeoutError:
            return False
        self._event.clear()
        return True
