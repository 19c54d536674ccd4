"""Whatever a value is replaced by, whichever row is gone: the doctor tells it and never fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from optuna.storages._rdb import models
from sqlalchemy import JSON, Column, Connection, String, Table, text
from sqlalchemy.exc import DataError, IntegrityError

from ridgeline.service.projection.marks import MARK
from ridgeline.service.store.session import Transaction
from ridgeline.service.store.tables import metadata
from tests.doctor.conftest import examined, is_noticed

pytestmark = pytest.mark.slow  # each change is followed by a whole examination

OURS = metadata.sorted_tables
OPTUNAS = models.BaseModel.metadata.sorted_tables
VERSIONS = ("alembic_version", "version_info")

# Tables that are empty after all that happens.
FILLED = (
    "INSERT INTO rl_tokens (id, name, secret_sha256, scopes, created_at) "
    f"VALUES ('0123456789abcdef', 'x', '{'0' * 64}', '[\"read\"]', 0)",
    "INSERT INTO rl_idempotency_keys (scope, key, body_sha256, status, answer, created_at) "
    "VALUES ('s', 'k', 'b', 200, '{}', 0)",
    "INSERT INTO rl_artifacts "
    "(run_id, attempt, kind, state, num_bytes, sha256, location, created_at) "
    "SELECT min(id), 1, 'log', 'DRAFT', 0, '', '', 0 FROM rl_runs",
    "INSERT INTO rl_comparisons (id, name, spec, told_to, created_at) VALUES "
    """(1, 'c', '{"name": "c", "base": {}, "arms": {"done": {}, "open": {}}}', 'run', 0)""",
    "INSERT INTO rl_comparison_studies (study_id, comparison_id, arm) "
    "SELECT id, 1, name FROM rl_studies WHERE name IN ('done', 'open')",
)
NOTHING_READS = {
    "studies.study_id",  # the study of a copy is found by its id and name: it is gone then
    "version_info.library_version",
}
NOBODY_MISSES = {
    *("rl_artifacts", "rl_deleted_studies", "rl_idempotency_keys", "rl_tokens", "rl_upgrades"),
    "rl_workers",  # but where runs name them
}
ATTRIBUTES = "study_system_attributes"
ROWS_OF_A_TABLE = 7
SHAPELESS = ["'7'", """'{"nonsense": "x"}'"""]
"""JSON that is none of what our columns hold."""

on_sqlite = pytest.mark.parametrize("busy_url", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("busy_url", ["postgresql"], indirect=True)
of_ours = pytest.mark.parametrize("table", OURS, ids=lambda table: table.name)
of_optuna = pytest.mark.parametrize("table", OPTUNAS, ids=lambda table: table.name)


@pytest.fixture
def filled(busy: Transaction) -> Transaction:
    if busy.connection.dialect.name == "sqlite":
        busy.connection.execute(text("PRAGMA defer_foreign_keys = ON"))
    for statement in FILLED:
        busy.connection.execute(text(statement))
    assert examined(busy) == []
    return busy


@contextmanager
def undone(connection: Connection) -> Iterator[None]:
    with connection.begin_nested() as savepoint:
        yield
        if savepoint.is_active:
            savepoint.rollback()


def nonsense(column: Column[object]) -> list[str]:
    """Values that no row of the column has, as SQL."""
    if isinstance(column.type, JSON):
        return ["'nonsense'", "x'00ff'", *SHAPELESS]
    return ["x'00ff'"] if isinstance(column.type, String) else ["'nonsense'", "x'00ff'"]


def rows_of(connection: Connection, table: str) -> list[int]:
    """Some rows of an SQLite table, from all over it."""
    rows = connection.execute(text(f"SELECT rowid FROM {table} ORDER BY rowid")).scalars().all()
    return list(rows[:: max(1, len(rows) // ROWS_OF_A_TABLE)])


def say_nonsense(busy: Transaction, table: Table) -> None:
    connection = busy.connection
    silent = []
    rows = rows_of(connection, table.name)
    for column in table.c:
        name = f"{table.name}.{column.name}"
        row = rows[len(rows) // 2] if rows else -1
        for value in nonsense(column):
            if name == "rl_idempotency_keys.answer" and value not in ("'nonsense'", "x'00ff'"):
                continue  # an answer may be anything
            with undone(connection):
                update = f"UPDATE {table.name} SET {column.name} = {value} WHERE rowid = {row}"
                try:
                    num_changed = connection.execute(text(update)).rowcount
                except IntegrityError:  # SQLite keeps no texts for row ids
                    continue
                if num_changed and not is_noticed(busy) and name not in NOTHING_READS:
                    silent.append((name, value))
    assert silent == []


@on_sqlite
@of_ours
def test_nonsense_in_our_tables(filled: Transaction, table: Table) -> None:
    assert rows_of(filled.connection, table.name)
    say_nonsense(filled, table)


@on_sqlite
@of_optuna
def test_nonsense_in_optunas_tables(filled: Transaction, table: Table) -> None:
    say_nonsense(filled, table)


@on_sqlite
@pytest.mark.parametrize("table", [*OURS, *OPTUNAS], ids=lambda table: table.name)
def test_rows_that_are_gone(filled: Transaction, table: Table) -> None:
    silent = []
    marks = f"SELECT rowid FROM study_system_attributes WHERE key = '{MARK}'"
    # A copy without its mark is taken for one of an earlier version, and is described anew.
    unmissed = [*filled.connection.scalars(text(marks))] if table.name == ATTRIBUTES else []
    for row in rows_of(filled.connection, table.name):
        if row in unmissed:
            continue
        with undone(filled.connection):
            filled.connection.execute(text(f"DELETE FROM {table.name} WHERE rowid = {row}"))
            if not is_noticed(filled):
                silent.append(row)
    assert silent == [] or table.name in NOBODY_MISSES


@on_postgresql
@of_ours
def test_what_postgresql_lets_pass(filled: Transaction, table: Table) -> None:
    silent = []
    for column in table.c:
        if f"{table.name}.{column.name}" == "rl_idempotency_keys.answer":
            continue
        is_json = isinstance(column.type, JSON)
        values = SHAPELESS if is_json else ["'NaN'", "'infinity'"]
        for value in values:
            with undone(filled.connection):
                try:
                    update = f"UPDATE {table.name} SET {column.name} = {value}"
                    filled.connection.execute(text(update))
                except (DataError, IntegrityError):
                    continue
                if not isinstance(column.type, String) and not is_noticed(filled):
                    silent.append((column.name, value))
    assert silent == []


@pytest.mark.parametrize("table", VERSIONS)
@pytest.mark.parametrize(
    ("change", "todo"),
    [
        ("DELETE FROM {}", "nothing says which version Optuna's tables have"),
        ("UPDATE {} SET {} = '77'", "Optuna cannot open its tables"),
    ],
)
def test_versions_of_optunas_tables(busy: Transaction, table: str, change: str, todo: str) -> None:
    column = {"alembic_version": "version_num", "version_info": "schema_version"}[table]
    busy.connection.execute(text(change.format(table, column)))
    ((check, wrong),) = examined(busy)
    assert check == "optuna-version"
    assert wrong.startswith(todo)
    assert table in wrong


def test_a_table_of_optunas_that_is_gone(busy: Transaction) -> None:
    busy.connection.execute(text("DROP TABLE trial_heartbeats"))
    assert (
        "optuna-tables",
        "Optuna's tables are not those of this version: they lack the table trial_heartbeats",
    ) in examined(busy)
