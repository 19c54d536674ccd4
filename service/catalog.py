"""What can be trained: tasks with their parameters, and data sets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from ridgeline.search.tasks.base import Task
from ridgeline.search.tasks.data import DatasetCard
from ridgeline.search.tasks.registry import installed
from ridgeline.service.resources import Dataset, ParameterInfo, TaskInfo
from ridgeline.service.store.session import Transaction


def tasks(tx: Transaction) -> list[TaskInfo]:
    """The installed tasks, with their parameters and the schema of their settings."""
    live = tx.workers.all(live_only=True)
    return [
        TaskInfo(
            name=task.name,
            description=task.description,
            parameters=tuple(_parameters(task)),
            metrics=dict(task.metrics or {}),
            settings_schema=task.settings.model_json_schema(),
            num_workers=sum(task.name in worker.tasks for worker in live),
        )
        for task in installed().tasks.values()
    ]


def _parameters(task: Task[Any]) -> Iterator[ParameterInfo]:
    defaults = task.defaults(None)
    for name, domain in (task.parameters or {}).items():
        yield ParameterInfo(
            name=name,
            kind=domain.kind,
            description=domain.description,
            low=domain.low if math.isfinite(domain.low) else None,
            high=domain.high if math.isfinite(domain.high) else None,
            choices=domain.choices,
            listed=domain.listed,
            default=defaults.get(name),
        )


def datasets(tx: Transaction, local: Sequence[DatasetCard]) -> list[Dataset]:
    """The data sets of the api's own machine and of live workers, by name and fingerprint."""
    found = {(card.name, card.fingerprint): asdict(card) for card in local}
    num_workers: Counter[tuple[str, str]] = Counter()
    for worker in tx.workers.all(live_only=True):
        for dataset in worker.datasets:
            key = dataset["name"], dataset["fingerprint"]
            found.setdefault(key, dataset)
            num_workers[key] += 1
    return [
        Dataset(**fields, num_workers=num_workers[key]) for key, fields in sorted(found.items())
    ]
