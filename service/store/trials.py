"""Trials in the database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, and_, func, or_, select

from ridgeline.service.lifecycle import OPEN_TRIAL, FailReason, TrialState
from ridgeline.service.store.bulk import OLD, insert_rows, one_of, update_rows
from ridgeline.service.store.rows import TrialRow
from ridgeline.service.store.tables import trials

_COLUMNS = [trials.c[name] for name in TrialRow._fields]


class Trials:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(self, study_id: int, rows: Sequence[Mapping[str, Any]]) -> list[int]:
        """Add trials of one study, the next numbers; their ids, in the order given.

        Raises:
            IntegrityError: a number or a grid cell is taken.
        """
        insert_rows(self._connection, trials, rows)
        query = select(trials.c.number, trials.c.id).where(
            trials.c.study_id == study_id, trials.c.number >= rows[0]["number"]
        )
        ids = {row[0]: row[1] for row in self._connection.execute(query)}
        return [ids[row["number"]] for row in rows]

    def get(self, trial_id: int) -> TrialRow:
        query = select(*_COLUMNS).where(trials.c.id == trial_id)
        return _trial(self._connection.execute(query).one())

    def of_ids(self, trial_ids: Sequence[int]) -> dict[int, TrialRow]:
        """Trials by id."""
        query = select(*_COLUMNS).where(one_of(self._connection, trials.c.id, trial_ids))
        return {row.id: row for row in map(_trial, self._connection.execute(query))}

    def states(self, trial_ids: Sequence[int]) -> dict[int, TrialState]:
        """The states of trials by id."""
        query = select(trials.c.id, trials.c.state).where(
            one_of(self._connection, trials.c.id, trial_ids)
        )
        return {row[0]: TrialState(row[1]) for row in self._connection.execute(query)}

    def of_numbers(self, study_id: int, numbers: Sequence[int]) -> dict[int, TrialRow]:
        """Trials of a study by number; those that do not exist are left out."""
        query = select(*_COLUMNS).where(
            trials.c.study_id == study_id, one_of(self._connection, trials.c.number, numbers)
        )
        return {row.number: row for row in map(_trial, self._connection.execute(query))}

    def find(self, study_id: int, number: int) -> TrialRow | None:
        query = select(*_COLUMNS).where(trials.c.study_id == study_id, trials.c.number == number)
        row = self._connection.execute(query).first()
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
        return [_trial(row) for row in self._connection.execute(query)]

    def changed_since(self, study_id: int, revision: int, *, limit: int | None) -> list[TrialRow]:
        """Trials whose last change is past `revision`, in the order of change."""
        query = (
            select(*_COLUMNS)
            .where(trials.c.study_id == study_id, trials.c.revision > revision)
            .order_by(trials.c.revision)
            .limit(limit)
        )
        return [_trial(row) for row in self._connection.execute(query)]

    def best_of_search(
        self,
        study_id: int,
        *,
        maximize: bool,
        limit: int,
        offset: int = 0,
        until_revision: int | None = None,
    ) -> list[TrialRow]:
        """The best complete trials that repeat no other one; ties by the smaller number.

        Args:
            until_revision: of those alone that were complete by then.
        """
        query = (
            select(*_COLUMNS)
            .where(
                trials.c.study_id == study_id,
                trials.c.state == TrialState.COMPLETE.value,
                trials.c.repeats.is_(None),
            )
            .order_by(trials.c.value.desc() if maximize else trials.c.value, trials.c.number)
            .limit(limit)
            .offset(offset)
        )
        if until_revision is not None:
            query = query.where(trials.c.finished_revision <= until_revision)
        return [_trial(row) for row in self._connection.execute(query)]

    def repeats(self, study_id: int) -> list[TrialRow]:
        """The trials that train others again, by number."""
        query = (
            select(*_COLUMNS)
            .where(trials.c.study_id == study_id, trials.c.repeats.is_not(None))
            .order_by(trials.c.number)
        )
        return [_trial(row) for row in self._connection.execute(query)]

    def num_ended(self, study_id: int, *, until_revision: int) -> dict[TrialState, int]:
        """How many trials that repeat no other one had ended by a revision, by state.

        Reads all trials of the study.
        """
        query = (
            select(trials.c.state, func.count())
            .where(
                trials.c.study_id == study_id,
                trials.c.finished_revision <= until_revision,
                trials.c.repeats.is_(None),
            )
            .group_by(trials.c.state)
        )
        return {TrialState(row[0]): row[1] for row in self._connection.execute(query)}

    def ended(self, study_id: int) -> list[tuple[int, str, float | None]]:
        """Number, state and value of each trial that has ended, by number.

        Without those that tell nothing: pruned before they had a value, or cancelled.
        """
        query = (
            select(trials.c.number, trials.c.state, trials.c.value)
            .where(
                trials.c.study_id == study_id,
                trials.c.state.not_in([state.value for state in OPEN_TRIAL]),
                or_(
                    trials.c.value.is_not(None),
                    and_(
                        trials.c.state == TrialState.FAIL.value,
                        trials.c.reason != FailReason.CANCELLED.value,
                    ),
                ),
            )
            .order_by(trials.c.number)
        )
        return [(number, state, value) for number, state, value in self._connection.execute(query)]

    def lowest_open(self, study_id: int) -> int | None:
        """The smallest number of a trial that has not ended."""
        query = select(func.min(trials.c.number)).where(
            trials.c.study_id == study_id,
            trials.c.state.in_([state.value for state in OPEN_TRIAL]),
        )
        lowest: int | None = self._connection.execute(query).scalar_one()
        return lowest

    def num_running(self, study_id: int) -> int:
        query = select(func.count()).where(
            trials.c.study_id == study_id, trials.c.state == TrialState.RUNNING.value
        )
        return int(self._connection.execute(query).scalar_one())

    def num_failed(self, study_id: int) -> dict[FailReason, int]:
        """How many trials failed of themselves, by reason: cancelling is nobody's failure."""
        query = (
            select(trials.c.reason, func.count().label("num"))
            .where(
                trials.c.study_id == study_id,
                trials.c.state == TrialState.FAIL.value,
                trials.c.reason != FailReason.CANCELLED.value,
            )
            .group_by(trials.c.reason)
        )
        counts = {row.reason: row.num for row in self._connection.execute(query)}
        return {reason: counts[reason] for reason in FailReason if reason in counts}

    def failures(self, study_id: int, reasons: Iterable[FailReason]) -> list[TrialRow]:
        """Trials that failed for one of some reasons and were not tried again, by number."""
        retries = select(trials.c.retry_of).where(
            trials.c.study_id == study_id, trials.c.retry_of.is_not(None)
        )
        query = (
            select(*_COLUMNS)
            .where(
                trials.c.study_id == study_id,
                trials.c.state == TrialState.FAIL.value,
                trials.c.reason.in_([reason.value for reason in reasons]),
                trials.c.number.not_in(retries),
                trials.c.repeats.is_(None),
            )
            .order_by(trials.c.number)
        )
        return [_trial(row) for row in self._connection.execute(query)]

    def num_retries(self, study_id: int) -> int:
        """Trials that try another one again."""
        query = select(func.count()).where(
            trials.c.study_id == study_id, trials.c.retry_of.is_not(None)
        )
        return int(self._connection.execute(query).scalar_one())

    def first_open_repeat(self, study_id: int) -> TrialRow | None:
        """The first trial under way that trains another one again."""
        query = (
            select(*_COLUMNS)
            .where(
                trials.c.study_id == study_id,
                trials.c.repeats.is_not(None),
                trials.c.state.in_([state.value for state in OPEN_TRIAL]),
            )
            .order_by(trials.c.number)
            .limit(1)
        )
        row = self._connection.execute(query).first()
        return None if row is None else _trial(row)

    def touch(self, revisions: Mapping[int, int]) -> None:
        """Note, by trial, that its runs or their reports have changed."""
        update_rows(
            self._connection,
            trials,
            [
                {OLD + "id": trial_id, "revision": revision}
                for trial_id, revision in revisions.items()
            ],
        )

    def transition(self, source: TrialState, changes: Mapping[int, Mapping[str, Any]]) -> bool:
        """Guarded transitions out of the state `source`: by trial, its new columns.

        Returns False where one of them was in another state.
        """
        moved = update_rows(
            self._connection,
            trials,
            [
                {OLD + "id": trial_id, OLD + "state": source.value, **values}
                for trial_id, values in changes.items()
            ],
        )
        return moved == len(changes)


def _trial(row: Sequence[Any]) -> TrialRow:
    state, reason, *others = row
    return TrialRow(TrialState(state), None if reason is None else FailReason(reason), *others)
