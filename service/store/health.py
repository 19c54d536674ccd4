"""What must hold of the database as a whole: its files, its schema, and rows of no study."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import DatabaseError

from ridgeline.service.findings import Check, Finding
from ridgeline.service.store.engine import sqlite_file
from ridgeline.service.store.failures import how_to_restore
from ridgeline.service.store.migrate import VERSION_TABLE, is_ours
from ridgeline.service.store.tables import (
    deleted_studies,
    idempotency_keys,
    metadata,
    studies,
    tokens,
)
from ridgeline.service.store.values import Shapes, misfits_of_none

_RESTORE = "Stop the service, keep a copy of the database, and go back to a backup."
FILE, SCHEMA = "database-file", "schema"
_FOREIGN_KEYS = Check("foreign-keys", "rows name others that are gone: {}", _RESTORE)
_SCHEMA = Check(
    SCHEMA,
    "its tables are not those of this version: {}",
    "Make a backup, create an empty database with `ridgeline migrate`, and copy the rows there; "
    "or go back to a backup.",
)
_TOKENS = Check(
    "tokens",
    "the tokens {} cannot be used as they are stored",
    "Revoke them with `ridgeline token revoke ID` and make new ones.",
)
_DELETED = Check(
    "deleted-studies",
    "the ids {} are those of a study and of one that was deleted",
    "Workers that come back late and readers of Optuna's tables may take one for the other: "
    "clone the study and delete it.",
)
_KEYS = Check(
    "idempotency-keys",
    "{} answers to keys are dated in the future, and so kept for longer than a day",
    "Nothing, once the database's clock has passed them; look at why it was ahead.",
)
_DAY_SECONDS = 24 * 3_600


def database_findings(
    connection: Connection, *, scopes: Sequence[str], now: float, shapes: Shapes
) -> Iterator[Finding]:
    """What is wrong with the database itself, before one looks at its studies.

    Args:
        scopes: that a token may have.
        shapes: of the JSON in the tables.
    """
    if connection.dialect.name == "sqlite":
        damage = _damage(connection)
        if damage:
            file = sqlite_file(connection.engine.url)
            assert file is not None, "the service keeps nothing in memory"
            yield Check(FILE, "SQLite finds it damaged: {}", how_to_restore(file)).found(damage)
            return
        broken = connection.execute(text("PRAGMA foreign_key_check")).all()
        if broken:
            yield _FOREIGN_KEYS.found(f"row {row[1]} of {row[0]}" for row in broken)
    differences = _schema_differences(connection)
    if differences:
        yield _SCHEMA.found(differences)
        return  # what follows reads these tables
    misfits = misfits_of_none(connection, shapes)
    yield from chain.from_iterable(misfits.values())
    if tokens not in misfits:
        rows = connection.execute(select(tokens))
        unusable = [row.id for row in rows if not _is_usable(row, scopes)]
        if unusable:
            yield _TOKENS.found(unusable)
    reused = _reused_ids(connection)
    if reused:
        yield _DELETED.found(reused)
    ahead = select(idempotency_keys.c.key).where(idempotency_keys.c.created_at > now + _DAY_SECONDS)
    num_ahead = 0 if idempotency_keys in misfits else len(connection.execute(ahead).all())
    if num_ahead:
        yield _KEYS.found([num_ahead])


def _damage(connection: Connection) -> Sequence[str]:
    """What SQLite finds wrong with its file; it may be so much that it gives up."""
    try:
        found = connection.execute(text("PRAGMA integrity_check")).scalars().all()
    except DatabaseError as exc:
        return [str(exc.orig)]
    return [] if found == ["ok"] else found


def _schema_differences(connection: Connection) -> list[str]:
    context = MigrationContext.configure(
        connection, opts={"include_name": is_ours, "version_table": VERSION_TABLE}
    )
    return [_in_words(difference) for difference in compare_metadata(context, metadata)]


def _in_words(difference: Any) -> str:
    """One of Alembic's differences, which says what it would do to mend it."""
    if isinstance(difference, list):  # changes of one column
        difference = difference[0]
    kind, *parts = difference
    names = [str(getattr(part, "name", part)) for part in parts if part is not None]
    return f"{kind.replace('_', ' ')} {' '.join(names[:3])}"


def _is_usable(token: Any, scopes: Sequence[str]) -> bool:
    return (
        re.fullmatch("[0-9a-f]{16}", token.id) is not None
        and re.fullmatch("[0-9a-f]{64}", token.secret_sha256) is not None
        and isinstance(token.scopes, list)
        and 0 < len(set(token.scopes)) == len(token.scopes)
        and set(token.scopes) <= set(scopes)
    )


def _reused_ids(connection: Connection) -> list[int]:
    query = select(studies.c.id).join(deleted_studies, deleted_studies.c.study_id == studies.c.id)
    return list(connection.execute(query).scalars())
