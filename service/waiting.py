"""Why an open study has no run in flight."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from ridgeline.search.tasks.registry import task_named
from ridgeline.service.lifecycle import StudyState
from ridgeline.service.matching import has_data
from ridgeline.service.store.rows import WorkerRow


class Reason(StrEnum):
    PAUSED = "paused"
    NO_PROGRAM = "no_program"
    NO_WORKER = "no_worker"
    NO_TASK = "no_task"
    NO_DATASET = "no_dataset"
    NO_FREE_DEVICE = "no_free_device"


def reason_of(
    state: StudyState,
    task: str,
    dataset: str | None,
    data_fingerprint: str | None,
    live: Iterable[WorkerRow],
) -> Reason:
    """What an open study waits for whose runs do not start.

    Args:
        data_fingerprint: of the data that its runs train on, once that is known.
        live: the workers there are.
    """
    if state is StudyState.PAUSED:
        return Reason.PAUSED
    trained_by = task_named(task).trained_by
    if trained_by == "program":
        return Reason.NO_PROGRAM
    if trained_by == "nobody":
        return Reason.NO_TASK
    if not live:
        return Reason.NO_WORKER
    able = [worker for worker in live if task in worker.tasks]
    if not able:
        return Reason.NO_TASK
    if not any(has_data(worker, dataset, data_fingerprint) for worker in able):
        return Reason.NO_DATASET
    return Reason.NO_FREE_DEVICE
