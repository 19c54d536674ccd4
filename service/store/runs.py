"""Runs and the reports of their epochs in the database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from service.lifecycle import OPEN_RUN, FailReason, RunState, TrialState
from service.store.rows import RunRow
from service.store.tables import reports, runs, trials

MAX_IDS = 10_000


@dataclass(frozen=True)
class ReportRow:
    run_id: int
    trial_number: int
    replicate: int
    epoch: int
    metrics: Mapping[str, float]
    revision: int


class Runs:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._connection.execute(insert(runs), list(rows))

    def get(self, run_ids: Sequence[int]) -> dict[int, RunRow]:
        found: dict[int, RunRow] = {}
        for ids in batched(run_ids):
            query = select(runs).where(runs.c.id.in_(ids))
            found |= {row["id"]: _run(row) for row in self._connection.execute(query).mappings()}
        return found

    def of_trials(self, trial_ids: Sequence[int]) -> dict[int, list[RunRow]]:
        """The runs of each trial, in the order of their replicates."""
        found: dict[int, list[RunRow]] = {trial_id: [] for trial_id in trial_ids}
        for ids in batched(trial_ids):
            query = (
                select(runs)
                .where(runs.c.trial_id.in_(ids))
                .order_by(runs.c.trial_id, runs.c.replicate)
            )
            for row in self._connection.execute(query).mappings():
                found[row["trial_id"]].append(_run(row))
        return found

    def open_of(self, study_id: int) -> list[RunRow]:
        query = (
            select(runs)
            .where(
                runs.c.study_id == study_id,
                runs.c.state.in_([state.value for state in OPEN_RUN]),
            )
            .order_by(runs.c.id)
        )
        return [_run(row) for row in self._connection.execute(query).mappings()]

    def held_by(self, worker_id: str) -> list[RunRow]:
        """Runs handed out to a worker and not ended."""
        query = (
            select(runs)
            .where(runs.c.worker_id == worker_id, runs.c.state == RunState.RUNNING.value)
            .order_by(runs.c.id)
        )
        return [_run(row) for row in self._connection.execute(query).mappings()]

    def num_held(self) -> dict[str, int]:
        """How many runs each worker holds."""
        query = (
            select(runs.c.worker_id, func.count())
            .where(runs.c.worker_id.is_not(None), runs.c.state == RunState.RUNNING.value)
            .group_by(runs.c.worker_id)
        )
        return {row[0]: row[1] for row in self._connection.execute(query)}

    def lease_expired(self, now: float) -> list[RunRow]:
        """Runs of external programs that have been silent for longer than their lease."""
        query = (
            select(runs)
            .where(runs.c.state == RunState.RUNNING.value, runs.c.lease_expires_at < now)
            .order_by(runs.c.study_id, runs.c.id)
        )
        return [_run(row) for row in self._connection.execute(query).mappings()]

    def waiting(
        self, study_id: int, *, limit: int, of_running_trials_only: bool
    ) -> list[tuple[RunRow, TrialState]]:
        """Waiting runs with the state of their trials, by trial number, then by replicate."""
        query = (
            select(runs, trials.c.state.label("trial_state"))
            .join(trials, trials.c.id == runs.c.trial_id)
            .where(runs.c.study_id == study_id, runs.c.state == RunState.WAITING.value)
            .order_by(trials.c.number, runs.c.replicate)
            .limit(limit)
        )
        if of_running_trials_only:
            query = query.where(trials.c.state == TrialState.RUNNING.value)
        found = []
        for row in self._connection.execute(query).mappings():
            values = dict(row)
            state = TrialState(values.pop("trial_state"))
            found.append((_run(values), state))
        return found

    def transition(
        self, run: RunRow, target: RunState, *, attempt: int | None = None, **values: Any
    ) -> bool:
        """One guarded transition out of the state and attempt that `run` shows.

        Returns False where somebody else has changed the run since.
        """
        if isinstance(values.get("reason"), FailReason):
            values["reason"] = values["reason"].value
        written = self._connection.execute(
            update(runs)
            .where(
                runs.c.id == run.id,
                runs.c.attempt == run.attempt,
                runs.c.state == run.state.value,
            )
            .values(
                state=target.value, attempt=run.attempt if attempt is None else attempt, **values
            )
        )
        return bool(written.rowcount == 1)

    def set_program(self, run: RunRow, program: str, *, revision: int) -> None:
        self._connection.execute(
            update(runs)
            .where(runs.c.id == run.id, runs.c.attempt == run.attempt)
            .values(program=program, revision=revision)
        )

    def extend_lease(self, run: RunRow, expires_at: float) -> None:
        self._connection.execute(
            update(runs)
            .where(runs.c.id == run.id, runs.c.attempt == run.attempt)
            .values(lease_expires_at=expires_at)
        )

    def reported_epochs(self, run_id: int) -> set[int]:
        query = select(reports.c.epoch).where(reports.c.run_id == run_id)
        return set(self._connection.execute(query).scalars())

    def last_metric(self, run_id: int, metric: str) -> float | None:
        """The value of `metric` at the last epoch that reported it."""
        query = (
            select(reports.c.metrics)
            .where(reports.c.run_id == run_id)
            .order_by(reports.c.epoch.desc())
        )
        for metrics in self._connection.execute(query).scalars():
            if metric in metrics:
                return float(metrics[metric])
        return None

    def insert_reports(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._connection.execute(insert(reports), list(rows))

    def delete_reports(self, run_id: int) -> None:
        """Forget the epochs of a run that starts again from nothing."""
        self._connection.execute(delete(reports).where(reports.c.run_id == run_id))

    def reports_of(
        self,
        study_id: int,
        *,
        above_revision: int = -1,
        trial_id: int | None = None,
        limit: int | None = None,
    ) -> list[ReportRow]:
        """Reports of a study or of one of its trials, in the order of their revisions."""
        query = (
            select(
                reports.c.run_id,
                trials.c.number.label("trial_number"),
                runs.c.replicate,
                reports.c.epoch,
                reports.c.metrics,
                reports.c.revision,
            )
            .join(runs, runs.c.id == reports.c.run_id)
            .join(trials, trials.c.id == runs.c.trial_id)
            .where(reports.c.study_id == study_id, reports.c.revision > above_revision)
            .order_by(reports.c.revision)
            .limit(limit)
        )
        if trial_id is not None:
            query = query.where(runs.c.trial_id == trial_id)
        return [ReportRow(**row) for row in self._connection.execute(query).mappings()]

    def changed_since(
        self, study_id: int, revision: int, *, limit: int | None
    ) -> list[tuple[int, RunRow]]:
        """(trial number, run) of runs whose last change is past `revision`, in that order."""
        query = (
            select(runs, trials.c.number)
            .join(trials, trials.c.id == runs.c.trial_id)
            .where(runs.c.study_id == study_id, runs.c.revision > revision)
            .order_by(runs.c.revision)
            .limit(limit)
        )
        return [
            (row["number"], _run({k: v for k, v in row.items() if k != "number"}))
            for row in self._connection.execute(query).mappings()
        ]


def batched(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """`ids` in pieces that one statement can take: PostgreSQL has 65,535 parameters at most."""
    for start in range(0, len(ids), MAX_IDS):
        yield ids[start : start + MAX_IDS]


def _run(row: Mapping[Any, Any]) -> RunRow:
    reason = row["reason"]
    return RunRow(
        **{
            **row,
            "state": RunState(row["state"]),
            "reason": None if reason is None else FailReason(reason),
        }
    )
