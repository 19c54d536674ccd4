"""What the routes work with: one `Context` for each app."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends
from starlette.requests import Request

from ridgeline.search.tasks.data_root import DataRoot
from ridgeline.service.api.arrivals import Arrivals
from ridgeline.service.api.readiness import Readiness
from ridgeline.service.artifacts.base import ArtifactStore
from ridgeline.service.errors import RequestInFlight
from ridgeline.service.settings import Settings
from ridgeline.service.store.session import Store

PATIENCE_SECONDS = 3.0
"""How long an answer waits for folders of data that another request has begun to read."""


class InFlight:
    """Keys of the requests this process is answering now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: set[tuple[str, str]] = set()

    @contextmanager
    def hold(self, key: tuple[str, str]) -> Iterator[None]:
        """Keep the key for the block.

        Raises:
            RequestInFlight: another request has it.
        """
        with self._lock:
            if key in self._keys:
                raise RequestInFlight("a request with this Idempotency-Key is being answered now")
            self._keys.add(key)
        try:
            yield
        finally:
            with self._lock:
                self._keys.discard(key)


class LargeBodies:
    """The turns of requests with a large body, see `ridgeline.service.api.bodies`.

    Attributes:
        arriving: for those whose body arrives, waits or is in work; few, since each is in memory.
        in_work: for the one that is parsed and answered.
    """

    def __init__(self) -> None:
        self.arriving = asyncio.Semaphore(4)
        self.in_work = asyncio.Lock()


MAX_UPLOADS = 4
"""Files that arrive at once; each takes a thread, of which other requests need some."""


@dataclass(frozen=True)
class Context:
    settings: Settings
    store: Store
    artifacts: ArtifactStore
    local_datasets: DataRoot
    readiness: Readiness
    in_flight: InFlight = field(default_factory=InFlight)
    arrivals: Arrivals = field(default_factory=Arrivals)
    large_bodies: LargeBodies = field(default_factory=LargeBodies)
    uploads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_UPLOADS))


async def _context(request: Request) -> Context:
    return cast("Context", request.app.state.context)


Api = Annotated[Context, Depends(_context)]
