"""Requests that wait for runs to start, answered as soon as there are some.

Workers and programs wait in the event loop, none of them in a thread.  Those that wait for trials
of one study stand in a queue: its first asks, and the next one once that has been served.  So a
trial that becomes free is looked for once, not by all, and those that came first get it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from time import monotonic
from typing import TypeVar
from weakref import WeakValueDictionary

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from ridgeline.service import metrics
from ridgeline.service.store.session import Audience

_Answer = TypeVar("_Answer")


class Arrivals:
    """Wakes requests of this process; those that other processes answer are not told."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: defaultdict[Audience, list[Listener]] = defaultdict(list)
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def tell(self, audiences: Collection[Audience]) -> None:
        """They may find runs to start now; call it from any thread, once that is committed."""
        with self._lock:
            for audience in audiences:
                for listener in self._listeners.get(audience, ()):
                    listener.wake()
                    if audience is not None:
                        break  # the next one is woken by the first, when it leaves

    def num_listening(self, audience: Audience) -> int:
        """How many requests wait, or ask before they would wait."""
        with self._lock:
            return len(self._listeners.get(audience, ()))

    async def answer(
        self,
        request: Request,
        ask: Callable[[], _Answer],
        *,
        audience: Audience,
        is_final: Callable[[_Answer], bool],
        seconds: float,
        look_again_seconds: float,
    ) -> _Answer | None:
        """What `ask` answers, asked again with each arrival until that is final or time is up.

        Args:
            ask: runs in another thread.
            audience: whose runs are waited for.
            seconds: how long to wait for a final answer.
            look_again_seconds: it is asked this often at least, since other processes tell nothing.

        Returns None where nobody is there any more to take the answer.
        """
        if seconds <= 0:
            return await self._ask(ask, audience)
        waits_until = monotonic() + seconds
        with self._listening(audience) as listener:
            while True:
                answer = await self._ask(ask, audience)
                left = waits_until - monotonic()
                if is_final(answer) or left <= 0:
                    return answer
                pause = min(left, look_again_seconds) if self._is_asking(listener) else left
                if not await listener.next(pause) and pause == left:
                    return answer
                if await request.is_disconnected():
                    return None

    async def _ask(self, ask: Callable[[], _Answer], audience: Audience) -> _Answer:
        async with self._turn_to_ask(audience):
            return await run_in_threadpool(ask)

    @asynccontextmanager
    async def _turn_to_ask(self, audience: Audience) -> AsyncIterator[None]:
        """Requests for trials of one study ask one at a time: others would wait in their threads.

        Those threads are few, and every other request needs one.
        """
        if audience is None:
            yield
            return
        lock = self._asking.setdefault(audience, asyncio.Lock())
        began = monotonic()
        async with lock:
            metrics.LOCK_WAIT_SECONDS.labels("queue").observe(monotonic() - began)
            yield

    def _is_asking(self, listener: Listener) -> bool:
        """Whether nobody before it asks for it."""
        with self._lock:
            return listener.audience is None or self._listeners[listener.audience][0] is listener

    @contextmanager
    def _listening(self, audience: Audience) -> Iterator[Listener]:
        """Hear of every `tell` from now on; in an event loop."""
        listener = Listener(audience)
        with self._lock:
            self._listeners[audience].append(listener)
        try:
            yield listener
        finally:
            with self._lock:
                others = self._listeners[audience]
                others.remove(listener)
                if not others:
                    del self._listeners[audience]
                elif audience is not None:
                    others[0].wake()


class Listener:
    """What one request hears."""

    def __init__(self, audience: Audience) -> None:
        self.audience = audience
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
