"""Many rows in one call, on every database: values come back as they were given."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any

import pytest
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    DateTime,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    select,
)
from sqlalchemy import Enum as EnumType
from sqlalchemy.exc import IntegrityError

from ridgeline.service.store.bulk import (
    OLD,
    insert_rows,
    numbers_parameters,
    numbers_table,
    update_rows,
    upsert_rows,
)


class Colour(IntEnum):
    """Stored by name, as Optuna stores the states of trials."""

    RED = 0
    BLUE = 1


class Kind(StrEnum):
    PLAIN = "plain"


TABLE = Table(
    "things",
    MetaData(),
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("name", String(20), nullable=False, unique=True),
    Column("text", Text),
    Column("number", Float(53)),
    Column("flag", Boolean),
    Column("data", JSON),
    Column("colour", EnumType(Colour)),
    Column("at", DateTime),
)

ROWS: list[dict[str, Any]] = [
    {
        "id": 1,
        "name": "a",
        "text": "é'\"\\n\n{}%s:x 🙂",
        "number": 0.1 + 0.2,
        "flag": True,
        "data": {"loss": 1e-300, "names": ["é", None, True]},
        "colour": Colour.BLUE,
        "at": datetime(2026, 1, 2, 3, 4, 5, 678901),
    },
    {
        "id": 2**53,
        "name": "b",
        "text": None,
        "number": -math.inf,
        "flag": None,
        "data": None,
        "colour": None,
        "at": None,
    },
    {
        "id": 3,
        "name": Kind.PLAIN,
        "text": "",
        "number": 5e-324,
        "flag": False,
        "data": {},
        "colour": Colour.RED,
        "at": datetime(1970, 1, 1),
    },
]


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    engine = create_engine(database_url)
    with engine.begin() as connection:
        TABLE.metadata.create_all(connection)
        yield connection
    engine.dispose()


def stored(connection: Connection) -> list[dict[str, Any]]:
    rows = connection.execute(select(TABLE).order_by(TABLE.c.name)).mappings()
    return [dict(row) for row in rows]


def test_rows_are_added_as_they_are(connection: Connection) -> None:
    insert_rows(connection, TABLE, ROWS)
    assert stored(connection) == ROWS
    insert_rows(connection, TABLE, [])


def test_ids_rise_with_the_rows(connection: Connection) -> None:
    insert_rows(connection, TABLE, [{"name": f"{index:03}"} for index in range(300)])
    ids = [row["id"] for row in stored(connection)]
    assert ids == sorted(ids)


def test_a_taken_key_is_an_error(connection: Connection) -> None:
    insert_rows(connection, TABLE, ROWS)
    with pytest.raises(IntegrityError):
        insert_rows(connection, TABLE, [{"name": "c"}, {"name": "a"}])


def test_only_rows_as_expected_are_changed(connection: Connection) -> None:
    insert_rows(connection, TABLE, ROWS)
    changes = [
        {OLD + "id": 1, OLD + "name": "a", "name": "z", "data": {"x": 1}, "colour": Colour.RED},
        {OLD + "id": 3, OLD + "name": "other", "name": "y", "data": None, "colour": None},
    ]
    assert update_rows(connection, TABLE, changes) == 1
    changed = {**ROWS[0], "name": "z", "data": {"x": 1}, "colour": Colour.RED}
    assert stored(connection) == [ROWS[1], ROWS[2], changed]
    assert update_rows(connection, TABLE, []) == 0


def test_rows_are_added_or_set(connection: Connection) -> None:
    insert_rows(connection, TABLE, [{"name": "a", "text": "old"}])
    rows = [{"name": "a", "text": "new"}, {"name": "b", "text": "b"}]
    upsert_rows(connection, TABLE, rows, key=("name",))
    assert [(row["name"], row["text"]) for row in stored(connection)] == [("a", "new"), ("b", "b")]


def test_numbers_can_be_joined_with(connection: Connection) -> None:
    insert_rows(connection, TABLE, ROWS)
    wanted = numbers_table(connection.dialect, "thing", "rank")
    query = (
        select(TABLE.c.name, wanted.c.rank)
        .join(wanted, wanted.c.thing == TABLE.c.id)
        .order_by(wanted.c.rank)
    )
    rows = [{"thing": 2**53, "rank": 7}, {"thing": 1, "rank": 2}, {"thing": 9, "rank": 1}]
    found = connection.execute(query, numbers_parameters(connection.dialect, rows)).all()
    assert [tuple(row) for row in found] == [("a", 2), ("b", 7)]
