"""Fresh databases for campaigns, of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import make_url

from ridgeline.service import projection
from ridgeline.service.store import migrate
from tests.postgres import PostgresServer, postgres_data

DATABASES = ("sqlite", "postgresql")


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """The URL of a migrated database that is there within the block.

    What is committed outlives the death of PostgreSQL's processes, as it does in service.
    """
    if kind == "sqlite":
        url = f"sqlite:///{folder / 'ridgeline.db'}"
        migrate.upgrade(url, prepare=projection.prepare)
        yield url
        return
    with postgres_data(parent=folder) as data:
        server = PostgresServer(data)
        url = server.url(server.create())
        migrate.upgrade(url, prepare=projection.prepare)
        try:
            yield url
        finally:
            server.close()


def postgres_server(url: str) -> PostgresServer:
    """The server of a database that `database` has made."""
    return PostgresServer(Path(str(make_url(url).query["host"])))
