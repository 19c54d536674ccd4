"""Studies in the database."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from time import monotonic
from typing import Any, NamedTuple

from pydantic import TypeAdapter
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Text,
    and_,
    case,
    cast,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from ridgeline.search.spec import StudySpec
from ridgeline.service import metrics
from ridgeline.service.errors import Conflict, NotFound
from ridgeline.service.lifecycle import (
    OPEN_RUN,
    OPEN_STUDY,
    SERVABLE_STUDY,
    RunState,
    StudyState,
    TrialState,
)
from ridgeline.service.store.bulk import one_of
from ridgeline.service.store.ids import next_id
from ridgeline.service.store.rows import PastSpace, StudyRow
from ridgeline.service.store.tables import (
    deleted_studies,
    reports,
    runs,
    sources,
    studies,
    trials,
)

SPEC_TEXT = cast(studies.c.spec, Text).label("spec")
"""The spec as it is stored, for `parsed_spec`."""

PAST_SPACES_TEXT = cast(studies.c.past_spaces, Text).label("past_spaces")
"""The same of earlier spaces, for `parsed_spaces`."""

COLUMNS = [
    SPEC_TEXT,
    PAST_SPACES_TEXT,
    *(column for column in studies.c if column.name not in ("spec", "past_spaces")),
]
"""Those of a study's row, what is parsed as its text."""

_PAST_SPACES = TypeAdapter(tuple[PastSpace, ...])


class Load(NamedTuple):
    """How many runs of a study are RUNNING and WAITING."""

    num_in_flight: int
    num_waiting: int


class Deadline(NamedTuple):
    """When the time of a study's budget began, and when it is up."""

    started_at: float
    deadline_at: float

    def moved(self, seconds: float) -> Deadline:
        """The same by a clock that was set by so many seconds."""
        return Deadline(self.started_at + seconds, self.deadline_at + seconds)


class Studies:
    """Reads studies, and keeps those locked by this transaction until they are written back."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._locked: dict[int, tuple[StudyRow, dict[str, Any]]] = {}
        self.deleted: list[int] = []
        """Ids of the studies that this transaction has deleted."""

    def insert(self, **values: Any) -> StudyRow:
        """Add a study; it is then locked by this transaction.

        Raises:
            Conflict: somebody else has just taken the name; the transaction must end.
        """
        study_id = next_id(self._connection, studies.c.id, deleted_studies.c.study_id)
        if study_id is not None:
            values["id"] = study_id
        query = insert(studies).values(**values).returning(studies.c.id)
        try:
            study_id = self._connection.execute(query).scalar_one()
        except IntegrityError as exc:
            raise Conflict(f"the name {values['name']} was just taken; choose another") from exc
        return self.lock(study_id)

    def find(self, name: str) -> StudyRow | None:
        row = (
            self._connection.execute(select(*COLUMNS).where(studies.c.name == name))
            .mappings()
            .first()
        )
        return None if row is None else _study(row)

    def get(self, study_id: int) -> StudyRow | None:
        """A study that was found before; None where it has been deleted since."""
        row = (
            self._connection.execute(select(*COLUMNS).where(studies.c.id == study_id))
            .mappings()
            .first()
        )
        return None if row is None else _study(row)

    def of_ids(self, study_ids: Sequence[int]) -> dict[int, StudyRow]:
        """Studies by id; those locked by this transaction as it has changed them."""
        query = select(*COLUMNS).where(one_of(self._connection, studies.c.id, study_ids))
        found = {row["id"]: _study(row) for row in self._connection.execute(query).mappings()}
        return found | {i: self._locked[i][0] for i in study_ids if i in self._locked}

    def name_of(self, study_id: int) -> str | None:
        """The name of a study, whatever else its row holds; None where it has been deleted."""
        query = select(studies.c.name).where(studies.c.id == study_id)
        name = self._connection.execute(query).scalar()
        return None if name is None else str(name)

    def ids(self) -> list[int]:
        """Of all studies, oldest first."""
        return list(self._connection.execute(select(studies.c.id).order_by(studies.c.id)).scalars())

    def lock(self, study_id: int) -> StudyRow:
        """The study, locked against every other transaction until this one ends.

        Locking several studies, lock them in the order of their ids.

        Raises:
            NotFound: the study was deleted since it was found.
        """
        if study_id not in self._locked:
            query = select(*COLUMNS).where(studies.c.id == study_id).with_for_update()
            began = monotonic()
            found = self._connection.execute(query).mappings().first()
            if self._connection.dialect.name == "postgresql":  # SQLite locks no rows
                metrics.LOCK_WAIT_SECONDS.labels("row").observe(monotonic() - began)
            if found is None:
                raise NotFound("the study was just deleted")
            row = _study(found)
            self._locked[study_id] = row, dict(vars(row))
        return self._locked[study_id][0]

    def write_back(self) -> list[int]:
        """Write the studies changed under lock, guarded by the revision they had; their ids."""
        changed = []
        for study_id, (row, before) in sorted(self._locked.items()):
            values = {k: v for k, v in vars(row).items() if v != before[k]}
            if not values:
                continue
            if "spec" in values:
                values["spec"] = row.spec.model_dump(mode="json")
            if "past_spaces" in values:
                values["past_spaces"] = _PAST_SPACES.dump_python(row.past_spaces, mode="json")
            written = self._connection.execute(
                update(studies)
                .where(studies.c.id == study_id, studies.c.revision == before["revision"])
                .values(**values)
            )
            assert written.rowcount == 1, "a locked study was changed by somebody else"
            self._locked[study_id] = row, dict(vars(row))
            changed.append(study_id)
        return changed

    def delete(self, study_id: int, *, now: float) -> None:
        """Delete a locked study with its trials, runs and reports; its ids are not used again.

        Its artifacts are doomed before.
        """
        of_study = runs.c.study_id == study_id
        last_run_id = select(func.max(runs.c.id)).scalar_subquery()
        kept = select(
            studies.c.id,
            studies.c.name,
            studies.c.optuna_study_id,
            func.coalesce(last_run_id, 0),
            literal(now),
        ).where(studies.c.id == study_id)
        columns = ["study_id", "name", "optuna_study_id", "last_run_id", "deleted_at"]
        for statement in (
            insert(deleted_studies).from_select(columns, kept),
            delete(reports).where(reports.c.study_id == study_id),
            delete(runs).where(of_study),
            delete(trials).where(trials.c.study_id == study_id),
            delete(sources).where(sources.c.study_id == study_id),
            delete(studies).where(studies.c.id == study_id),
        ):
            self._connection.execute(statement)
        del self._locked[study_id]
        self.deleted.append(study_id)

    def mark_projection_failed(self, study_id: int, error: str) -> None:
        self._connection.execute(
            update(studies).where(studies.c.id == study_id).values(projection_error=error)
        )

    def page(
        self,
        *,
        limit: int,
        below_id: int | None,
        states: Collection[StudyState],
        archived: bool = False,
    ) -> list[StudyRow]:
        """At most `limit` studies in one of `states` (none: in any), newest first.

        Archived ones only where asked for.
        """
        query = _of_page(select(*COLUMNS), limit, below_id, states, archived=archived)
        return [_study(row) for row in self._connection.execute(query).mappings()]

    def spec_sizes(
        self,
        *,
        limit: int,
        below_id: int | None,
        states: Collection[StudyState],
        archived: bool = False,
    ) -> list[int]:
        """How long the specs of the studies of `page` are as text, their past spaces with them."""
        sizes = select(func.length(SPEC_TEXT) + func.length(PAST_SPACES_TEXT))
        query = _of_page(sizes, limit, below_id, states, archived=archived)
        return [int(size) for size in self._connection.execute(query).scalars()]

    def num_in(self, states: Collection[StudyState], *, archived: bool = False) -> int:
        """How many studies `page` has in all."""
        query = select(func.count()).select_from(studies).where(*_shown(states, archived))
        return int(self._connection.execute(query).scalar_one())

    def num_open_of(self, owner: str | None) -> int:
        query = select(func.count()).where(
            studies.c.owner.is_(owner) if owner is None else studies.c.owner == owner,
            _is_open(),
        )
        return int(self._connection.execute(query).scalar_one())

    def servable(self) -> list[StudyRow]:
        """Studies that may hand out runs, highest priority first."""
        query = (
            select(*COLUMNS)
            .where(_is_in(SERVABLE_STUDY))
            .order_by(studies.c.priority.desc(), studies.c.id)
        )
        return [_study(row) for row in self._connection.execute(query).mappings()]

    def overdue(self, now: float) -> list[int]:
        """Ids of open studies whose time is up and that have not been told to stop."""
        query = (
            select(studies.c.id)
            .where(
                _is_open(),
                studies.c.stopping.is_(False),
                studies.c.deadline_at <= now,
                studies.c.ungranted_seconds.is_(None),
            )
            .order_by(studies.c.id)
        )
        return list(self._connection.execute(query).scalars())

    def to_wind_up(self) -> list[int]:
        """Ids of studies with trials to cancel, since they have ended or are to stop."""
        waiting = select(trials.c.id).where(
            trials.c.study_id == studies.c.id, trials.c.state == TrialState.WAITING.value
        )
        query = (
            select(studies.c.id)
            .where(
                studies.c.num_open > 0,
                or_(~_is_open(), and_(studies.c.stopping, waiting.exists())),
            )
            .order_by(studies.c.id)
        )
        return list(self._connection.execute(query).scalars())

    def deadlines(self) -> dict[int, Deadline]:
        """Of the open studies that have been granted one, by id."""
        query = select(studies.c.id, studies.c.started_at, studies.c.deadline_at).where(
            _is_open(),
            studies.c.deadline_at.is_not(None),
            studies.c.ungranted_seconds.is_(None),
        )
        return {row[0]: Deadline(row[1], row[2]) for row in self._connection.execute(query)}

    def ungranted(self) -> dict[int, float]:
        """For how many seconds open studies are to be granted a deadline, by id."""
        query = select(studies.c.id, studies.c.ungranted_seconds).where(
            _is_open(), studies.c.ungranted_seconds.is_not(None)
        )
        return {row[0]: row[1] for row in self._connection.execute(query)}

    def grant_deadline(self, study_id: int, seconds: float, now: float) -> Deadline | None:
        """Let a study's time be up so many seconds from now.

        None where others were first, or the study has other seconds by now.
        """
        deadline_at = now + seconds
        is_later = studies.c.started_at > now  # by a clock that has been set back since
        granted = self._connection.execute(
            update(studies)
            .where(studies.c.id == study_id, studies.c.ungranted_seconds == seconds)
            .values(
                started_at=case((is_later, now), else_=studies.c.started_at),
                deadline_at=deadline_at,
                ungranted_seconds=None,
            )
            .returning(studies.c.started_at)
        ).scalar()
        return None if granted is None else Deadline(granted, deadline_at)

    def move_deadline(self, study_id: int, before: Deadline, seconds: float) -> None:
        """Move both times of a study's budget, unless somebody else has moved them since."""
        self._connection.execute(
            update(studies)
            .where(studies.c.id == study_id, studies.c.deadline_at == before.deadline_at)
            .values(
                started_at=studies.c.started_at + seconds,
                deadline_at=studies.c.deadline_at + seconds,
            )
        )

    def trial_counts(self, study: StudyRow) -> dict[TrialState, int]:
        """The trials of a study by state.

        Counts the others: nearly all trials of a long study are complete.
        """
        query = (
            select(trials.c.state, func.count())
            .where(
                trials.c.study_id == study.id,
                trials.c.state.in_([s.value for s in TrialState if s is not TrialState.COMPLETE]),
            )
            .group_by(trials.c.state)
        )
        counts = {TrialState(row[0]): row[1] for row in self._connection.execute(query)}
        return {**counts, TrialState.COMPLETE: study.next_number - sum(counts.values())}

    def load(self, study_ids: Sequence[int]) -> dict[int, Load]:
        """The open runs of each study, of which a long study has few."""
        query = (
            select(runs.c.study_id, runs.c.state, func.count())
            .where(
                runs.c.study_id.in_(study_ids),
                runs.c.state.in_([state.value for state in OPEN_RUN]),
            )
            .group_by(runs.c.study_id, runs.c.state)
        )
        counts = {(row[0], row[1]): row[2] for row in self._connection.execute(query)}
        return {
            study_id: Load(
                counts.get((study_id, RunState.RUNNING), 0),
                counts.get((study_id, RunState.WAITING), 0),
            )
            for study_id in study_ids
        }


@lru_cache(maxsize=1_024)
def parsed_spec(text: str) -> StudySpec:
    """A spec from its text in the database, which changes only where a study is extended."""
    return StudySpec.model_validate_json(text)


@lru_cache(maxsize=64)
def parsed_spaces(text: str) -> tuple[PastSpace, ...]:
    """The earlier spaces of a study from their text in the database, which changes as the spec."""
    return _PAST_SPACES.validate_json(text)


def _is_open() -> ColumnElement[bool]:
    return _is_in(OPEN_STUDY)


def _of_page(
    query: Select[Any],
    limit: int,
    below_id: int | None,
    states: Collection[StudyState],
    *,
    archived: bool,
) -> Select[Any]:
    """The query, of the studies of one page alone."""
    of_page = query.where(*_shown(states, archived)).order_by(studies.c.id.desc()).limit(limit)
    return of_page if below_id is None else of_page.where(studies.c.id < below_id)


def _shown(states: Collection[StudyState], archived: bool) -> Iterator[ColumnElement[bool]]:
    """What is true of the studies of a list."""
    if states:
        yield _is_in(states)
    if not archived:
        yield studies.c.archived.is_(False)


def _is_in(states: Collection[StudyState]) -> ColumnElement[bool]:
    return studies.c.state.in_([state.value for state in states])


def _study(row: Mapping[Any, Any]) -> StudyRow:
    values = {
        **row,
        "state": StudyState(row["state"]),
        "spec": parsed_spec(row["spec"]),
        "past_spaces": parsed_spaces(row["past_spaces"]),
    }
    return StudyRow(**values)
