"""Ids that nothing had before, deleted or not.

A worker that comes back late names runs by their ids, and readers of Optuna's tables remember
studies by theirs.  PostgreSQL counts on; SQLite gives the highest id again once its row is gone.
"""

from __future__ import annotations

from sqlalchemy import Column, Connection, func, select


def next_id(connection: Connection, *used: Column[int]) -> int | None:
    """The next id for a table on SQLite; None where the database counts itself.

    Args:
        used: the ids in the table, and those that are remembered elsewhere.
    """
    if connection.dialect.name != "sqlite":
        return None
    highest = [connection.execute(select(func.max(one))).scalar_one() or 0 for one in used]
    return max(highest) + 1
