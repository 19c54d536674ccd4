"""What the copy of a study remembers of how it was described: when, and at which version."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, select

from ridgeline.search.spec import StudySpec
from ridgeline.service.lifecycle import OPEN_STUDY, TrialState
from ridgeline.service.projection.optuna_tables import STUDIES, STUDY_SYSTEM_ATTRS
from ridgeline.service.store.trials import Trials
from ridgeline.service.winners import Winner

MARK = "ridgeline:described"
"""The system attribute of a study's copy that holds its mark."""

_TENTHS = 10

MARK_COLUMN = (
    select(STUDY_SYSTEM_ATTRS.c.value_json)
    .where(STUDY_SYSTEM_ATTRS.c.study_id == STUDIES.c.study_id, STUDY_SYSTEM_ATTRS.c.key == MARK)
    .scalar_subquery()
    .label("mark")
)


@dataclass(frozen=True)
class Mark:
    """How a study stood when its copy was described.

    Attributes:
        version: of the note; another one in the dashboard's own attribute is that of a person.
        noted_at: the study's revision when the note was written.
        drawn_at: the same when trials were counted and curves were drawn.
        tenths: of the planned trials had ended by `drawn_at`.
        complete, pruned, failed: trials by `drawn_at`.
    """

    version: int
    noted_at: int
    drawn_at: int
    tenths: int
    complete: int
    pruned: int
    failed: int

    def with_version(self, version: int) -> Mark:
        return replace(self, version=version)

    def as_attribute(self) -> dict[str, int]:
        return asdict(self)


def mark_of(study: Row[Any]) -> Mark | None:
    """The mark of a study's copy; None where it has none that could be ours."""
    if study.mark is None:
        return None
    try:
        mark = Mark(**json.loads(study.mark))
    except (TypeError, ValueError):
        return None
    if any(type(number) is not int for number in mark.as_attribute().values()):
        return None
    return mark if max(mark.noted_at, mark.drawn_at) <= study.revision else None


def mark_due(connection: Connection, study: Row[Any], spec: StudySpec, best: Winner | None) -> Mark:
    """The mark of a description that is right now; the old one where that still is.

    The note follows the best trial.  Counting and drawing read more, so they wait for a change of
    the study's state and for each tenth of its trials.
    """
    old, now = mark_of(study), int(study.revision)
    version = now if old is None else max(now, old.version + 1)
    tenths = _tenths_ended(study, spec)
    if old is None or study.state_revision > old.drawn_at or tenths != old.tenths:
        return counted(connection, study, Mark(version, now, now, tenths, 0, 0, 0))
    if best is not None and best.revision > old.noted_at:
        return replace(old, version=version, noted_at=now)
    return old


def counted(connection: Connection, study: Row[Any], mark: Mark) -> Mark:
    """The mark with the numbers of trials that had ended by then."""
    ended = Trials(connection).num_ended(study.id, until_revision=mark.drawn_at)
    return replace(
        mark,
        complete=ended.get(TrialState.COMPLETE, 0),
        pruned=ended.get(TrialState.PRUNED, 0),
        failed=ended.get(TrialState.FAIL, 0),
    )


def _tenths_ended(study: Row[Any], spec: StudySpec) -> int:
    if study.state not in OPEN_STUDY and study.num_open == 0:
        return _TENTHS
    num_ended = study.next_number - study.num_open
    return min(_TENTHS - 1, int(_TENTHS * num_ended // spec.num_trials))
