"""The composition root: settings in, objects out."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError

from service import projection
from service.errors import Conflict, Unavailable
from service.settings import Settings
from service.store import migrate
from service.store.engine import parse_url
from service.store.session import DatabaseClock, Store


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
    parse_url(url, "RIDGELINE_DATABASE_URL")
    try:
        migrate.upgrade(url, prepare=projection.prepare)
    except DBAPIError as exc:
        raise Unavailable(f"the database cannot be used: {exc.orig}") from exc
    except RuntimeError as exc:
        raise Conflict(str(exc)) from exc
