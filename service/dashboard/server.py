"""optuna-dashboard in a process of its own, on a database that it cannot write to.

`python -m ridgeline.service.dashboard --socket PATH` serves it on a Unix socket, through which the
api passes it on (`api.dashboard`).  The dashboard has no authentication: on a port, every user of
the machine could read it, and so could a page in a browser whose name now resolves to this machine.
The socket is open to its own user alone.  The dashboard also has routes that write, so it gets
SQLite opened read-only or PostgreSQL sessions that are read-only, whatever the role may do.
"""

from __future__ import annotations

import argparse
import logging
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from alembic.migration import MigrationContext
from optuna.storages import RDBStorage
from optuna_dashboard import wsgi
from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from ridgeline.service import logs, processes
from ridgeline.service.cli.environment import load_settings
from ridgeline.service.cli.problems import Problem
from ridgeline.service.dashboard.pages import adapted
from ridgeline.service.errors import Conflict, InvalidInput
from ridgeline.service.files import own_folder
from ridgeline.service.settings import Settings
from ridgeline.service.store import migrate
from ridgeline.service.store.engine import parse_url, read_only

log = logging.getLogger(__name__)

WAIT_SECONDS = 60.0
"""How long Optuna's tables are waited for: whoever starts everything at once migrates meanwhile."""

_POLL_SECONDS = 0.2
_NO_ADDRESS = ("localhost", 0)
"""Host and port of the server and of its callers, for WSGI: a Unix socket has neither."""


class NoTables(Exception):
    """The database has no tables of Optuna's."""


class _Server(ThreadingMixIn, WSGIServer):
    address_family = socket.AF_UNIX
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__(_NO_ADDRESS, _QuietHandler)

    def server_bind(self) -> None:
        own_folder(self._path.parent)
        if self._path.is_socket():
            self._path.unlink()  # left by a process that was killed
        self.socket.bind(str(self._path))
        self._path.chmod(0o600)  # in time: it does not listen yet
        self.server_name, self.server_port = _NO_ADDRESS
        self.setup_environ()

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        connection, _ = super().get_request()
        return connection, _NO_ADDRESS


class _QuietHandler(WSGIRequestHandler):
    def get_stderr(self) -> logs.LoggedLines:
        return logs.LoggedLines(log)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)


def open_storage(url: URL) -> RDBStorage:
    """Optuna's storage on a database that has its tables; neither created nor migrated here."""
    # RDBStorage runs `str.format` over the URL, so braces of a path or password are doubled.
    text = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    return RDBStorage(
        text,
        engine_kwargs={"pool_pre_ping": True},
        skip_compatibility_check=True,
        skip_table_creation=True,
    )


def wait_for_tables(url: URL, *, seconds: float = WAIT_SECONDS) -> None:
    """Return once the database answers and has Optuna's tables.

    Raises:
        NoTables: it has none after `seconds`.
    """
    engine = create_engine(url)
    deadline = time.monotonic() + seconds
    try:
        while (problem := _missing(engine)) is not None:
            if time.monotonic() >= deadline:
                raise NoTables(
                    f"the dashboard waited {seconds:g} seconds for Optuna's tables in {url}: "
                    f"{problem}; run `ridgeline migrate`"
                )
            time.sleep(_POLL_SECONDS)
    finally:
        engine.dispose()


def refuse_newer(url: URL) -> None:
    """Raises Conflict where the database is that of a newer version of this program."""
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            migrate.known_revision(connection)
    finally:
        engine.dispose()


def _missing(engine: Engine) -> str | None:
    """Why the dashboard cannot start yet; Optuna writes its revision after all its tables."""
    try:
        with engine.connect() as connection:
            if MigrationContext.configure(connection).get_current_revision() is None:
                return "it has none"
    except DBAPIError as exc:
        return str(exc.orig).strip()
    return None


def serve(url: URL, path: Path) -> None:
    """Serve the dashboard on a Unix socket until the process ends.

    Raises:
        OSError: no socket can be made there, or others may change its folder.
    """
    with _Server(path) as server:
        server.set_app(adapted(wsgi(open_storage(url))))
        log.info("dashboard on the socket %s, read-only", path)
        server.serve_forever()


def _database_url(given: str | None, settings: Settings) -> tuple[str, str]:
    """The URL, and what people know it by."""
    if given is not None:
        return given, "--database-url"
    if settings.dashboard_database_url is not None:
        return settings.dashboard_database_url, "RIDGELINE_DASHBOARD_DATABASE_URL"
    return settings.resolved_database_url, "RIDGELINE_DATABASE_URL"


def main(argv: Sequence[str] | None = None) -> int:
    """The process; its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m ridgeline.service.dashboard", description=__doc__
    )
    parser.add_argument("--database-url", help="left out: as RIDGELINE_* settings say")
    parser.add_argument("--socket", type=Path, help="left out: as RIDGELINE_DASHBOARD_SOCKET says")
    parser.add_argument(
        "--die-with-parent", action="store_true", help="end when standard input is closed"
    )
    args = parser.parse_args(argv)
    if args.die_with_parent:
        processes.watch_parent()
    try:
        settings = load_settings()
        logs.set_up(settings.log_format)
        text, name = _database_url(args.database_url, settings)
        url = read_only(parse_url(text, name))
    except (Problem, InvalidInput) as exc:
        parser.error(str(exc))
    path = args.socket or settings.dashboard_socket
    if path is None:
        parser.error("--socket or RIDGELINE_DASHBOARD_SOCKET must say where to listen")
    try:
        wait_for_tables(url)
        refuse_newer(url)
        serve(url, path)
    except (NoTables, Conflict, OSError) as exc:
        log.critical("%s", exc)
        return 1
    return 0
