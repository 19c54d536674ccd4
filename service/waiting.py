"""Why an open study has no run in flight."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from ridgeline.service.lifecycle import StudyState
from ridgeline.service.store.rows import WorkerRow

EXTERNAL = "external"


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
    if task == EXTERNAL:
        return Reason.NO_PROGRAM
    if not live:
        return Reason.NO_WORKER
    able = [worker for worker in live if task in worker.tasks]
    if not able:
        return Reason.NO_TASK
    if not any(has_data(worker, dataset, data_fingerprint) for worker in able):
        return Reason.NO_DATASET
    return Reason.NO_FREE_DEVICE


def has_data(worker: WorkerRow, dataset: str | None, data_fingerprint: str | None) -> bool:
    """Whether a worker has a data set, with that fingerprint where one is given."""
    found = fingerprint_at(worker, dataset)
    return found is not None and data_fingerprint in (None, found)


def fingerprint_at(worker: WorkerRow, dataset: str | None) -> str | None:
    """The fingerprint of a data set as a worker has it; None where it has not."""
    return next((d["fingerprint"] for d in worker.datasets if d["name"] == dataset), None)
