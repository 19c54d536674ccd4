"""Whether somebody else has written to a copy since it was written last, as far as that is cheap.

Optuna lets everybody who can write to its tables take a waiting trial, add one, or end one; a
notebook does it with `ask` and `tell`.  What is read here is what a write needs anyway, of the
trials that it changes, and the highest id of a copy's trials.  `comparing` finds the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.trial import TrialState as OptunaState
from sqlalchemy import Row, String, Table, func, select, type_coerce

from ridgeline.search.optuna_space import to_optuna
from ridgeline.search.spec import StudySpec
from ridgeline.service.projection.attributes import origin_attributes
from ridgeline.service.projection.optuna_tables import (
    DIRECTIONS,
    PARAMS,
    STUDIES,
    TRIAL_USER_ATTRS,
    TRIALS,
    VALUES,
    naive_utc,
)
from ridgeline.service.projection.study import direction
from ridgeline.service.store.tables import studies, trials


class CopyChanged(Exception):
    """Somebody else has written to the copy of a study."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"somebody else has written to the copy of this study in Optuna's tables: {what}; it "
            "is made anew with the study's next change, or by `ridgeline doctor --repair`. Open "
            "it only in a way through which nothing can be written"
        )


def _number_of(table: Table) -> Any:
    counted = select(func.count()).where(table.c.trial_id == trials.c.optuna_trial_id)
    return counted.scalar_subquery()


STUDY_COLUMNS = (
    select(func.max(TRIALS.c.trial_id))
    .where(TRIALS.c.study_id == STUDIES.c.study_id)
    .scalar_subquery()
    .label("copied_last_id"),
    select(trials.c.optuna_trial_id)
    .where(trials.c.study_id == studies.c.id, trials.c.optuna_trial_id.is_not(None))
    .order_by(trials.c.number.desc())
    .limit(1)
    .scalar_subquery()
    .label("last_id"),
    # As it is stored, so that a copy with nonsense there can be made anew.
    select(type_coerce(DIRECTIONS.c.direction, String))
    .where(DIRECTIONS.c.study_id == STUDIES.c.study_id, DIRECTIONS.c.objective == 0)
    .scalar_subquery()
    .label("copied_direction"),
)
"""What `check_study` reads, beside our row of a study and Optuna's."""

TRIAL_COLUMNS = (
    TRIALS.c.study_id.label("copied_study_id"),
    TRIALS.c.number.label("copied_number"),
    TRIALS.c.state.label("copied_state"),
    TRIALS.c.datetime_start.label("copied_start"),
    _number_of(PARAMS).label("num_params"),
    _number_of(VALUES).label("num_values"),
    _number_of(TRIAL_USER_ATTRS).label("num_attributes"),
)
"""What `check_trial` reads, beside our row of a trial and Optuna's."""


def check_study(study: Row[Any], spec: StudySpec) -> None:
    """See whether the copy has other trials than those it was given, or another direction.

    Raises:
        CopyChanged: it has.
    """
    if study.copied_last_id != study.last_id:
        raise CopyChanged(f"its last trial has the id {study.copied_last_id}, not {study.last_id}")
    if study.copied_direction != direction(spec).name:
        raise CopyChanged("its direction is another one")


def check_trial(
    trial: Row[Any], its_runs: Sequence[Row[Any]], spec: StudySpec, copy_id: int
) -> None:
    """See whether the copy of a trial is still the open one that it was.

    Raises:
        CopyChanged: it is not.
    """
    was_running = trial.copied_state is OptunaState.RUNNING
    attributes = origin_attributes(trial, its_runs).values()
    found = (
        (trial.copied_study_id, trial.copied_number),
        was_running or trial.copied_state is OptunaState.WAITING,
        trial.copied_start,
        (trial.num_params, trial.num_values, trial.num_attributes),
    )
    expected = (
        (copy_id, trial.number),
        True,
        naive_utc(trial.started_at) if was_running else None,
        (
            len(to_optuna(spec.space, trial.config)),
            0,
            sum(value is not None for value in attributes),
        ),
    )
    if found != expected:
        raise CopyChanged(f"trial {trial.number} was changed")
