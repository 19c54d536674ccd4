"""Whether the values of our tables are of the kinds of their columns.

SQLite keeps in most columns whatever it is given, and both databases keep any JSON.  A row with
such a value cannot be read as what it is, so this is looked at before anything else about the row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Dialect,
    Float,
    Integer,
    Select,
    String,
    Table,
    Text,
    and_,
    bindparam,
    case,
    cast,
    false,
    func,
    not_,
    null,
    or_,
    select,
    true,
    type_coerce,
)
from sqlalchemy.dialects import registry
from sqlalchemy.types import TypeEngine

from ridgeline.service.findings import BY_HAND, Check, Finding
from ridgeline.service.store.tables import metadata, reports, runs, sources, studies, trials

Shapes = Mapping[Column[Any], TypeAdapter[Any]]
"""What the JSON of a column must be."""

_MISFITS = Check("values", "{} cannot be read as what belongs there", BY_HAND)

_OF_A_STUDY: Mapping[Table, Column[Any]] = {
    studies: studies.c.id,
    sources: sources.c.study_id,
    trials: trials.c.study_id,
    runs: runs.c.study_id,
    reports: reports.c.study_id,
}
"""Tables that are looked at study by study, and the column that has its id."""

_STUDY = "examined_study_id"

_OTHERS = [table for table in metadata.sorted_tables if table not in _OF_A_STUDY]

_MAX_FLOAT = 1.7976931348623157e308
_END_OF_TIME = 253_402_300_800.0
"""The first second of the year 10000, which no date and time reaches."""

_ROWS_AT_ONCE = 10_000


def misfits_of_study(connection: Connection, study_id: int, shapes: Shapes) -> Iterator[Finding]:
    """The values of a study, its trials, runs and reports that are not of their columns' kinds."""
    for table in _OF_A_STUDY:
        yield from _misfits(connection, table, shapes, {_STUDY: study_id})


def misfits_of_none(connection: Connection, shapes: Shapes) -> dict[Table, list[Finding]]:
    """The same of the tables that belong to no study; those in which there are some."""
    found = {table: list(_misfits(connection, table, shapes, {})) for table in _OTHERS}
    return {table: findings for table, findings in found.items() if findings}


def _misfits(
    connection: Connection, table: Table, shapes: Shapes, values: Mapping[str, int]
) -> Iterator[Finding]:
    wrong: dict[Column[Any], list[str]] = {}
    fits, query = _query_of_misfits(table, connection.dialect.name)
    for row, *misfits in connection.execute(query, values):
        for column, is_misfit in zip(fits, misfits, strict=True):
            if is_misfit:
                wrong.setdefault(column, []).append(row)
    for column in _with_shapes(table, shapes):
        if column not in wrong:
            misshapen = list(_misshapen(connection, column, shapes[column], values))
            if misshapen:
                wrong[column] = misshapen
    for column, rows in wrong.items():
        yield _MISFITS.found(f"{table.name}.{column.name} of the row {row}" for row in rows)


@cache
def _query_of_misfits(
    table: Table, dialect_name: str
) -> tuple[tuple[Column[Any], ...], Select[Any]]:
    """What finds rows with misfits; and of which columns it tells whether each is one."""
    dialect = _dialect(dialect_name)
    fits = {column: fit for column in table.c if (fit := _fit(column, dialect)) is not None}
    name = _row_name(table, dialect)
    is_misfit = [not_(fit) for fit in fits.values()]
    query = select(name, *is_misfit).where(_asked_for(table), or_(false(), *is_misfit))
    return tuple(fits), query.order_by(name)


def _asked_for(table: Table) -> ColumnElement[bool]:
    """Which rows are looked at: those of the study `_STUDY`, or all."""
    column = _OF_A_STUDY.get(table)
    return true() if column is None else column == bindparam(_STUDY, type_=Integer)


def _with_shapes(table: Table, shapes: Shapes) -> Collection[Column[Any]]:
    return [column for column in table.c if column in shapes]


def _misshapen(
    connection: Connection, column: Column[Any], shape: TypeAdapter[Any], values: Mapping[str, int]
) -> Iterator[str]:
    """The rows of which the JSON is of another shape."""
    query = _query_of_json(column, connection.dialect.name)
    for row, stored in connection.execute(query, values).yield_per(_ROWS_AT_ONCE):
        if column.nullable and stored == "null":
            continue
        try:
            shape.validate_json(stored)
        except ValidationError:
            yield row


def _dialect(name: str) -> Dialect:
    dialect: Dialect = registry.load(name)()
    return dialect


@cache
def _query_of_json(column: Column[Any], dialect_name: str) -> Select[str, str]:
    name = _row_name(column.table, _dialect(dialect_name))
    query = select(name, cast(column, Text))
    return query.where(_asked_for(column.table), column.is_not(null())).order_by(name)


def _row_name(table: Any, dialect: Dialect) -> ColumnElement[str]:
    """The primary key as a text, whatever stands in it."""
    parts = [
        type_coerce(func.quote(column), Text) if dialect.name == "sqlite" else cast(column, Text)
        for column in table.primary_key
    ]
    name: ColumnElement[str] = parts[0]
    for part in parts[1:]:
        name = name + "/" + part
    return name.label("row_name")


def _fit(column: Column[Any], dialect: Dialect) -> ColumnElement[bool] | None:
    """Whether the value is of the column's kind or NULL; None where the database sees to it.

    NULL where there must be a value is found by the check of the file or kept out by PostgreSQL.
    """
    conditions = list(_conditions(column, column.type.dialect_impl(dialect), dialect))
    return or_(column.is_(null()), and_(*conditions)) if conditions else None


def _conditions(
    column: Column[Any], type_: TypeEngine[Any], dialect: Dialect
) -> Iterator[ColumnElement[bool]]:
    if dialect.name == "sqlite":
        kind = func.typeof(column)
        match type_:
            case Boolean():
                yield type_coerce(column, Integer).in_((0, 1))
            case Integer():
                yield kind == "integer"
            case Float():
                yield kind.in_(("real", "integer"))
            case JSON():
                yield case((kind == "text", func.json_valid(column)), else_=0) == 1
            case String():
                yield kind == "text"
            case _:
                raise AssertionError(f"what fits {column}, a {type_!r}, is not said here")
    if isinstance(type_, Float):
        if column.name.endswith("_at"):
            yield column.between(0.0, _END_OF_TIME)
        else:
            yield column.between(-_MAX_FLOAT, _MAX_FLOAT)
