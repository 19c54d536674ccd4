"""Ids that nothing had before, deleted or not.

A worker that comes back late names runs by their ids, and readers of Optuna's tables remember
studies by theirs.  PostgreSQL counts on; SQLite gives the highest id again once its row is gone.
"""

from __future__ import annotations

from sqlalchemy import Column, Connection, func, select


def next_id(connection: Connection, used: Column[int], deleted: Column[int]) -> int | None:
    """The next id for a table on SQLite; None where the database counts itself.

    Args:
        used: the ids in the table.
        deleted: those in `rl_deleted_studies` that belong to it.
    """
    if connection.dialect.name != "sqlite":
        return None
    highest = [
        connection.execute(select(func.max(column))).scalar_one() or 0 for column in (used, deleted)
    ]
    return max(highest) + 1
