"""Trials in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from service.lifecycle import OPEN_TRIAL, FailReason, TrialState
from service.store.rows import TrialRow
from service.store.runs import batched
from service.store.tables import trials

_COLUMNS = [column for column in trials.c if column.name != "optuna_trial_id"]


class Trials:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(self, rows: Sequence[Mapping[str, Any]]) -> list[int]:
        """Add trials; their ids, in the order given.

        Raises:
            IntegrityError: a number or a grid cell is taken.
        """
        return list(
            self._connection.execute(
                insert(trials).returning(trials.c.id, sort_by_parameter_order=True), list(rows)
            ).scalars()
        )

    def get(self, trial_id: int) -> TrialRow:
        return _trial(
            self._connection.execute(select(*_COLUMNS).where(trials.c.id == trial_id))
            .mappings()
            .one()
        )

    def of_ids(self, trial_ids: Sequence[int]) -> dict[int, TrialRow]:
        """Trials by id."""
        found: dict[int, TrialRow] = {}
        for ids in batched(trial_ids):
            query = select(*_COLUMNS).where(trials.c.id.in_(ids))
            rows = self._connection.execute(query).mappings()
            found |= {row["id"]: _trial(row) for row in rows}
        return found

    def find(self, study_id: int, number: int) -> TrialRow | None:
        row = (
            self._connection.execute(
                select(*_COLUMNS).where(trials.c.study_id == study_id, trials.c.number == number)
            )
            .mappings()
            .first()
        )
        return None if row is None else _trial(row)

    def page(
        self,
        study_id: int,
        *,
        limit: int | None = None,
        above_number: int = -1,
        state: TrialState | None = None,
    ) -> list[TrialRow]:
        """At most `limit` trials in the order of their numbers."""
        query = (
            select(*_COLUMNS)
            .where(trials.c.study_id == study_id, trials.c.number > above_number)
            .order_by(trials.c.number)
            .limit(limit)
        )
        if state is not None:
            query = query.where(trials.c.state == state.value)
        return [_trial(row) for row in self._connection.execute(query).mappings()]

    def changed_since(self, study_id: int, revision: int, *, limit: int | None) -> list[TrialRow]:
        """Trials whose last change is past `revision`, in the order of change."""
        query = (
            select(*_COLUMNS)
            .where(trials.c.study_id == study_id, trials.c.revision > revision)
            .order_by(trials.c.revision)
            .limit(limit)
        )
        return [_trial(row) for row in self._connection.execute(query).mappings()]

    def best(self, study_id: int, *, maximize: bool) -> TrialRow | None:
        """The complete trial with the best value; ties go to the smaller number."""
        value = trials.c.value.desc() if maximize else trials.c.value.asc()
        row = (
            self._connection.execute(
                select(*_COLUMNS)
                .where(trials.c.study_id == study_id, trials.c.state == TrialState.COMPLETE.value)
                .order_by(value, trials.c.number)
                .limit(1)
            )
            .mappings()
            .first()
        )
        return None if row is None else _trial(row)

    def lowest_open(self, study_id: int) -> int | None:
        """The smallest number of a trial that has not ended."""
        query = select(func.min(trials.c.number)).where(
            trials.c.study_id == study_id,
            trials.c.state.in_([state.value for state in OPEN_TRIAL]),
        )
        lowest: int | None = self._connection.execute(query).scalar_one()
        return lowest

    def num_failed(self, study_id: int) -> int:
        """How many trials failed of themselves: cancelling is nobody's failure."""
        query = select(func.count()).where(
            trials.c.study_id == study_id,
            trials.c.state == TrialState.FAIL.value,
            trials.c.reason != FailReason.CANCELLED.value,
        )
        return int(self._connection.execute(query).scalar_one())

    def touch(self, trial_id: int, revision: int) -> None:
        """Note that one of the trial's runs or reports has changed."""
        self._connection.execute(
            update(trials).where(trials.c.id == trial_id).values(revision=revision)
        )

    def transition(
        self, trial_id: int, source: TrialState, target: TrialState, **values: Any
    ) -> bool:
        """One guarded transition; False where the trial is no longer in the state `source`."""
        if isinstance(values.get("reason"), FailReason):
            values["reason"] = values["reason"].value
        written = self._connection.execute(
            update(trials)
            .where(trials.c.id == trial_id, trials.c.state == source.value)
            .values(state=target.value, **values)
        )
        return bool(written.rowcount == 1)


def _trial(row: Mapping[Any, Any]) -> TrialRow:
    reason = row["reason"]
    return TrialRow(
        **{
            **row,
            "state": TrialState(row["state"]),
            "reason": None if reason is None else FailReason(reason),
        }
    )
