"""Where a copy in Optuna's tables differs from what `project` would write into an empty one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Table, exists, select

from ridgeline.search.spec import StudySpec
from ridgeline.service.lifecycle import OPEN_TRIAL
from ridgeline.service.projection.describing import expected_rows
from ridgeline.service.projection.optuna_tables import (
    DIRECTIONS,
    PARAMS,
    STEPS,
    STUDY_SYSTEM_ATTRS,
    STUDY_USER_ATTRS,
    TRIAL_SYSTEM_ATTRS,
    TRIAL_USER_ATTRS,
    TRIALS,
    VALUES,
    attribute_rows,
)
from ridgeline.service.projection.steps import last_step, step_rows
from ridgeline.service.projection.study import direction, user_attributes
from ridgeline.service.projection.trials import (
    changed_trials,
    param_rows,
    runs_of,
    state_of,
    trial_attribute_rows,
    value_rows,
)
from ridgeline.service.store.bulk import one_of
from ridgeline.service.store.tables import trials

_KEYS = {
    DIRECTIONS: ("objective",),
    STUDY_USER_ATTRS: ("key",),
    STUDY_SYSTEM_ATTRS: ("key",),
    PARAMS: ("param_name",),
    VALUES: ("objective",),
    STEPS: ("step",),
    TRIAL_USER_ATTRS: ("key",),
    TRIAL_SYSTEM_ATTRS: ("key",),
}
"""What tells the rows of one study or trial apart."""

_WORDS = {
    DIRECTIONS: "the direction of objective",
    STUDY_USER_ATTRS: "the study's user attribute",
    STUDY_SYSTEM_ATTRS: "the study's system attribute",
    PARAMS: "parameter",
    VALUES: "the value of objective",
    STEPS: "step",
    TRIAL_USER_ATTRS: "user attribute",
    TRIAL_SYSTEM_ATTRS: "system attribute",
}

Rows = Iterable[Mapping[str, Any]]


def differences(
    connection: Connection, study: Row[Any], spec: StudySpec, copy_id: int
) -> Iterator[str]:
    """Each row of the copy that is not as it should be, by its name.

    Args:
        study: our row; everything in it has been copied.
    """
    yield from _of_study(connection, study, spec, copy_id)
    yield from _foreign_trials(connection, study.id, copy_id)
    for chunk in changed_trials(connection, study.id, 0):
        yield from _of_trials(connection, chunk, spec, copy_id)


def _of_study(
    connection: Connection, study: Row[Any], spec: StudySpec, copy_id: int
) -> Iterator[str]:
    expected: dict[Table, Rows] = {
        DIRECTIONS: [{"study_id": copy_id, "objective": 0, "direction": direction(spec)}],
        STUDY_USER_ATTRS: attribute_rows("study_id", {copy_id: user_attributes(study, spec)}),
        STUDY_SYSTEM_ATTRS: expected_rows(connection, study, spec, copy_id),
    }
    for table, rows in expected.items():
        for _, name in _differing(connection, table, "study_id", [copy_id], rows):
            yield f"{_WORDS[table]} {name}"


def _foreign_trials(connection: Connection, study_id: int, copy_id: int) -> Iterator[str]:
    query = (
        select(TRIALS.c.number, TRIALS.c.trial_id)
        .where(
            TRIALS.c.study_id == copy_id,
            ~exists().where(
                trials.c.study_id == study_id, trials.c.optuna_trial_id == TRIALS.c.trial_id
            ),
        )
        .order_by(TRIALS.c.trial_id)
    )
    for number, trial_id in connection.execute(query):
        yield f"trial {number} (id {trial_id}), which is not of the study"


def _of_trials(
    connection: Connection, chunk: Sequence[Row[Any]], spec: StudySpec, copy_id: int
) -> Iterator[str]:
    copied = [trial for trial in chunk if trial.optuna_trial_id is not None]
    yield from (f"trial {t.number}, which is missing" for t in chunk if t not in copied)
    numbers = {trial.optuna_trial_id: trial.number for trial in copied}
    copy_ids = {trial.id: trial.optuna_trial_id for trial in copied}
    its_runs = runs_of(connection, list(copy_ids))
    ended = [trial for trial in copied if trial.state not in OPEN_TRIAL]
    spans = {trial.id: (0, last_step(its_runs[trial.id])) for trial in copied}
    states = [
        {"trial_id": t.optuna_trial_id, "number": t.number, "study_id": copy_id, **state_of(t)}
        for t in copied
    ]
    ids = list(numbers)
    for trial_id, _ in _differing(connection, TRIALS, "trial_id", ids, states):
        yield f"trial {numbers[trial_id]}"
    expected: dict[Table, Rows] = {
        PARAMS: param_rows(copy_ids, copied, spec),
        VALUES: value_rows(copy_ids, ended),
        STEPS: step_rows(connection, copy_ids, spans, spec.objective.metric),
        TRIAL_USER_ATTRS: trial_attribute_rows(copy_ids, copied, ended, its_runs),
        TRIAL_SYSTEM_ATTRS: [],
    }
    for table, rows in expected.items():
        for trial_id, name in _differing(connection, table, "trial_id", ids, rows):
            yield f"trial {numbers[trial_id]}: {_WORDS[table]} {name}"


def _differing(
    connection: Connection, table: Table, owner: str, owner_ids: Sequence[int], expected: Rows
) -> list[tuple[int, str]]:
    """(owner, name) of the rows of some owners that are missing, changed or not expected."""
    expected = list(expected)
    key = (owner, *_KEYS.get(table, ()))
    names = list(expected[0]) if expected else list(key)
    columns = [table.c[name] for name in names]
    query = select(*columns).where(one_of(connection, table.c[owner], owner_ids))
    found = {_key(row, key): row for row in map(dict, connection.execute(query).mappings())}
    wanted = {_key(row, key): row for row in expected}
    return [
        (one[0], " ".join(map(str, one[1:])))
        for one in sorted(found.keys() | wanted.keys())
        if found.get(one) != wanted.get(one)
    ]


def _key(row: Mapping[Any, Any], names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)
