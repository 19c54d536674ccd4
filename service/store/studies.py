"""Studies in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from service.errors import Conflict
from service.lifecycle import OPEN_STUDY, RunState, StudyState, TrialState
from service.store.rows import StudyRow
from service.store.tables import runs, studies, trials

_COLUMNS = [column for column in studies.c if column.name not in ("optuna_study_id",)]


class Studies:
    """Reads studies, and keeps those locked by this transaction until they are written back."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._locked: dict[int, tuple[StudyRow, dict[str, Any]]] = {}

    def insert(self, **values: Any) -> StudyRow:
        """Add a study; it is then locked by this transaction.

        Raises:
            Conflict: somebody else has just taken the name; the transaction must end.
        """
        query = insert(studies).values(**values).returning(studies.c.id)
        try:
            study_id = self._connection.execute(query).scalar_one()
        except IntegrityError as exc:
            raise Conflict(f"the name {values['name']} was just taken; choose another") from exc
        return self.lock(study_id)

    def find(self, name: str) -> StudyRow | None:
        row = (
            self._connection.execute(select(*_COLUMNS).where(studies.c.name == name))
            .mappings()
            .first()
        )
        return None if row is None else _study(row)

    def get(self, study_id: int) -> StudyRow:
        return _study(
            self._connection.execute(select(*_COLUMNS).where(studies.c.id == study_id))
            .mappings()
            .one()
        )

    def lock(self, study_id: int) -> StudyRow:
        """The study, locked against every other transaction until this one ends.

        Locking several studies, lock them in the order of their ids.
        """
        if study_id not in self._locked:
            row = _study(
                self._connection.execute(
                    select(*_COLUMNS).where(studies.c.id == study_id).with_for_update()
                )
                .mappings()
                .one()
            )
            self._locked[study_id] = row, asdict(row)
        return self._locked[study_id][0]

    def write_back(self) -> list[int]:
        """Write the studies changed under lock, guarded by the revision they had; their ids."""
        changed = []
        for study_id, (row, before) in sorted(self._locked.items()):
            values = {k: v for k, v in asdict(row).items() if v != before[k]}
            if not values:
                continue
            written = self._connection.execute(
                update(studies)
                .where(studies.c.id == study_id, studies.c.revision == before["revision"])
                .values(**values)
            )
            assert written.rowcount == 1, "a locked study was changed by somebody else"
            self._locked[study_id] = row, asdict(row)
            changed.append(study_id)
        return changed

    def mark_projection_failed(self, study_id: int, error: str) -> None:
        self._connection.execute(
            update(studies).where(studies.c.id == study_id).values(projection_error=error)
        )

    def page(self, *, limit: int, below_id: int | None, state: StudyState | None) -> list[StudyRow]:
        """At most `limit` studies, newest first."""
        query = select(*_COLUMNS).order_by(studies.c.id.desc()).limit(limit)
        if below_id is not None:
            query = query.where(studies.c.id < below_id)
        if state is not None:
            query = query.where(studies.c.state == state.value)
        return [_study(row) for row in self._connection.execute(query).mappings()]

    def num_open_of(self, owner: str | None) -> int:
        query = select(func.count()).where(
            studies.c.owner.is_(owner) if owner is None else studies.c.owner == owner,
            _is_open(),
        )
        return int(self._connection.execute(query).scalar_one())

    def servable(self) -> list[StudyRow]:
        """Studies that may hand out runs, highest priority first."""
        query = (
            select(*_COLUMNS)
            .where(studies.c.state.in_([StudyState.QUEUED.value, StudyState.RUNNING.value]))
            .order_by(studies.c.priority.desc(), studies.c.id)
        )
        return [_study(row) for row in self._connection.execute(query).mappings()]

    def overdue(self, now: float) -> list[int]:
        """Ids of open studies whose time is up and that have not been told to stop."""
        query = (
            select(studies.c.id)
            .where(_is_open(), studies.c.stopping.is_(False), studies.c.deadline_at <= now)
            .order_by(studies.c.id)
        )
        return list(self._connection.execute(query).scalars())

    def trial_counts(self, study_ids: Sequence[int]) -> dict[int, dict[str, int]]:
        """Trials by state, for each study."""
        query = (
            select(trials.c.study_id, trials.c.state, func.count())
            .where(trials.c.study_id.in_(study_ids))
            .group_by(trials.c.study_id, trials.c.state)
        )
        counts: dict[int, dict[str, int]] = {study_id: {} for study_id in study_ids}
        for study_id, state, count in self._connection.execute(query):
            counts[study_id][state] = count
        return counts

    def load(self, study_ids: Sequence[int]) -> dict[int, tuple[int, int, int]]:
        """Of each study: runs in flight, runs ended, trials RUNNING."""
        query = (
            select(
                runs.c.study_id,
                func.sum(case((runs.c.state == RunState.RUNNING.value, 1), else_=0)),
                func.sum(case((runs.c.finished_at.is_not(None), 1), else_=0)),
            )
            .where(runs.c.study_id.in_(study_ids))
            .group_by(runs.c.study_id)
        )
        of_runs = {row[0]: (int(row[1]), int(row[2])) for row in self._connection.execute(query)}
        counts = self.trial_counts(study_ids)
        return {
            study_id: (
                *of_runs.get(study_id, (0, 0)),
                counts[study_id].get(TrialState.RUNNING.value, 0),
            )
            for study_id in study_ids
        }


def _is_open() -> ColumnElement[bool]:
    return studies.c.state.in_([state.value for state in OPEN_STUDY])


def _study(row: Mapping[Any, Any]) -> StudyRow:
    return StudyRow(**{**row, "state": StudyState(row["state"])})
