"""Bringing a database to the schema of this version: ours by Alembic, Optuna's by Optuna.

Optuna's own migrations use the table `alembic_version` and refuse a database in which it holds
another project's revision, so ours keep a version table of their own.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import URL, make_url

from service.files import own_folder, without_links
from service.store.engine import open_engine

VERSION_TABLE = "rl_alembic_version"
_ADVISORY_LOCK = 0x5269_6467_656C_696E  # "Ridgelin": any number that nobody else uses


def upgrade(url: str, *, prepare: Callable[[str], None], revision: str = "head") -> None:
    """Create or upgrade the schema; safe to call from several processes at once.

    Args:
        url: the database, as in `Store`.
        prepare: creates Optuna's tables where they are missing.
        revision: where to stop; "head" is this version's schema.

    Raises:
        OSError: the folder of an SQLite file cannot be made, or others may change it.
    """
    with _migrating(url) as engine:
        prepare(url)
        with engine.begin() as connection:
            command.upgrade(_config(connection), revision)


def downgrade(url: str, revision: str) -> None:
    """Go back to an earlier schema; Optuna's tables stay as they are."""
    with _migrating(url) as engine, engine.begin() as connection:
        command.downgrade(_config(connection), revision)


def is_current(url: str) -> bool:
    """Whether the database has the schema of this version."""
    engine = open_engine(make_url(url))
    try:
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
            head = ScriptDirectory.from_config(_config(connection)).get_current_head()
            return context.get_current_revision() == head
    finally:
        engine.dispose()


def is_ours(name: str | None, type_: str, _parents: object) -> bool:
    """Keeps Optuna's tables out of what Alembic compares."""
    return type_ != "table" or (name is not None and name.startswith("rl_"))


def _config(connection: Connection) -> Config:
    config = Config()
    folder = str(Path(__file__).parent / "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))  # a ConfigParser's value
    config.attributes["connection"] = connection
    return config


@contextmanager
def _migrating(url: str) -> Iterator[Engine]:
    """An engine, while no other process migrates the same database."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        own_folder(Path(parsed.database).parent)
    engine = open_engine(parsed)
    try:
        with _exclusive(parsed, engine):
            yield engine
    finally:
        engine.dispose()


@contextmanager
def _exclusive(url: URL, engine: Engine) -> Iterator[None]:
    if url.get_backend_name() == "sqlite":
        # A transaction would shut Optuna's own connection out, so a file beside the database.
        with open(f"{url.database}.migrate", "a", opener=without_links) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    else:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _ADVISORY_LOCK})
            connection.commit()
            try:
                yield
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _ADVISORY_LOCK})
                connection.commit()
