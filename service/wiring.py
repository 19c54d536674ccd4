"""The composition root: settings in, objects out."""

from __future__ import annotations

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from service import projection
from service.errors import Conflict, InvalidInput, Unavailable
from service.settings import Settings
from service.store import migrate
from service.store.session import DatabaseClock, Store

_DRIVERS = ("pysqlite", "psycopg")


def open_store(settings: Settings) -> Store:
    """The store of a database that has been migrated."""
    return Store(settings.resolved_database_url, clock=DatabaseClock(), project=projection.project)


def migrate_database(settings: Settings) -> None:
    """Create or upgrade the schema, ours and Optuna's; safe to call from several processes.

    Raises:
        InvalidInput: the URL is none that this service can use.
        Unavailable: the database cannot be reached.
        Conflict: it holds the tables of another version of Optuna.
    """
    url = settings.resolved_database_url
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if parsed is None or not parsed.database or parsed.get_driver_name() not in _DRIVERS:
        wanted = "must be like sqlite:///file or postgresql+psycopg://user:password@host/database"
        raise InvalidInput([("RIDGELINE_DATABASE_URL", wanted)])
    try:
        migrate.upgrade(url, prepare=projection.prepare)
    except DBAPIError as exc:
        raise Unavailable(f"the database cannot be used: {exc.orig}") from exc
    except RuntimeError as exc:
        raise Conflict(str(exc)) from exc
