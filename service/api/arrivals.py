"""Work that arrives, told at once to the workers that wait for some."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

_Answer = TypeVar("_Answer")


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

    async def answer(
        self,
        request: Request,
        ask: Callable[[], _Answer],
        *,
        is_final: Callable[[_Answer], bool],
        seconds: float,
        look_again_seconds: float,
    ) -> _Answer | None:
        """What `ask` answers, asked again with each arrival until that is final or time is up.

        Args:
            ask: runs in another thread.
            seconds: how long to wait for a final answer.
            look_again_seconds: it is asked this often at least, since other processes tell nothing.

        Returns None where nobody is there any more to take the answer.
        """
        with self.listening() as arrivals:
            answer = await run_in_threadpool(ask)
            waits_until = monotonic() + seconds
            while not is_final(answer) and (left := waits_until - monotonic()) > 0:
                has_arrived = await arrivals.next(min(left, look_again_seconds))
                if not has_arrived and left <= look_again_seconds:
                    break
                if await request.is_disconnected():
                    return None
                answer = await run_in_threadpool(ask)
            return answer

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
