"""Runs and the reports of their epochs in the database."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    delete,
    func,
    literal,
    or_,
    select,
    update,
)

from ridgeline.service.lifecycle import OPEN_RUN, FailReason, RunState, TrialState
from ridgeline.service.store.bulk import OLD, insert_rows, one_of, update_rows
from ridgeline.service.store.ids import next_id
from ridgeline.service.store.rows import RunOfTrial, RunRow
from ridgeline.service.store.tables import deleted_studies, reports, runs, trials

_COLUMNS = [runs.c[name] for name in RunRow._fields]


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
        first = next_id(self._connection, runs.c.id, deleted_studies.c.last_run_id)
        if first is not None:
            rows = [{"id": run_id, **row} for run_id, row in enumerate(rows, start=first)]
        insert_rows(self._connection, runs, rows)

    def get(self, run_ids: Sequence[int]) -> dict[int, RunRow]:
        query = select(*_COLUMNS).where(self._one_of(runs.c.id, run_ids)).order_by(runs.c.id)
        return {run.id: run for run in self._all(query)}

    def studies_of(self, run_ids: Sequence[int]) -> dict[int, int]:
        """The studies of runs, both by their ids."""
        query = select(runs.c.id, runs.c.study_id).where(self._one_of(runs.c.id, run_ids))
        return {row[0]: row[1] for row in self._connection.execute(query)}

    def of_trials(self, trial_ids: Sequence[int]) -> dict[int, list[RunRow]]:
        """The runs of each trial, in the order of their replicates."""
        found: dict[int, list[RunRow]] = {trial_id: [] for trial_id in trial_ids}
        query = (
            select(*_COLUMNS)
            .where(self._one_of(runs.c.trial_id, trial_ids))
            .order_by(runs.c.trial_id, runs.c.replicate)
        )
        for run in self._all(query):
            found[run.trial_id].append(run)
        return found

    def open_of(self, study_id: int, *, limit: int) -> list[RunRow]:
        """Open runs of a study, those that train first."""
        query = (
            select(*_COLUMNS)
            .where(
                runs.c.study_id == study_id,
                runs.c.state.in_([state.value for state in OPEN_RUN]),
            )
            .order_by(runs.c.state, runs.c.id)
            .limit(limit)
        )
        return self._all(query)

    def held_by(self, worker_id: str) -> list[RunRow]:
        """Runs handed out to a worker and not ended."""
        query = (
            select(*_COLUMNS)
            .where(runs.c.worker_id == worker_id, runs.c.state == RunState.RUNNING.value)
            .order_by(runs.c.id)
        )
        return self._all(query)

    def num_held(self, worker_ids: Sequence[str]) -> dict[str, dict[str, int]]:
        """How many runs each of these workers holds, by device."""
        found: dict[str, dict[str, int]] = {worker_id: {} for worker_id in worker_ids}
        query = (
            select(runs.c.worker_id, runs.c.device, func.count())
            .where(runs.c.worker_id.in_(worker_ids), runs.c.state == RunState.RUNNING.value)
            .group_by(runs.c.worker_id, runs.c.device)
        )
        for worker_id, device, count in self._connection.execute(query):
            found[worker_id][device] = count
        return found

    def mean_epoch(self, study_id: int) -> float | None:
        """The mean of the last epochs of running runs; None where none has reported one."""
        last_epoch = (
            select(func.max(reports.c.epoch)).where(reports.c.run_id == runs.c.id).scalar_subquery()
        )
        query = select(func.avg(last_epoch)).where(
            runs.c.study_id == study_id, runs.c.state == RunState.RUNNING.value
        )
        mean = self._connection.execute(query).scalar_one()
        return None if mean is None else float(mean)

    def lease_expired(self, now: float) -> list[RunRow]:
        """Runs of external programs that have been silent for longer than their lease."""
        query = (
            select(*_COLUMNS)
            .where(runs.c.state == RunState.RUNNING.value, runs.c.lease_expires_at < now)
            .order_by(runs.c.study_id, runs.c.id)
        )
        return self._all(query)

    def waiting(
        self, study_id: int, *, limit: int, of_running_trials_only: bool = False
    ) -> list[RunOfTrial]:
        """Waiting runs by trial number, then by replicate."""
        query = (
            _OF_TRIALS.where(runs.c.study_id == study_id, runs.c.state == RunState.WAITING.value)
            .order_by(trials.c.number, runs.c.replicate)
            .limit(limit)
        )
        if of_running_trials_only:
            query = query.where(trials.c.state == TrialState.RUNNING.value)
        return [_of_trial(row) for row in self._connection.execute(query)]

    def held_by_client(self, study_id: int, client_id: str, *, limit: int) -> list[RunOfTrial]:
        """Runs of a study handed out to a program and not ended, by trial number."""
        query = (
            _OF_TRIALS.where(
                runs.c.study_id == study_id,
                runs.c.state == RunState.RUNNING.value,
                runs.c.client_id == client_id,
            )
            .order_by(trials.c.number)
            .limit(limit)
        )
        return [_of_trial(row) for row in self._connection.execute(query)]

    def with_trials(self, run_ids: Sequence[int]) -> list[RunOfTrial]:
        """Runs by id, in that order."""
        query = _OF_TRIALS.where(self._one_of(runs.c.id, run_ids)).order_by(runs.c.id)
        return [_of_trial(row) for row in self._connection.execute(query)]

    def change(self, changes: Sequence[tuple[RunRow, RunRow]]) -> bool:
        """Guarded changes of runs from what each was to what it is now.

        Returns False where one of them had another state or attempt by then.
        """
        if not changes:
            return True
        columns = zip(
            RunRow._fields,
            zip(*(before for before, _ in changes), strict=True),
            zip(*(after for _, after in changes), strict=True),
            strict=True,
        )
        names = [name for name, before, after in columns if before != after]
        changed = update_rows(
            self._connection,
            runs,
            [
                {
                    OLD + "id": before.id,
                    OLD + "attempt": before.attempt,
                    OLD + "state": before.state,
                    **{name: getattr(after, name) for name in names},
                }
                for before, after in changes
            ],
        )
        return changed == len(changes)

    def renew_leases(
        self, run_ids: Sequence[int], now: float, *, lease_seconds: float | None = None
    ) -> None:
        """Let the leases of runs, locked by their study, begin anew; None leaves their length."""
        if run_ids:
            seconds = runs.c.lease_seconds if lease_seconds is None else literal(lease_seconds)
            self._connection.execute(
                update(runs)
                .where(self._one_of(runs.c.id, run_ids))
                .values(lease_seconds=seconds, lease_expires_at=now + seconds)
            )

    def any_lease_too_long(self, now: float) -> bool:
        """Whether a lease of an external program lasts longer than one that begins now."""
        query = select(runs.c.id).where(runs.c.lease_expires_at > now + runs.c.lease_seconds)
        return self._connection.execute(query.limit(1)).first() is not None

    def renew_all_leases(self, now: float) -> None:
        """Let the leases of all external programs begin anew."""
        self._connection.execute(
            update(runs)
            .where(runs.c.lease_expires_at.is_not(None))
            .values(lease_expires_at=now + runs.c.lease_seconds)
        )

    def reported_epochs(
        self, run_ids: Sequence[int], first: int, last: int
    ) -> set[tuple[int, int]]:
        """(run, epoch) of the reports of some runs, from epoch `first` to `last`."""
        query = select(reports.c.run_id, reports.c.epoch).where(
            self._one_of(reports.c.run_id, run_ids), reports.c.epoch.between(first, last)
        )
        return {(run_id, epoch) for run_id, epoch in self._connection.execute(query)}

    def epochs_of(self, run_ids: Sequence[int]) -> dict[int, set[int]]:
        """The epochs that each run has reported."""
        found: dict[int, set[int]] = {run_id: set() for run_id in run_ids}
        query = select(reports.c.run_id, reports.c.epoch).where(
            self._one_of(reports.c.run_id, run_ids)
        )
        for run_id, epoch in self._connection.execute(query):
            found[run_id].add(epoch)
        return found

    def last_metric(self, run_id: int, metric: str, *, above_epoch: int) -> float | None:
        """The value of `metric` at the last epoch past `above_epoch` that reported it."""
        query = (
            select(reports.c.metrics)
            .where(reports.c.run_id == run_id, reports.c.epoch > above_epoch)
            .order_by(reports.c.epoch.desc())
        )
        for metrics in self._connection.execute(query).scalars():
            if metric in metrics:
                return float(metrics[metric])
        return None

    def metrics_at(
        self, trial_ids: Sequence[int], epochs: Collection[int]
    ) -> dict[int, dict[int, Mapping[str, float]]]:
        """By trial and epoch, what trials of one run have reported at some of `epochs`."""
        found: dict[int, dict[int, Mapping[str, float]]] = {}
        if not trial_ids or not epochs:
            return found
        query = (
            select(runs.c.trial_id, reports.c.epoch, reports.c.metrics)
            .join(runs, runs.c.id == reports.c.run_id)
            .where(self._one_of(runs.c.trial_id, trial_ids), reports.c.epoch.in_(epochs))
        )
        for trial_id, epoch, metrics in self._connection.execute(query):
            found.setdefault(trial_id, {})[epoch] = metrics
        return found

    def curves_of(
        self, run_ids: Sequence[int], *, most: int
    ) -> dict[int, list[tuple[int, Mapping[str, float]]]]:
        """(epoch, metrics) of what each run has reported, in the order of the epochs.

        Where the longest run has more than `most` epochs, some, evenly spaced, and each run's last.
        """
        found: dict[int, list[tuple[int, Mapping[str, float]]]] = {id_: [] for id_ in run_ids}
        of_runs = self._one_of(reports.c.run_id, run_ids)
        longest = self._connection.execute(select(func.max(reports.c.epoch)).where(of_runs))
        every = max(1, math.ceil((longest.scalar_one() or 0) / most))
        later = reports.alias()
        last = select(func.max(later.c.epoch)).where(later.c.run_id == reports.c.run_id)
        query = (
            select(reports.c.run_id, reports.c.epoch, reports.c.metrics)
            .where(
                of_runs,
                or_(
                    reports.c.epoch % every == 1 % every,
                    reports.c.epoch == last.scalar_subquery(),
                ),
            )
            .order_by(reports.c.run_id, reports.c.epoch)
        )
        for run_id, epoch, metrics in self._connection.execute(query):
            found[run_id].append((epoch, metrics))
        return found

    def insert_reports(self, rows: Sequence[Mapping[str, Any]]) -> None:
        insert_rows(self._connection, reports, rows)

    def delete_reports(self, run_ids: Sequence[int], *, above_epoch: int = 0) -> None:
        """Forget the epochs of runs past `above_epoch`."""
        if run_ids:
            self._connection.execute(
                delete(reports).where(
                    self._one_of(reports.c.run_id, run_ids), reports.c.epoch > above_epoch
                )
            )

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
            select(*_COLUMNS, trials.c.number)
            .join(trials, trials.c.id == runs.c.trial_id)
            .where(runs.c.study_id == study_id, runs.c.revision > revision)
            .order_by(runs.c.revision)
            .limit(limit)
        )
        rows = self._connection.execute(query)
        return [(number, _run(columns)) for *columns, number in rows]

    def _one_of(self, column: ColumnElement[int], ids: Sequence[int]) -> ColumnElement[bool]:
        return one_of(self._connection, column, ids)

    def _all(self, query: Select[Any]) -> list[RunRow]:
        return [_run(row) for row in self._connection.execute(query)]


def _run(row: Sequence[Any]) -> RunRow:
    state, reason, *others = row
    return RunRow(RunState(state), None if reason is None else FailReason(reason), *others)


_OF_TRIALS = select(
    *_COLUMNS, trials.c.number, trials.c.config, trials.c.state.label("trial_state")
).join(trials, trials.c.id == runs.c.trial_id)


def _of_trial(row: Sequence[Any]) -> RunOfTrial:
    *columns, number, config, trial_state = row
    return RunOfTrial(_run(columns), number, config, TrialState(trial_state))
