"""Workers in the database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, insert, select, update

from ridgeline.service.store.rows import WorkerRow
from ridgeline.service.store.tables import workers

_COLUMNS = [column for column in workers.c if column.name != "owner"]


class Workers:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(self, **values: Any) -> None:
        self._connection.execute(insert(workers).values(**values))

    def lock(self, worker_id: str) -> WorkerRow | None:
        """The worker, locked until the transaction ends; lock it before any study."""
        row = (
            self._connection.execute(
                select(*_COLUMNS).where(workers.c.id == worker_id).with_for_update()
            )
            .mappings()
            .first()
        )
        return None if row is None else WorkerRow(**row)

    def all(self, *, live_only: bool = False, seen_since: float | None = None) -> list[WorkerRow]:
        query = select(*_COLUMNS).order_by(workers.c.registered_at, workers.c.id)
        if live_only:
            query = query.where(workers.c.state == "LIVE")
        if seen_since is not None:
            query = query.where(workers.c.seen_at >= seen_since)
        return [WorkerRow(**row) for row in self._connection.execute(query).mappings()]

    def expired(self, now: float) -> list[str]:
        """Ids of live workers that have been silent for longer than their lease."""
        query = (
            select(workers.c.id)
            .where(workers.c.state == "LIVE", workers.c.lease_expires_at < now)
            .order_by(workers.c.id)
        )
        return list(self._connection.execute(query).scalars())

    def any_lease_past(self, time: float) -> bool:
        """Whether a live worker's lease lasts beyond `time`."""
        query = select(workers.c.id).where(
            workers.c.state == "LIVE", workers.c.lease_expires_at > time
        )
        return self._connection.execute(query.limit(1)).first() is not None

    def renew_leases(self, expires_at: float) -> None:
        """Let the leases of all live workers end then."""
        self._connection.execute(
            update(workers).where(workers.c.state == "LIVE").values(lease_expires_at=expires_at)
        )

    def update(self, worker_id: str, **values: Any) -> None:
        self._connection.execute(update(workers).where(workers.c.id == worker_id).values(**values))
