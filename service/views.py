"""Rows turned into the resources that the API shows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from ridgeline.search.comparing import Interval
from ridgeline.search.measures import Measures
from ridgeline.search.spec import StudySpec
from ridgeline.search.tasks.built_in import BUILT_IN
from ridgeline.service import resources
from ridgeline.service.certainty import selection_effect, sure_of
from ridgeline.service.errors import InvalidInput, ServiceError
from ridgeline.service.ledger import num_planned
from ridgeline.service.lifecycle import OPEN_STUDY, SERVABLE_STUDY, StudyState
from ridgeline.service.protocol import DatasetInfo, DeviceInfo
from ridgeline.service.store.rows import RunRow, StudyRow, TrialRow, WorkerRow
from ridgeline.service.store.session import Transaction
from ridgeline.service.waiting import Reason, reason_of
from ridgeline.service.winners import Winner, winner_of


def problem(error: ServiceError) -> resources.Problem:
    """An error as problem+json tells it."""
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", type(error).__name__).lower()
    found = error.problems if isinstance(error, InvalidInput) else []
    return resources.Problem(
        type=f"urn:ridgeline:{words.replace(' ', '-')}",
        title=words.capitalize(),
        status=error.status,
        detail=error.detail,
        errors=[resources.FieldError(field=field, message=reason) for field, reason in found],
    )


def study(tx: Transaction, row: StudyRow) -> resources.Study:
    """A study with its counts and its best trial."""
    spec = row.spec
    best = winner_of(tx.trials, row.id, spec)
    counts = tx.studies.trial_counts(row)
    return resources.Study(
        name=row.name,
        state=row.state,
        reason=row.reason if row.reason is not None else waits_for(tx, row),
        stopping=row.stopping,
        archived=row.archived,
        spec=spec,
        past_spaces=tuple(
            resources.PastSpace(until=past.until, space=past.space) for past in row.past_spaces
        ),
        num_trials=row.next_number if row.finished_at is not None else num_planned(row, spec),
        trials=resources.TrialCounts(**{state.lower(): count for state, count in counts.items()}),
        sources=sources_of(tx, row),
        mean_epoch=tx.runs.mean_epoch(row.id) if row.state in OPEN_STUDY else None,
        best=None
        if best is None
        else resources.BestTrial(
            number=best.trial.number,
            config=best.trial.config,
            **dict(standing(tx, spec, best)),
        ),
        device_seconds=row.device_seconds,
        data_fingerprint=row.data_fingerprint,
        owner=row.owner,
        revision=row.revision,
        optuna_study_id=row.optuna_study_id,
        projection_error=row.projection_error,
        deadline_at=row.deadline_at,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def sources_of(tx: Transaction, row: StudyRow) -> tuple[resources.SourceStudy, ...]:
    """What a study has taken over of others."""
    found = tx.sources.of_study(row.id) if row.spec.warm_start else []
    return tuple(resources.SourceStudy(**source._asdict()) for source in found)


def standing(tx: Transaction, spec: StudySpec, winner: Winner) -> resources.Standing:
    """What a winner has come to."""
    sure, fresh = sure_of(spec, winner, tx.runs), winner.confirmation
    return resources.Standing(
        value=winner.value,
        num_seeds=winner.num_seeds,
        interval=interval(sure.interval),
        fresh=None
        if fresh is None
        else resources.FreshSeeds(
            trial=fresh.number,
            state=fresh.state,
            value=fresh.value,
            interval=interval(sure.fresh_interval),
            selection_effect=selection_effect(spec, winner),
        ),
    )


def interval(found: Interval | None) -> resources.Interval | None:
    return None if found is None else resources.Interval(low=found.low, high=found.high)


def waits_for(tx: Transaction, row: StudyRow) -> str | None:
    """Why an open study has no run in flight; None where it has one, or has ended."""
    if row.state is StudyState.PAUSED:
        return "paused; resume it to go on"
    if row.state not in SERVABLE_STUDY:
        return None
    if tx.studies.load([row.id])[row.id].num_in_flight > 0:
        return None
    spec = row.spec
    live = tx.workers.all(live_only=True)
    match reason_of(row.state, spec.task.name, spec.dataset, row.data_fingerprint, live):
        case Reason.NO_PROGRAM:
            return "waits for a program to call trials:suggest"
        case Reason.NO_WORKER:
            return (
                "no worker is connected yet: one that is starting takes some seconds; "
                "`ridgeline worker` starts one"
            )
        case Reason.NO_TASK:
            if spec.definition.trained_by == "nobody":
                return f"the task {spec.task.name} is not installed where the api runs"
            return f"no connected worker has the task {spec.task.name}"
        case Reason.NO_DATASET:
            wanted = f" with the fingerprint {row.data_fingerprint}" if row.data_fingerprint else ""
            missing = f"no connected worker has the data set {spec.dataset}{wanted}"
            if spec.dataset in BUILT_IN:
                return missing
            return f"{missing}; it is a folder of a worker's --data-root (RIDGELINE_DATA_ROOT)"
    return "waits for its turn on a device"


def trials(tx: Transaction, study_name: str, rows: Sequence[TrialRow]) -> list[resources.Trial]:
    """Trials with their runs."""
    runs = tx.runs.of_trials([row.id for row in rows])
    return [trial(study_name, row, runs[row.id]) for row in rows]


def trial(study_name: str, row: TrialRow, runs: Sequence[RunRow]) -> resources.Trial:
    return resources.Trial(
        study=study_name,
        number=row.number,
        state=row.state,
        reason=row.reason,
        config=row.config,
        value=row.value,
        origin=cast("resources.Origin", row.origin),
        given=None if row.given is None else tuple(row.given),
        grid_cell=row.grid_cell,
        retry_of=row.retry_of,
        repeats=row.repeats,
        sampler=row.sampler,
        sampler_seed=row.sampler_seed,
        seen_revision=row.seen_revision,
        revision=row.revision,
        runs=tuple(run(one) for one in runs),
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def run(row: RunRow) -> resources.Run:
    return resources.Run(
        replicate=row.replicate,
        seed=row.seed,
        state=row.state,
        reason=row.reason,
        error=row.error,
        log_tail=row.log_tail,
        attempt=row.attempt,
        charges=row.charges,
        worker=row.worker_id,
        device=row.device,
        client_id=row.client_id,
        program=row.program,
        data_fingerprint=row.data_fingerprint,
        value=row.value,
        kept_epoch=row.kept_epoch,
        metrics=dict(row.metrics or {}),
        measures=None if row.measures is None else Measures.model_validate(row.measures),
        pruned_by_version=row.pruned_by_version,
        device_seconds=row.device_seconds,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def _device(stored: Mapping[str, Any]) -> DeviceInfo:
    """A worker that an earlier version took in may have been stored with what is no field now."""
    fields = DeviceInfo.model_fields
    return DeviceInfo.model_validate({k: v for k, v in stored.items() if k in fields})


def worker(row: WorkerRow, runs_by_device: Mapping[str, int]) -> resources.Worker:
    return resources.Worker(
        id=row.id,
        name=row.name,
        state=cast("resources.WorkerState", row.state),
        devices=tuple(_device(device) for device in row.devices),
        tasks=tuple(row.tasks),
        datasets=tuple(DatasetInfo.model_validate(dataset) for dataset in row.datasets),
        num_runs=sum(runs_by_device.values()),
        runs_by_device=dict(runs_by_device),
        idle_slots=row.idle_slots if row.state == "LIVE" else {},
        restarts=row.restarts,
        registered_at=row.registered_at,
        seen_at=row.seen_at,
    )
