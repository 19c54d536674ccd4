"""The composition root: settings in, objects out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from ridgeline.service import projection
from ridgeline.service.errors import Conflict, Unavailable
from ridgeline.service.settings import Settings
from ridgeline.service.store import migrate
from ridgeline.service.store.engine import parse_url, sqlite_file
from ridgeline.service.store.session import DatabaseClock, Store


def open_store(settings: Settings) -> Store:
    """The store of a database that has been migrated."""
    return Store(settings.resolved_database_url, clock=DatabaseClock(), project=projection.project)


def check_database(settings: Settings) -> None:
    """See whether there is a database of this version, and change nothing.

    Raises:
        InvalidInput: the URL is none that this service can use.
        Unavailable: the database cannot be reached, or there is none.
        Conflict: it is of another version.
    """
    text = settings.resolved_database_url
    url = parse_url(text, "RIDGELINE_DATABASE_URL")
    if (path := sqlite_file(url)) is not None and not path.exists():
        raise Unavailable(f"there is no database {path}")
    with _reached():
        if not migrate.is_current(text):
            raise Conflict("the database is not of this version: run `ridgeline migrate` first")


@contextmanager
def _reached() -> Iterator[None]:
    try:
        yield
    except DBAPIError as exc:
        raise Unavailable(f"the database cannot be used: {exc.orig}") from exc


def migrate_database(settings: Settings) -> None:
    """Create or upgrade the schema, ours and Optuna's; safe to call from several processes.

    Raises:
        InvalidInput: the URL is none that this service can use.
        Unavailable: the database cannot be reached.
        Conflict: it holds the tables of another version of Optuna, or is newer than this program.
    """
    url = settings.resolved_database_url
    parse_url(url, "RIDGELINE_DATABASE_URL")
    try:
        with _reached():
            migrate.upgrade(url, prepare=projection.prepare)
    except RuntimeError as exc:
        raise Conflict(str(exc)) from exc
