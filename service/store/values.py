"""Whether the values of our tables are of the kinds of their columns.

SQLite keeps in most columns whatever it is given, and both databases keep any JSON.  A row with
such a value cannot be read as what it is, so this is looked at before anything else about the row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
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
    String,
    Table,
    Text,
    and_,
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
from sqlalchemy.types import TypeEngine

from ridgeline.service.findings import BY_HAND, Check, Finding
from ridgeline.service.store.tables import metadata, reports, runs, studies, trials

Shapes = Mapping[Column[Any], TypeAdapter[Any]]
"""What the JSON of a column must be."""

_MISFITS = Check("values", "{} cannot be read as what belongs there", BY_HAND)

_OF_A_STUDY: Mapping[Table, Column[Any]] = {
    studies: studies.c.id,
    trials: trials.c.study_id,
    runs: runs.c.study_id,
    reports: reports.c.study_id,
}
"""Tables that are looked at study by study, and the column that has its id."""

_OTHERS = [table for table in metadata.sorted_tables if table not in _OF_A_STUDY]

_MAX_FLOAT = 1.7976931348623157e308
_END_OF_TIME = 253_402_300_800.0
"""The first second of the year 10000, which no date and time reaches."""

_ROWS_AT_ONCE = 10_000


def misfits_of_study(connection: Connection, study_id: int, shapes: Shapes) -> Iterator[Finding]:
    """The values of a study, its trials, runs and reports that are not of their columns' kinds."""
    for table, column in _OF_A_STUDY.items():
        yield from _misfits(connection, table, column == study_id, shapes)


def misfits_of_none(connection: Connection, shapes: Shapes) -> dict[Table, list[Finding]]:
    """The same of the tables that belong to no study; those in which there are some."""
    found = {table: list(_misfits(connection, table, true(), shapes)) for table in _OTHERS}
    return {table: findings for table, findings in found.items() if findings}


def _misfits(
    connection: Connection, table: Table, where: ColumnElement[bool], shapes: Shapes
) -> Iterator[Finding]:
    dialect = connection.dialect
    name = _row_name(table, dialect)
    fits = {column: fit for column in table.c if (fit := _fit(column, dialect)) is not None}
    wrong: dict[Column[Any], list[str]] = {}
    query = select(name, *(not_(fit) for fit in fits.values()))
    for row, *misfits in connection.execute(
        query.where(where, or_(false(), *(not_(fit) for fit in fits.values()))).order_by(name)
    ):
        for column, is_misfit in zip(fits, misfits, strict=True):
            if is_misfit:
                wrong.setdefault(column, []).append(row)
    for column in _with_shapes(table, shapes):
        if column not in wrong:
            misshapen = list(_misshapen(connection, column, where, shapes[column]))
            if misshapen:
                wrong[column] = misshapen
    for column, rows in wrong.items():
        yield _MISFITS.found(f"{table.name}.{column.name} of the row {row}" for row in rows)


def _with_shapes(table: Table, shapes: Shapes) -> Collection[Column[Any]]:
    return [column for column in table.c if column in shapes]


def _misshapen(
    connection: Connection,
    column: Column[Any],
    where: ColumnElement[bool],
    shape: TypeAdapter[Any],
) -> Iterator[str]:
    """The rows of which the JSON is of another shape."""
    name = _row_name(column.table, connection.dialect)
    query = select(name, cast(column, Text)).where(where, column.is_not(null())).order_by(name)
    for row, stored in connection.execute(query).yield_per(_ROWS_AT_ONCE):
        if column.nullable and stored == "null":
            continue
        try:
            shape.validate_json(stored)
        except ValidationError:
            yield row


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
