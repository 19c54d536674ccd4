"""Which worker can train what: it needs the study's task and its data."""

from __future__ import annotations

from ridgeline.service.store.rows import StudyRow, WorkerRow


def can_train(worker: WorkerRow, row: StudyRow) -> bool:
    """Whether a worker has the study's task and data."""
    spec = row.spec
    if spec.definition.trained_by != "workers" or spec.task.name not in worker.tasks:
        return False
    return has_data(worker, spec.dataset, row.data_fingerprint)


def has_data(worker: WorkerRow, dataset: str | None, data_fingerprint: str | None) -> bool:
    """Whether a worker has a data set, with that fingerprint where one is given.

    Every worker has what a study that needs none needs.
    """
    if dataset is None:
        return True
    found = fingerprint_at(worker, dataset)
    return found is not None and data_fingerprint in (None, found)


def fingerprint_at(worker: WorkerRow, dataset: str | None) -> str | None:
    """The fingerprint of a data set as a worker has it; None where it has not."""
    return next((d["fingerprint"] for d in worker.datasets if d["name"] == dataset), None)
