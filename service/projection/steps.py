"""The intermediate values of trials in Optuna's tables: one step an epoch, a mean over runs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Text, and_, bindparam, cast, delete, select

from ridgeline.service.lifecycle import OPEN_RUN
from ridgeline.service.projection.attributes import mean
from ridgeline.service.projection.optuna_tables import STEPS, stored_step_value
from ridgeline.service.store.bulk import insert_rows, numbers_parameters, numbers_table
from ridgeline.service.store.tables import reports, runs


def span_to_write(
    trial: Row[Any],
    its_runs: Sequence[Row[Any]],
    first_new_epochs: Mapping[int, int],
    above_revision: int,
) -> tuple[int, int]:
    """(kept, reached): steps up to `kept` are right as they stand, the last to be is `reached`."""
    reached = last_step(its_runs)
    # Reports that came since, and the end of a run whose reports may have gone before it, change
    # the mean from there on.
    changed = [first_new_epochs[run.id] - 1 for run in its_runs if run.id in first_new_epochs]
    changed += [
        run.last_epoch
        for run in its_runs
        if run.state not in OPEN_RUN and run.revision > above_revision
    ]
    return min(trial.last_step, reached, *changed), reached


def last_step(its_runs: Sequence[Row[Any]]) -> int:
    """The last epoch that every run of a trial has passed."""
    furthest = max((run.last_epoch for run in its_runs), default=0)
    return min((run.last_epoch for run in its_runs if run.state in OPEN_RUN), default=furthest)


def write_steps(
    connection: Connection,
    copy_ids: Mapping[int, int],
    changed: Sequence[Row[Any]],
    spans: Mapping[int, tuple[int, int]],
    metric: str,
) -> None:
    outdated = [trial for trial in changed if trial.last_step > spans[trial.id][0]]
    if outdated:
        connection.execute(
            delete(STEPS).where(
                STEPS.c.trial_id == bindparam("copy"), STEPS.c.step > bindparam("kept")
            ),
            [{"copy": copy_ids[trial.id], "kept": spans[trial.id][0]} for trial in outdated],
        )
    insert_rows(connection, STEPS, list(step_rows(connection, copy_ids, spans, metric)))


def step_rows(
    connection: Connection,
    copy_ids: Mapping[int, int],
    spans: Mapping[int, tuple[int, int]],
    metric: str,
) -> Iterator[dict[str, Any]]:
    """The steps after the first number of each span, up to the second."""
    for trial_id, step, of_runs in _reported(connection, spans, metric):
        value, kind = stored_step_value(mean(of_runs))
        yield {
            "trial_id": copy_ids[trial_id],
            "step": step,
            "intermediate_value": value,
            "intermediate_value_type": kind,
        }


def _reported(
    connection: Connection, spans: Mapping[int, tuple[int, int]], metric: str
) -> Iterator[tuple[int, int, list[float]]]:
    """(trial, epoch, what its runs reported of `metric`) for every epoch in the spans."""
    wanted = [
        {"trial_id": trial_id, "kept": kept, "reached": reached}
        for trial_id, (kept, reached) in spans.items()
        if kept < reached
    ]
    if not wanted:
        return
    span = numbers_table(connection.dialect, "trial_id", "kept", "reached")
    query = (
        select(runs.c.trial_id, reports.c.epoch, cast(reports.c.metrics, Text))
        .select_from(span)
        .join(runs, runs.c.trial_id == span.c.trial_id)
        .join(
            reports,
            and_(
                reports.c.run_id == runs.c.id,
                reports.c.epoch > span.c.kept,
                reports.c.epoch <= span.c.reached,
            ),
        )
        .order_by(runs.c.trial_id, reports.c.epoch, runs.c.replicate)
    )
    reported: dict[tuple[int, int], list[float]] = defaultdict(list)
    found = connection.execute(query, numbers_parameters(connection.dialect, wanted)).all()
    all_metrics = json.loads(f"[{','.join(text for _, _, text in found)}]")  # in one go
    for (trial_id, epoch, _), metrics in zip(found, all_metrics, strict=True):
        if metric in metrics:
            reported[trial_id, epoch].append(metrics[metric])
    for (trial_id, epoch), of_runs in reported.items():
        yield trial_id, epoch, of_runs
