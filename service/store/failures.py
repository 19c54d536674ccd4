"""What the errors of the database mean, for whoever has called."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ridgeline.service import metrics
from ridgeline.service.errors import Unavailable
from ridgeline.service.store.copies import copies
from ridgeline.service.store.engine import sqlite_file
from ridgeline.service.store.room import why_no_room

log = logging.getLogger(__name__)

LACKS_SCHEMA = "the database lacks this version's schema: run `ridgeline migrate`"

_UNDEFINED = ("42P01", "42703")
"""PostgreSQL's codes of a table and of a column that there is not."""

_DISK_FULL = "53100"
"""PostgreSQL's code of a full disk."""


@contextmanager
def translated(url: URL) -> Iterator[None]:
    """Turn errors of which the database is at fault into `Unavailable`, which says which fault."""
    try:
        yield
    except PoolTimeoutError as exc:
        metrics.DATABASE_ERRORS.labels("pool").inc()
        raise Unavailable("all connections to the database are in use; try again") from exc
    except DBAPIError as exc:
        if is_damage(exc):
            kind, detail = "damage", "the database's file is damaged: `ridgeline doctor` tells more"
        elif _is_outage(exc):
            kind, detail = "outage", _outage_in_words(exc, url)
        elif _lacks_schema(exc):
            kind, detail = "schema", LACKS_SCHEMA
        else:
            metrics.DATABASE_ERRORS.labels("statement").inc()
            raise
        metrics.DATABASE_ERRORS.labels(kind).inc()
        log.warning("database: %s", exc.orig)
        raise Unavailable(detail) from exc


def outage_behind(exc: BaseException | None) -> DBAPIError | None:
    """The outage that an error is, or that was being handled when it was raised.

    Of a full disk SQLite undoes the whole transaction, and going back to a savepoint fails.
    """
    while exc is not None:
        if isinstance(exc, DBAPIError) and (_is_outage(exc) or is_damage(exc)):
            return exc
        exc = exc.__context__
    return None


def is_damage(exc: DBAPIError) -> bool:
    """Whether SQLite finds that its file is damaged, or none of its own, or Python a text in it."""
    is_no_text = "Could not decode to UTF-8" in str(exc.orig)
    return is_no_text or _sqlite_code(exc) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def how_to_restore(database: Path) -> str:
    """What a person can do about an SQLite file that is damaged."""
    kept = "".join(f", or to {copy.path}, from before an upgrade" for copy in copies(database)[:1])
    return (
        f"Stop the service, keep a copy of {database}, and go back to a backup{kept}. Without one, "
        f"`sqlite3 {database} .recover | sqlite3 recovered.db` saves what can be read. See "
        "docs/deployment.md, Backups of an SQLite file."
    )


def _outage_in_words(exc: DBAPIError, url: URL) -> str:
    code = _sqlite_code(exc)
    if code == sqlite3.SQLITE_FULL or getattr(exc.orig, "sqlstate", None) == _DISK_FULL:
        return "the disk of the database is full: make room on it, and try again"
    file = sqlite_file(url)
    # SQLite may find no room for a file of its own beside the database, and says no more of it.
    if file is not None and code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
        obstacle = why_no_room(file.parent)
        if obstacle is not None:
            return obstacle
    return "the database cannot do this now; try again in a moment"


def _sqlite_code(exc: DBAPIError) -> int | None:
    """The primary code of an error of SQLite; what else it is stands in the higher bits."""
    code = getattr(exc.orig, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _is_outage(exc: DBAPIError) -> bool:
    """Whether the database is at fault (gone, locked, full) rather than the statement."""
    if isinstance(exc.orig, sqlite3.Error):
        # SQLite calls a wrong statement an OperationalError too, with this code.
        statement_is_wrong = getattr(exc.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
        return isinstance(exc, OperationalError) and not statement_is_wrong
    return exc.connection_invalidated or isinstance(exc, OperationalError | InterfaceError)


def _lacks_schema(exc: DBAPIError) -> bool:
    """Whether there is no such table or column: the schema was changed under this process."""
    if isinstance(exc.orig, sqlite3.Error):
        return any(
            words in str(exc.orig)
            for words in ("no such table", "no such column", "has no column named")
        )
    return getattr(exc.orig, "sqlstate", None) in _UNDEFINED
