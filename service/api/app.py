"""The HTTP API: one app from its parts."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import anyio.to_thread
from fastapi import FastAPI

from ridgeline.search import samplers
from ridgeline.search.tasks.data_root import DataRoot
from ridgeline.search.tasks.registry import log_left_out
from ridgeline.service import checkpoints, comparisons, noting, wiring, workers
from ridgeline.service.api import openapi, problems, status_page
from ridgeline.service.api.context import Context
from ridgeline.service.api.dashboard import Dashboard
from ridgeline.service.api.middleware import Edge
from ridgeline.service.api.readiness import Readiness
from ridgeline.service.api.routes import catalog, docs, health, metrics, studies, tokens, trials
from ridgeline.service.api.routes import checkpoints as checkpoint_routes
from ridgeline.service.api.routes import comparisons as comparison_routes
from ridgeline.service.api.routes import reports as report_routes
from ridgeline.service.api.routes import workers as worker_routes
from ridgeline.service.artifacts.base import ArtifactStore
from ridgeline.service.settings import Settings
from ridgeline.service.store.session import Store
from ridgeline.service.timekeeping import Timekeeper

log = logging.getLogger(__name__)

MAINTENANCE_SECONDS = 1.0
"""How often runs of silent workers are looked for, and arms of comparisons that can go on."""

SWEEP_SECONDS = 5.0
"""How often files to delete are looked for."""


def create_app(settings: Settings, store: Store) -> FastAPI:
    """The app that serves `store`; it does not close it.

    While its lifespan lasts, a thread takes back the runs of workers that fell silent, and another
    one deletes files that are not needed any more.

    Raises:
        InvalidInput: the artifact store cannot be one.
    """
    context = Context(
        settings,
        store,
        wiring.open_artifacts(settings),
        DataRoot(settings.data_root),
        Readiness(settings, store),
    )
    store.tell_of_offers(context.arrivals.tell)
    dashboard = Dashboard(context)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        stopping = threading.Event()
        timekeeper = Timekeeper(settings.lease_seconds)
        store.tell_of_time(timekeeper.saw)
        # Before anybody is served: a clock that is set from now on is noticed.
        with suppress(Exception):  # maintenance meets it again, and tells it
            await anyio.to_thread.run_sync(timekeeper.keep, store)
        maintenance = threading.Thread(
            target=maintain, args=(store, stopping, timekeeper), name="maintenance", daemon=True
        )
        maintenance.start()
        log_left_out()
        # Its own thread: an artifact store may take its time, and leases are not to wait for it.
        sweeping = threading.Thread(
            target=sweep, args=(store, context.artifacts, stopping), name="sweeping", daemon=True
        )
        sweeping.start()
        # Ahead, so that the first request for a data set, and the first study, need not wait.
        threading.Thread(target=context.local_datasets.look, daemon=True).start()
        threading.Thread(target=samplers.prepare, daemon=True).start()
        async with dashboard.running():
            yield
        stopping.set()
        maintenance.join()
        sweeping.join(1.0)  # it may be at a file, and what it leaves is found later

    app = FastAPI(
        title="Ridgeline",
        summary="A hyperparameter-search service",
        description=openapi.DESCRIPTION,
        version="1",
        openapi_tags=openapi.TAGS,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.context = context
    of_searches = (studies, trials, comparison_routes, report_routes)
    of_workers = (catalog, worker_routes, checkpoint_routes)
    for module in (*of_searches, *of_workers, tokens, health, metrics, docs):
        app.include_router(module.router)
    app.include_router(dashboard.router)
    app.include_router(status_page.router(context))
    app.add_middleware(Edge, allowed_hosts=settings.allowed_hosts)
    problems.install(app)
    openapi.install(app)
    return app


def maintain(store: Store, stopping: threading.Event, timekeeper: Timekeeper) -> None:
    """Expire leases every `MAINTENANCE_SECONDS` until told to stop, whatever goes wrong.

    Comparisons go on here too: the winners of searches that have ended are trained again,
    and the notes of their studies are written that have a table of the arms.
    A lease counts only while its holder can renew it: after a start, and after a time without the
    database, everybody gets a whole lease to call again.
    """

    def look() -> None:
        try:
            now = timekeeper.keep(store)
            if now is not None:
                workers.expire(store, by=now)
        except Exception:
            timekeeper.lose_sight()
            raise
        comparisons.advance_all(store)
        noting.bring_up_to_date(store)

    _repeat(look, stopping, MAINTENANCE_SECONDS, complaint="maintenance fails")


def sweep(store: Store, artifacts: ArtifactStore, stopping: threading.Event) -> None:
    """Delete files that are not needed any more until told to stop, whatever goes wrong."""

    def look() -> None:
        while checkpoints.sweep(store, artifacts) and not stopping.is_set():
            pass

    _repeat(look, stopping, SWEEP_SECONDS, complaint="files cannot be deleted")


def _repeat(
    action: Callable[[], None], stopping: threading.Event, seconds: float, *, complaint: str
) -> None:
    """Do it every so many seconds until told to stop; of failures in a row, the first is told."""
    is_failing = False
    while not stopping.wait(seconds):
        try:
            action()
            is_failing = False
        except Exception:
            if not is_failing:
                log.exception("%s; it is tried again until it succeeds", complaint)
            is_failing = True
