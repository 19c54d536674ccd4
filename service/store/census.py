"""How much stands in the database, by kind: a few queries of bounded cost, for metrics.

None reads reports, ended trials or ended runs, of which there may be millions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select

from ridgeline.service.lifecycle import OPEN_STUDY, RunState, StudyState
from ridgeline.service.store.tables import runs, studies, workers


class StudiesInState(NamedTuple):
    state: StudyState
    num_studies: int
    num_open_trials: int
    num_stale: int
    """Whose copies in Optuna's tables are behind."""


class OpenStudies(NamedTuple):
    """Open studies that wait for the same."""

    state: StudyState
    task: str
    dataset: str | None
    data_fingerprint: str | None
    in_flight: bool
    num_studies: int
    num_waiting: int
    num_running: int


class Census:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def studies(self) -> list[StudiesInState]:
        query = select(
            studies.c.state,
            func.count(),
            func.sum(studies.c.num_open),
            func.count(studies.c.projection_error),
        ).group_by(studies.c.state)
        rows = self._connection.execute(query)
        return [StudiesInState(StudyState(state), *counts) for state, *counts in rows]

    def open_studies(self) -> list[OpenStudies]:
        """Open studies and their runs, by what decides whether a worker can train them."""

        def num_runs(state: RunState) -> Any:
            return (
                select(func.count())
                .where(runs.c.study_id == studies.c.id, runs.c.state == state.value)
                .scalar_subquery()
            )

        one = (
            select(
                studies.c.state,
                studies.c.spec[("task", "name")].as_string().label("task"),
                studies.c.spec[("task", "dataset")].as_string().label("dataset"),
                studies.c.data_fingerprint,
                num_runs(RunState.WAITING).label("num_waiting"),
                num_runs(RunState.RUNNING).label("num_running"),
            )
            .where(studies.c.state.in_([state.value for state in OPEN_STUDY]))
            .subquery()
        )
        kind = (
            one.c.state,
            one.c.task,
            one.c.dataset,
            one.c.data_fingerprint,
            (one.c.num_running > 0).label("in_flight"),
        )
        query = select(
            *kind, func.count(), func.sum(one.c.num_waiting), func.sum(one.c.num_running)
        ).group_by(*kind)
        return [
            OpenStudies(
                StudyState(state), task, dataset, fingerprint, bool(in_flight), *map(int, counts)
            )
            for state, task, dataset, fingerprint, in_flight, *counts in self._connection.execute(
                query
            )
        ]

    def workers(self) -> dict[str, int]:
        """How many workers there are by state."""
        query = select(workers.c.state, func.count()).group_by(workers.c.state)
        return {row[0]: row[1] for row in self._connection.execute(query)}
