"""The rows of files in the artifact store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from ridgeline.service.store.bulk import one_of
from ridgeline.service.store.rows import CheckpointRow
from ridgeline.service.store.tables import artifacts, runs

_COLUMNS = [artifacts.c[field.name] for field in fields(CheckpointRow)]

DRAFT, WHOLE, DOOMED = "DRAFT", "WHOLE", "DOOMED"


class Artifacts:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def draft_checkpoint(self, **values: Any) -> CheckpointRow:
        """Announce a checkpoint whose file is to arrive."""
        query = insert(artifacts).values(kind="checkpoint", state=DRAFT, **values)
        row = self._connection.execute(query.returning(*_COLUMNS)).mappings().one()
        return CheckpointRow(**row)

    def complete(self, artifact_id: int) -> bool:
        """DRAFT → WHOLE, once the file is there; returns False where it was doomed meanwhile."""
        query = update(artifacts).where(artifacts.c.id == artifact_id, artifacts.c.state == DRAFT)
        return self._connection.execute(query.values(state=WHOLE)).rowcount == 1

    def checkpoints(self, run_ids: Sequence[int]) -> dict[int, list[CheckpointRow]]:
        """The whole checkpoints of each run that has one, the newest first."""
        found: dict[int, list[CheckpointRow]] = {}
        query = (
            select(*_COLUMNS)
            .where(self._of_runs(run_ids), artifacts.c.state == WHOLE)
            .where(artifacts.c.kind == "checkpoint")
            .order_by(artifacts.c.epoch.desc(), artifacts.c.id.desc())
        )
        for row in self._connection.execute(query).mappings() if run_ids else ():
            found.setdefault(row["run_id"], []).append(CheckpointRow(**row))
        return found

    def newest_checkpoints(self, run_ids: Sequence[int]) -> dict[int, CheckpointRow]:
        """The newest whole checkpoint of each run that has one."""
        return {run_id: rows[0] for run_id, rows in self.checkpoints(run_ids).items()}

    def doom(self, artifact_ids: Sequence[int]) -> bool:
        """Have files deleted, whether they are whole or not; whether there is any such row."""
        if not artifact_ids:
            return False
        return self._doom(one_of(self._connection, artifacts.c.id, artifact_ids)) > 0

    def doom_of_runs(self, run_ids: Sequence[int]) -> None:
        """Have all files of runs deleted; drafts are those of their uploads, which will fail."""
        if run_ids:
            self._doom(self._of_runs(run_ids), artifacts.c.state == WHOLE)

    def doom_of_study(self, study_id: int) -> None:
        """Have all files of a study deleted, whose runs are about to be, as `doom_of_runs` does."""
        of_study = artifacts.c.run_id.in_(select(runs.c.id).where(runs.c.study_id == study_id))
        self._doom(of_study, artifacts.c.state == WHOLE)
        self._connection.execute(update(artifacts).where(of_study).values(run_id=None))

    def doom_drafts(self, announced_before: float) -> None:
        """Have what has arrived deleted of files that were announced before a time."""
        self._doom(artifacts.c.state == DRAFT, artifacts.c.created_at < announced_before)

    def doomed(self, *, limit: int) -> list[tuple[int, str]]:
        """Ids and keys of files to delete."""
        query = (
            select(artifacts.c.id, artifacts.c.location)
            .where(artifacts.c.state == DOOMED)
            .order_by(artifacts.c.created_at)
            .limit(limit)
        )
        return [(row[0], row[1]) for row in self._connection.execute(query)]

    def any_to_sweep(self, announced_before: float) -> bool:
        """Whether there are files to delete, or drafts that were announced before a time."""
        query = select(artifacts.c.id).where(
            (artifacts.c.state == DOOMED)
            | ((artifacts.c.state == DRAFT) & (artifacts.c.created_at < announced_before))
        )
        return self._connection.execute(query.limit(1)).first() is not None

    def forget(self, artifact_ids: Sequence[int]) -> None:
        """Delete the rows of files that are deleted."""
        if artifact_ids:
            wanted = one_of(self._connection, artifacts.c.id, artifact_ids)
            self._connection.execute(delete(artifacts).where(wanted))

    def whole(self) -> list[CheckpointRow]:
        """All whole checkpoints."""
        query = select(*_COLUMNS).where(artifacts.c.state == WHOLE).order_by(artifacts.c.id)
        return [CheckpointRow(**row) for row in self._connection.execute(query).mappings()]

    def locations(self) -> set[str]:
        """The keys of all rows, of whatever state."""
        return set(self._connection.execute(select(artifacts.c.location)).scalars())

    def _of_runs(self, run_ids: Sequence[int]) -> ColumnElement[bool]:
        return one_of(self._connection, artifacts.c.run_id, run_ids)

    def _doom(self, *wanted: ColumnElement[bool]) -> int:
        query = update(artifacts).where(*wanted).values(state=DOOMED)
        return self._connection.execute(query).rowcount
