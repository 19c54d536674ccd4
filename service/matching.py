"""Which worker can train what: it needs the study's task and its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ridgeline.service.protocol import FUNCTIONS
from ridgeline.service.store.rows import StudyRow, WorkerRow


def runs_have_processes(device: Mapping[str, Any]) -> bool:
    """Whether a device, as the database has it, is for tasks that need a process for each run."""
    kind: str = device["kind"]
    return kind == FUNCTIONS


def can_train(worker: WorkerRow, row: StudyRow, *, in_processes: bool) -> bool:
    """Whether a worker has the study's task and data, and can train it on such devices.

    Args:
        in_processes: whether the devices are those of `runs_have_processes`.
    """
    spec = row.spec
    if spec.definition.needs_process != in_processes:
        return False
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
