"""Many rows in one call: what a worker says at once is written at once.

SQLite has no round trips, and most of a row's time would be SQLAlchemy's: rows go to the driver as
tuples, for a statement that is compiled once.  PostgreSQL gets each column as one array, and makes
a table of them: a statement for each row would cost several times its work.

Rows are mappings from column names to values, all of them with the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import NoneType
from typing import Any, Literal

from pydantic_core import to_json
from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    ColumnElement,
    Connection,
    Dialect,
    Enum,
    Executable,
    FromClause,
    String,
    Table,
    Text,
    bindparam,
    cast,
    column,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import TypeEngine

Rows = Sequence[Mapping[str, Any]]

OLD = "old_"
"""Begins the names of values that a row must have, so that `update_rows` changes it."""

_Kind = Literal["insert", "upsert", "update"]
_Cells = Mapping[str, ColumnElement[Any]]
_ROWS = "rows"
_CELL = "cell_"  # SQLAlchemy keeps the names of columns for itself
_MAX_STATEMENTS = 256
_PLAIN = (int, float, NoneType)


def insert_rows(connection: Connection, table: Table, rows: Rows) -> None:
    """Add rows, in their order."""
    _execute(connection, "insert", table, rows)


def upsert_rows(connection: Connection, table: Table, rows: Rows, key: tuple[str, ...]) -> None:
    """Add rows; where one with the same `key` stands, set its other columns if they differ."""
    _execute(connection, "upsert", table, rows, key)


def update_rows(connection: Connection, table: Table, rows: Rows) -> int:
    """Change the rows that have the values given under `OLD`; returns how many there were."""
    return _execute(connection, "update", table, rows)


def numbers_table(dialect: Dialect, *names: str) -> FromClause:
    """Rows of whole numbers to select from; `numbers_parameters` fill it."""
    if dialect.name == "postgresql":
        return _arrays({name: BigInteger() for name in names})
    each = func.json_each(bindparam(_ROWS, type_=Text)).table_valued("value")
    cells = [func.json_extract(each.c.value, f"$.{name}").label(name) for name in names]
    return select(*cells).select_from(each).subquery()


def numbers_parameters(dialect: Dialect, rows: Sequence[Mapping[str, int]]) -> Mapping[str, str]:
    """The parameters of a statement that selects from a `numbers_table`; at least one row."""
    if dialect.name == "postgresql":
        return {_CELL + name: _as_array([row[name] for row in rows], None) for name in rows[0]}
    return {_ROWS: _as_json(rows)}


def one_of(
    connection: Connection, number: ColumnElement[int], numbers: Sequence[int]
) -> ColumnElement[bool]:
    """Whether a column is one of any number of whole numbers, as one parameter.

    `in_` makes a parameter of each, and a statement of its own of each number of them.
    """
    if connection.dialect.name == "postgresql":
        # Joined, not `= ANY (…)`: with the statistics of a new table a whole scan may seem cheaper
        # than the index, and that compares each of its rows with all numbers, one by one.
        listed = bindparam(None, _as_array(list(numbers), None), Text)
        return number.in_(select(func.unnest(cast(listed, ARRAY(BigInteger)))))
    each = func.json_each(bindparam(None, _as_json(list(numbers)), Text)).table_valued("value")
    return number.in_(select(each.c.value))


def _execute(
    connection: Connection, kind: _Kind, table: Table, rows: Rows, key: tuple[str, ...] = ()
) -> int:
    if not rows:
        return 0
    make = _for_postgresql if connection.dialect.name == "postgresql" else _for_sqlite
    return make(connection.dialect, kind, table, tuple(rows[0]), key)(connection, rows)


@lru_cache(_MAX_STATEMENTS)
def _for_sqlite(
    dialect: Dialect, kind: _Kind, table: Table, names: tuple[str, ...], key: tuple[str, ...]
) -> Callable[[Connection, Rows], int]:
    types = _types(table, names)
    cells = {name: bindparam(_CELL + name, type_=types[name]) for name in names}
    match kind:
        case "insert":
            statement: Executable = insert(table).values(cells)
        case "upsert":
            statement = _or_update(sqlite.insert(table).values(cells), table, names, key)
        case "update":
            statement = _update(table, cells)
    compiled = statement.compile(dialect=dialect)  # type: ignore[attr-defined]
    sql, order = str(compiled), [name.removeprefix(_CELL) for name in compiled.positiontup]
    processors = [_processor(types[name], dialect) for name in order]

    def execute(connection: Connection, rows: Rows) -> int:
        columns = [
            [row[name] for row in rows] if process is None else [process(row[name]) for row in rows]
            for name, process in zip(order, processors, strict=True)
        ]
        tuples = list(zip(*columns, strict=True))
        result = connection.exec_driver_sql(
            sql, tuples, execution_options={"preserve_rowcount": True}
        )
        return result.rowcount

    return execute


@lru_cache(_MAX_STATEMENTS)
def _for_postgresql(
    dialect: Dialect, kind: _Kind, table: Table, names: tuple[str, ...], key: tuple[str, ...]
) -> Callable[[Connection, Rows], int]:
    types = _types(table, names)
    source = _arrays({name: _sent_as(type_) for name, type_ in types.items()})
    match kind:
        case "insert":
            statement: Executable = insert(table).from_select(names, select(source))
        case "upsert":
            adding = postgresql.insert(table).from_select(names, select(source))
            statement = _or_update(adding, table, names, key)
        case "update":
            statement = _update(table, {name: source.c[name] for name in names})
    processors = {name: _processor(type_, dialect) for name, type_ in types.items()}

    def execute(connection: Connection, rows: Rows) -> int:
        parameters = {
            _CELL + name: _as_array([row[name] for row in rows], process)
            for name, process in processors.items()
        }
        return connection.execute(
            statement, parameters, execution_options={"preserve_rowcount": True}
        ).rowcount

    return execute


def _sent_as(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """Texts as such: a cast to their own type would cut those that are too long for it."""
    return Text() if isinstance(type_, String) and not isinstance(type_, Enum) else type_


def _as_array(values: Sequence[Any], process: Callable[[Any], Any] | None) -> str:
    """Values as PostgreSQL writes an array of them."""
    if process is None and all(isinstance(value, _PLAIN) for value in values):
        return f"{{{_as_json(values)[1:-1]}}}"
    if process is not None:
        values = [None if value is None else process(value) for value in values]
    return f"{{{','.join('null' if value is None else _quoted(str(value)) for value in values)}}}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _types(table: Table, names: tuple[str, ...]) -> dict[str, TypeEngine[Any]]:
    return {name: table.c[name.removeprefix(OLD)].type for name in names}


def _processor(type_: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    """What turns a value of Python into one that the driver takes."""
    if isinstance(type_, JSON):
        return _as_json
    return type_.dialect_impl(dialect).bind_processor(dialect)


def _as_json(value: Any) -> str:
    """Several times as fast as `json.dumps`; infinity as the text that PostgreSQL reads it from."""
    return to_json(value, inf_nan_mode="strings").decode()


def _arrays(types: Mapping[str, TypeEngine[Any]]) -> FromClause:
    """Columns given as arrays, the parameters of their names, as a table to select from."""
    arrays = [
        cast(bindparam(_CELL + name, type_=Text), ARRAY(type_)) for name, type_ in types.items()
    ]
    columns = [column(name, type_) for name, type_ in types.items()]
    return func.unnest(*arrays).table_valued(*columns).render_derived()


def _update(table: Table, cells: _Cells) -> Executable:
    olds = {name.removeprefix(OLD): cell for name, cell in cells.items() if name.startswith(OLD)}
    news = {name: cell for name, cell in cells.items() if not name.startswith(OLD)}
    return update(table).where(*(table.c[n] == cell for n, cell in olds.items())).values(news)


def _or_update(
    adding: Any, table: Table, names: tuple[str, ...], key: tuple[str, ...]
) -> Executable:
    others = [name for name in names if name not in key]
    found: Executable = adding.on_conflict_do_update(
        index_elements=[table.c[name] for name in key],
        set_={name: adding.excluded[name] for name in others},
        where=or_(*(table.c[name] != adding.excluded[name] for name in others)),
    )
    return found
