"""Real databases for all tests: SQLite files, and a PostgreSQL server that the tests start."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import Connection, create_engine

from ridgeline.service import projection
from ridgeline.service.store import engine, migrate
from ridgeline.service.store.session import Store
from tests.postgres import FLUSHES, PostgresServer, postgres_data

# A shell starts `make test &` with SIGINT ignored, and the programs that tests interrupt would
# inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: a quarter of the time tests wait for processes."""
    return (os.cpu_count() or 1) + 1


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
def postgres_directory() -> Iterator[Path]:
    """The socket directory of a PostgreSQL server of our own."""
    # Nobody kills the server of most tests, which may wait for no disk at all then.
    with postgres_data(without=(*FLUSHES, "synchronous_commit")) as data:
        yield data


@pytest.fixture(scope="session")
def postgres(postgres_directory: Path) -> Iterator[PostgresServer]:
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


class _Statements(dict[Any, Any]):
    """Compiled statements by dialect and statement, for the databases of all tests.

    SQLAlchemy compiles each statement once for each engine; here nearly every test has its own.
    """

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(self._shared(key), default)

    def __setitem__(self, key: Any, compiled: Any) -> None:
        super().__setitem__(self._shared(key), compiled)

    @staticmethod
    def _shared(key: Any) -> Any:
        dialect, *rest = key
        return (type(dialect), *rest)


@pytest.fixture(scope="session", autouse=True)
def shared_statements() -> Iterator[None]:
    """Compile each statement once for each kind of database."""
    options = {"compiled_cache": _Statements()}
    with patch.object(engine, "create_engine", partial(create_engine, execution_options=options)):
        yield


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(migrated_url: str, clock: ManualClock) -> Iterator[Store]:
    """A migrated database whose time moves by hand."""
    store = Store(migrated_url, clock=clock, project=projection.project)
    yield store
    store.close()
