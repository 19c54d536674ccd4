"""Whether Optuna's tables are those of the version that this program is made for.

Optuna keeps the version of its tables in two places, `version_info` and `alembic_version`, and
opens no database in which one of them is empty or names another version.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from optuna.storages._rdb import models
from sqlalchemy import Connection, Table, inspect, select

from ridgeline.service.findings import Check, Finding

TABLES = "optuna-tables"
VERSIONS = "optuna-version"

_TABLES = Check(
    TABLES,
    "Optuna's tables are not those of this version: they lack {}",
    "Stop the service, keep a copy of the database, and go back to a backup.",
)
_NO_VERSION = Check(
    VERSIONS,
    "nothing says which version Optuna's tables have, so Optuna cannot open them: {} is empty",
    "`ridgeline migrate` writes it again.",
)
_OTHER_VERSION = Check(
    VERSIONS,
    "Optuna cannot open its tables: {}",
    "Keep a copy of the database, and put the value back that is expected; where another version "
    "of Optuna has changed the tables, go back to a backup.",
)

_VERSION_INFO: Table = models.VersionInfoModel.__table__
_SCRIPTS = Path(models.__file__).with_name("alembic")


def examine_tables(connection: Connection) -> Iterator[Finding]:
    """What keeps Optuna, and whoever reads through it, from opening the database."""
    missing = list(_missing(connection))
    if missing:
        yield _TABLES.found(missing)
        return
    heads = MigrationContext.configure(connection).get_current_heads()
    if not heads:
        yield _NO_VERSION.found(["alembic_version"])
    elif heads != (head := ScriptDirectory(str(_SCRIPTS)).get_current_head(),):
        yield _OTHER_VERSION.found([f"alembic_version holds {_listed(heads)} instead of {head}"])
    versions = connection.execute(select(_VERSION_INFO.c.schema_version)).scalars().all()
    if not versions:
        yield _NO_VERSION.found([_VERSION_INFO.name])
    elif versions != [models.SCHEMA_VERSION]:
        wrong = f"version_info.schema_version holds {_listed(versions)} instead of "
        yield _OTHER_VERSION.found([f"{wrong}{models.SCHEMA_VERSION}"])


def _missing(connection: Connection) -> Iterator[str]:
    inspector = inspect(connection)
    names = set(inspector.get_table_names())
    for table in models.BaseModel.metadata.sorted_tables:
        if table.name not in names:
            yield f"the table {table.name}"
            continue
        columns = {column["name"] for column in inspector.get_columns(table.name)}
        yield from (
            f"{table.name}.{column.name}" for column in table.c if column.name not in columns
        )


def _listed(values: object) -> str:
    assert isinstance(values, tuple | list)
    return " and ".join(map(repr, values))
