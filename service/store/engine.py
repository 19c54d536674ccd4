"""Engines: how connections to SQLite and PostgreSQL are set up."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote, unquote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry

from ridgeline.service.errors import InvalidInput, Unavailable

READ_ONLY = "rl_read_only"
"""Execution option of connections that will not write."""

BUSY_TIMEOUT_SECONDS = 30
"""How long a writer waits for those before it."""

_MAX_CONNECTIONS = 20
_MAX_TURN_CONNECTIONS = 10
_DRIVERS = ("pysqlite", "psycopg")
_PG_READ_ONLY = "-c default_transaction_read_only=on"


def parse_url(text: str, setting: str) -> URL:
    """The URL of a database that this service can use.

    Args:
        setting: what people know it by.

    Raises:
        InvalidInput: it is none.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # the latter for a port that is no number
        url = None
    if url is None or not url.database or url.get_driver_name() not in _DRIVERS:
        wanted = "must be like sqlite:///file or postgresql+psycopg://user:password@host/database"
        raise InvalidInput([(setting, wanted)])
    return url


def sqlite_file(url: URL) -> Path | None:
    """The file of an SQLite database, which its URL may give as a URI."""
    if url.get_backend_name() != "sqlite" or not url.database:
        return None
    is_uri = "uri" in url.query
    return Path(unquote(url.database.removeprefix("file:")) if is_uri else url.database)


def read_only(url: URL) -> URL:
    """The same database, in a form through which nothing can be written."""
    if (path := sqlite_file(url)) is not None:
        # A URI, for `mode=ro`; its characters ?, # and % would end or change the path.
        return url.set(database=f"file:{quote(str(path.absolute()))}").update_query_dict(
            {"mode": "ro", "uri": "true"}
        )
    options = " ".join((*url.normalized_query.get("options", ()), _PG_READ_ONLY))
    return url.update_query_dict({"options": options})


def open_engine(url: URL) -> Engine:
    """An engine with the locking this service relies on: see `_begin`.

    Its errors do not show the parameters of statements: what people have sent is not to be logged.
    """
    if url.get_backend_name() == "sqlite":
        engine = create_engine(
            url, connect_args={"timeout": BUSY_TIMEOUT_SECONDS}, hide_parameters=True
        )
        event.listen(engine, "connect", _set_up_sqlite)
        file = sqlite_file(url)
        if file is not None:
            place = _Place(file)
            # Before a connection, which would make an empty file, and before what is written to a
            # file that is elsewhere by now would be told as done.
            for name in ("do_connect", "begin", "commit"):
                event.listen(engine, name, place.check)
            event.listen(engine, "connect", place.remember)  # by then there is one
        event.listen(engine, "begin", _begin)
        event.listen(engine, "commit", _check_begun)
        return engine
    return _postgresql(url, _MAX_CONNECTIONS)


def open_turn_engine(url: URL) -> Engine:
    """An engine for `Store.turn` on PostgreSQL.

    Whoever has a turn needs a connection for its transactions too: if both were of one pool, turns
    could take all of it and wait for each other.
    """
    return _postgresql(url, _MAX_TURN_CONNECTIONS)


def _postgresql(url: URL, num_connections: int) -> Engine:
    num_kept = num_connections // 2
    return create_engine(
        url,
        pool_pre_ping=True,
        pool_size=num_kept,
        max_overflow=num_connections - num_kept,
        hide_parameters=True,
    )


class _Place:
    """Where an SQLite file is, and which file was there first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._first: tuple[int, int] | None = None

    def remember(self, *_: object) -> None:
        """Take note of the file that the first connection has opened or made."""
        if self._first is None:
            self._first = self._found()

    def check(self, *_: object) -> None:
        """See that the file is still there, once it was.

        Raises:
            Unavailable: it was moved or deleted, or another one is in its place.
        """
        if self._first is None or (found := self._found()) == self._first:
            return
        if found is None:
            raise Unavailable("the database's file is no longer in its place: put it back there")
        raise Unavailable(
            "another file is in the place of the database's: restart the service to use it, or put "
            "the former one back"
        )

    def _found(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_dev, status.st_ino


def _set_up_sqlite(connection: object, _entry: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # type: ignore[attr-defined]  # BEGIN is ours, see `_begin`
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("PRAGMA journal_mode = WAL")
    # FULL makes a commit survive a power cut in WAL mode; NORMAL only survives a crash.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin(connection: Connection) -> None:
    """Writers take the lock at once: a deferred BEGIN that upgrades fails with SQLITE_BUSY."""
    read_only = connection.get_execution_options().get(READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _check_begun(connection: Connection) -> None:
    """After some errors SQLite has undone the transaction by itself, and a commit does nothing."""
    assert connection.connection.in_transaction, "what was written has been undone"
