"""The trials of a study in Optuna's tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from optuna.distributions import distribution_to_json
from optuna.trial import TrialState as OptunaState
from sqlalchemy import Connection, Row, delete, func, insert, or_, select

from ridgeline.search.optuna_space import distributions, to_optuna
from ridgeline.search.space import Space
from ridgeline.search.spec import StudySpec
from ridgeline.service.lifecycle import OPEN_TRIAL
from ridgeline.service.projection.attributes import origin_attributes, result_attributes
from ridgeline.service.projection.noticing import TRIAL_COLUMNS, check_trial
from ridgeline.service.projection.optuna_tables import (
    PARAMS,
    STEPS,
    TRIAL_USER_ATTRS,
    TRIALS,
    VALUES,
    attribute_rows,
    naive_utc,
    stored_value,
)
from ridgeline.service.projection.steps import span_to_write, write_steps
from ridgeline.service.store.bulk import OLD, insert_rows, one_of, update_rows
from ridgeline.service.store.tables import reports, runs, trials

CHUNK = 500
"""Trials written at once: bounds memory and the number of values in one statement."""

_RUN_COLUMNS = (
    "trial_id", "id", "state", "revision", "seed", "attempt", "charges", "error", "kept_epoch",
    "metrics", "measures", "device_seconds",
)  # fmt: skip

RunsByTrial = Mapping[int, Sequence[Row[Any]]]


def write_trials(
    connection: Connection, study_id: int, copy_id: int, spec: StudySpec, *, above_revision: int
) -> None:
    """Write every trial that changed past `above_revision`, in the order of their numbers.

    Raises:
        CopyChanged: somebody else has written to the copy of one of them.
    """
    first_new_epochs = _first_new_epochs(connection, study_id, above_revision)
    for changed in changed_trials(connection, study_id, above_revision):
        new = [trial for trial in changed if trial.optuna_trial_id is None]
        ended = [trial for trial in changed if trial.state not in OPEN_TRIAL]
        its_runs = runs_of(connection, [trial.id for trial in changed])
        for trial in changed:
            if trial.optuna_trial_id is not None:
                check_trial(trial, its_runs[trial.id], spec, copy_id)
        copy_ids = {trial.id: trial.optuna_trial_id for trial in changed}
        copy_ids |= _insert_trials(connection, copy_id, new)
        insert_rows(connection, PARAMS, list(param_rows(copy_ids, new, spec)))
        spans = {
            trial.id: span_to_write(trial, its_runs[trial.id], first_new_epochs, above_revision)
            for trial in changed
        }
        write_steps(connection, copy_ids, changed, spans, spec.objective.metric)
        insert_rows(connection, VALUES, list(value_rows(copy_ids, ended)))
        attributes = trial_attribute_rows(copy_ids, new, ended, its_runs)
        insert_rows(connection, TRIAL_USER_ATTRS, attributes)
        _update_states(connection, changed)


def changed_trials(
    connection: Connection, study_id: int, above_revision: int
) -> Iterator[Sequence[Row[Any]]]:
    """Trials to write, in chunks, with how their copies stand and the last step of those.

    One that was finished at or below `above_revision` has been written as finished.
    """
    # Sorted here: ORDER BY number would make SQLite walk the whole study by that index.
    numbered = connection.execute(
        select(trials.c.number, trials.c.id).where(
            trials.c.study_id == study_id,
            trials.c.revision > above_revision,
            or_(
                trials.c.finished_revision.is_(None),
                trials.c.finished_revision > above_revision,
            ),
        )
    ).all()
    trial_ids = [row.id for row in sorted(numbered)]
    last_step = (
        select(func.max(STEPS.c.step))
        .where(STEPS.c.trial_id == trials.c.optuna_trial_id)
        .scalar_subquery()
    )
    query = (
        select(
            trials,
            *TRIAL_COLUMNS,
            func.coalesce(last_step, 0).label("last_step"),
        )
        .outerjoin(TRIALS, TRIALS.c.trial_id == trials.c.optuna_trial_id)
        .order_by(trials.c.number)
    )
    for start in range(0, len(trial_ids), CHUNK):
        chunk = trial_ids[start : start + CHUNK]
        yield connection.execute(query.where(one_of(connection, trials.c.id, chunk))).all()


def _first_new_epochs(
    connection: Connection, study_id: int, above_revision: int
) -> Mapping[int, int]:
    """By run, the first epoch whose report came past `above_revision`."""
    query = (
        select(reports.c.run_id, func.min(reports.c.epoch).label("first_epoch"))
        .where(reports.c.study_id == study_id, reports.c.revision > above_revision)
        .group_by(reports.c.run_id)
    )
    return {row.run_id: row.first_epoch for row in connection.execute(query)}


def runs_of(connection: Connection, trial_ids: Sequence[int]) -> RunsByTrial:
    """The runs of each trial, in the order of their replicates, with their last reported epoch."""
    last_epoch = (
        select(func.max(reports.c.epoch)).where(reports.c.run_id == runs.c.id).scalar_subquery()
    )
    query = (
        select(
            *runs.c[_RUN_COLUMNS],
            func.coalesce(last_epoch, 0).label("last_epoch"),
        )
        .where(one_of(connection, runs.c.trial_id, trial_ids))
        .order_by(runs.c.trial_id, runs.c.replicate)
    )
    found: dict[int, list[Any]] = {trial_id: [] for trial_id in trial_ids}
    for row in connection.execute(query):
        found[row.trial_id].append(row)
    return found


def _insert_trials(connection: Connection, copy_id: int, new: Sequence[Row[Any]]) -> dict[int, int]:
    """Give each new trial its Optuna id, rising with its number; the ids, by ours."""
    if not new:
        return {}
    rows = [{"study_id": copy_id, "number": trial.number, **state_of(trial)} for trial in new]
    # Sorting by parameter order, SQLAlchemy would send SQLite one row at a time.
    query = insert(TRIALS).returning(TRIALS.c.number, TRIALS.c.trial_id)
    by_number = {row.number: row.trial_id for row in connection.execute(query, rows)}
    copy_ids = {trial.id: by_number[trial.number] for trial in new}
    rising = list(copy_ids.values())
    assert rising == sorted(rising), "both databases take the rows of VALUES in their order"
    update_rows(
        connection,
        trials,
        [
            {OLD + "id": trial_id, "optuna_trial_id": copied}
            for trial_id, copied in copy_ids.items()
        ],
    )
    return copy_ids


def param_rows(
    copy_ids: Mapping[int, int], new: Iterable[Row[Any]], spec: StudySpec
) -> Iterator[dict[str, Any]]:
    """The parameters, written with a trial's copy."""
    by_name = distributions(spec.space)
    as_json = {name: distribution_to_json(by_name[name]) for name in by_name}
    for trial in new:
        for name, value in to_optuna(spec.space, trial.config).items():
            yield {
                "trial_id": copy_ids[trial.id],
                "param_name": name,
                "param_value": by_name[name].to_internal_repr(value),
                "distribution_json": as_json[name],
            }


def rewrite_params(
    connection: Connection, study_id: int, spec: StudySpec, past: Sequence[Space]
) -> None:
    """Give all trials that have a copy the distributions that were others in earlier spaces."""
    now = distributions(spec.space)
    before = [distributions(space) for space in past]
    changed = {name for name, its in now.items() if any(its != b.get(name) for b in before)}
    if not changed:
        return
    for chunk in changed_trials(connection, study_id, 0):
        copy_ids = {t.id: t.optuna_trial_id for t in chunk if t.optuna_trial_id is not None}
        copied = [trial for trial in chunk if trial.id in copy_ids]
        rows = param_rows(copy_ids, copied, spec)
        connection.execute(
            delete(PARAMS).where(
                one_of(connection, PARAMS.c.trial_id, [*copy_ids.values()]),
                PARAMS.c.param_name.in_(changed),
            )
        )
        insert_rows(connection, PARAMS, [row for row in rows if row["param_name"] in changed])


def trial_attribute_rows(
    copy_ids: Mapping[int, int],
    new: Iterable[Row[Any]],
    ended: Iterable[Row[Any]],
    its_runs: RunsByTrial,
) -> list[dict[str, Any]]:
    """Written once: where a trial comes from with its copy, its results at its end."""
    attributes: dict[int, dict[str, Any]] = defaultdict(dict)
    for trial in new:
        attributes[copy_ids[trial.id]] |= origin_attributes(trial, its_runs[trial.id])
    for trial in ended:
        attributes[copy_ids[trial.id]] |= result_attributes(trial, its_runs[trial.id])
    return attribute_rows("trial_id", attributes)


def value_rows(copy_ids: Mapping[int, int], ended: Iterable[Row[Any]]) -> Iterator[dict[str, Any]]:
    for trial in ended:
        if trial.value is not None:
            value, kind = stored_value(trial.value)
            row = {"trial_id": copy_ids[trial.id], "objective": 0}
            yield {**row, "value": value, "value_type": kind}


def _update_states(connection: Connection, changed: Sequence[Row[Any]]) -> None:
    rows = [
        {OLD + "trial_id": trial.optuna_trial_id, **state_of(trial)}
        for trial in changed
        if trial.optuna_trial_id is not None and trial.copied_state.name != trial.state
    ]
    update_rows(connection, TRIALS, rows)


def state_of(trial: Row[Any]) -> dict[str, Any]:
    return {
        "state": OptunaState[trial.state],
        "datetime_start": naive_utc(trial.started_at),
        "datetime_complete": naive_utc(trial.finished_at),
    }
