"""Bringing a database to the schema of this version: ours by Alembic, Optuna's by Optuna.

Optuna's own migrations use the table `alembic_version` and refuse a database in which it holds
another project's revision, so ours keep a version table of their own.
"""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version as metadata_version
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, func, insert, inspect, select, text
from sqlalchemy.engine import URL, make_url

from ridgeline.service.errors import Conflict, Unavailable
from ridgeline.service.files import own_folder, without_links
from ridgeline.service.store.copies import copies, keep_copy
from ridgeline.service.store.engine import open_engine, sqlite_file
from ridgeline.service.store.tables import upgrades

VERSION_TABLE = "rl_alembic_version"
_ADVISORY_LOCK = 0x5269_6467_656C_696E  # "Ridgelin": any number that nobody else uses


def upgrade(url: str, *, prepare: Callable[[str], None], revision: str = "head") -> None:
    """Create or upgrade the schema; safe to call from several processes at once.

    Args:
        url: the database, as in `Store`.
        prepare: creates Optuna's tables where they are missing.
        revision: where to stop; "head" is this version's schema.

    A copy of an SQLite file is kept beside it before its schema is changed: see `copies`.

    Raises:
        OSError: the folder of an SQLite file cannot be made, or others may change it.
        UnknownSchema: the database is that of a newer version, say.
        Unavailable: there is no room for the copy, say.
    """
    with _migrating(url) as engine:
        with engine.begin() as connection:
            before = known_revision(connection)
            is_behind = before not in (None, _scripts(connection).get_current_head())
        if before is not None and is_behind and (path := sqlite_file(engine.url)) is not None:
            try:
                keep_copy(path, before)
            except (OSError, sqlite3.Error) as exc:
                reason = f"cannot keep a copy of {path} before its upgrade: {exc}"
                raise Unavailable(reason) from exc
        prepare(url)
        with engine.begin() as connection:
            command.upgrade(_config(connection), revision)
            _note_upgrade(connection)


def downgrade(url: str, revision: str) -> None:
    """Go back to an earlier schema; Optuna's tables stay as they are."""
    with _migrating(url) as engine, engine.begin() as connection:
        command.downgrade(_config(connection), revision)


def is_current(url: str) -> bool:
    """Whether the database has the schema of this version."""
    engine = open_engine(make_url(url))
    try:
        with engine.connect() as connection:
            return known_revision(connection) == _scripts(connection).get_current_head()
    finally:
        engine.dispose()


class UnknownSchema(Conflict):
    """The schema of the database is none that this version knows; the text says what to do.

    Attributes:
        brief: the same without the names of files, for whoever may know that it is so.
    """

    def __init__(self, detail: str, *, brief: str) -> None:
        super().__init__(detail)
        self.brief = brief


def known_revision(connection: Connection) -> str | None:
    """The revision of the schema; None where there is none yet.

    Raises:
        UnknownSchema: this version does not know it, or nothing says for sure which it is.
    """
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    revisions = context.get_current_heads()
    if not revisions:
        if _has_our_tables(connection):
            raise _unclear(connection, "does not say which schema it has")
        return None
    if len(revisions) > 1:
        named = " and ".join(sorted(revisions))
        raise _unclear(connection, f"names several schemas, {named}, and has one")
    (revision,) = revisions
    scripts = _scripts(connection)
    known = {script.revision for script in scripts.walk_revisions()}
    if revision in known:
        return revision
    theirs = _upgraded_by(connection, revision)
    newer = "a newer version" if theirs is None else f"version {theirs} or later"
    path = sqlite_file(connection.engine.url)
    usable = [] if path is None else [copy for copy in copies(path) if copy.revision in known]
    go_back = (
        f", or stop the service, delete {path}-wal, and put {usable[0].path} in the place of {path}"
        if usable
        else ""
    )
    raise UnknownSchema(
        f"the database is newer than this program: it has schema {revision}, and ridgeline "
        f"{metadata_version('ridgeline')} knows schemas up to {scripts.get_current_head()}; "
        f"install {newer}{go_back}",
        brief="the database is newer than this program: install the version that made it so",
    )


def _has_our_tables(connection: Connection) -> bool:
    names = inspect(connection).get_table_names()
    return any(is_ours(name, "table", None) and name != VERSION_TABLE for name in names)


def _unclear(connection: Connection, wrong: str) -> UnknownSchema:
    """The error that nothing says for sure which schema there is, with what may well be right."""
    noted = None
    if inspect(connection).has_table(upgrades.name):
        noted = connection.execute(select(func.max(upgrades.c.revision))).scalar()
    likely = (
        f", or, where {VERSION_TABLE} was changed by hand, give it one row, of which the "
        f"version_num is {noted}: {upgrades.name} notes that as the latest, and `ridgeline doctor` "
        "then says whether the tables are those of it"
        if noted is not None and inspect(connection).has_table(VERSION_TABLE)
        else ""
    )
    return UnknownSchema(
        f"the database {wrong}, in its table {VERSION_TABLE}; keep a copy of it, and go back to a "
        f"backup{likely}",
        brief=f"the database {wrong}: `ridgeline doctor` says what to do",
    )


def is_ours(name: str | None, type_: str, _parents: object) -> bool:
    """Keeps Optuna's tables out of what Alembic compares."""
    return type_ != "table" or (name is not None and name.startswith("rl_"))


def _upgraded_by(connection: Connection, revision: str) -> str | None:
    """The version of the program that brought the database to a revision, where it has said so."""
    if not inspect(connection).has_table(upgrades.name):
        return None
    query = select(upgrades.c.program).where(upgrades.c.revision == revision)
    version: str | None = connection.execute(query).scalar()
    return version


def _note_upgrade(connection: Connection) -> None:
    """Note, for older programs that come by, which version has made the schema."""
    revision = known_revision(connection)
    if not inspect(connection).has_table(upgrades.name):
        return
    if _upgraded_by(connection, str(revision)) is None:
        program = metadata_version("ridgeline")
        connection.execute(insert(upgrades).values(revision=revision, program=program))


def _scripts(connection: Connection) -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(connection))


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
    if (path := sqlite_file(parsed)) is not None:
        own_folder(path.parent)
    engine = open_engine(parsed)
    try:
        with _exclusive(parsed, engine):
            yield engine
    finally:
        engine.dispose()


@contextmanager
def _exclusive(url: URL, engine: Engine) -> Iterator[None]:
    if (path := sqlite_file(url)) is not None:
        # A transaction would shut Optuna's own connection out, so a file beside the database.
        with open(f"{path}.migrate", "a", opener=without_links) as lock:
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
