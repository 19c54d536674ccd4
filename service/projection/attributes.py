"""User attributes of trials in Optuna's tables: numbers stay numbers, so that columns sort."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row

from ridgeline.search.measures import Measures, means
from ridgeline.service.lifecycle import RunState

_MAX_ERROR_CHARACTERS = 1_000


def origin_attributes(trial: Row[Any], its_runs: Sequence[Row[Any]]) -> dict[str, Any]:
    """Where a trial comes from: with the study's seed that derives it again.

    None where there is nothing to tell.
    """
    return {
        "origin": trial.origin,
        "sampler": trial.sampler,
        "sampler_seed": trial.sampler_seed,
        "seen_revision": trial.seen_revision,
        "grid_cell": trial.grid_cell,
        "retry_of": trial.retry_of,
        "repeats": trial.repeats,
        "seeds": [run.seed for run in its_runs],
    }


_ORIGIN = (
    "origin", "sampler", "sampler_seed", "seen_revision", "grid_cell", "retry_of", "repeats",
    "seeds",
)  # fmt: skip


def result_attributes(trial: Row[Any], its_runs: Sequence[Row[Any]]) -> dict[str, Any]:
    """What a trial that has ended has come to; None where there is nothing to tell.

    Sums over the runs, and means of what every run has (a mean over the runs that happened to
    survive would flatter it).  A metric that bears the name of another attribute is left out.
    """
    kept_epochs = [run.kept_epoch for run in its_runs]
    errors = [run.error for run in its_runs if run.state == RunState.FAIL and run.error]
    metrics = _shared_metrics([run.metrics or {} for run in its_runs])
    measured = [Measures.model_validate(run.measures) for run in its_runs if run.measures]
    return {
        **(means(measured) if len(measured) == len(its_runs) else {}),
        **{name: value for name, value in metrics.items() if name not in _ORIGIN},
        "kept_epoch": None if None in kept_epochs else mean(kept_epochs),
        "device_seconds": sum(run.device_seconds for run in its_runs),
        "attempts": sum(run.attempt for run in its_runs),
        "charges": sum(run.charges for run in its_runs),
        "reason": trial.reason,
        "error": errors[0][:_MAX_ERROR_CHARACTERS] if errors else None,
    }


def mean(numbers: Sequence[float]) -> float:
    """The mean; of one number that number itself, an integer where it is one."""
    return numbers[0] if len(numbers) == 1 else sum(numbers) / len(numbers)


def _shared_metrics(of_runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means of the metrics that every run has."""
    shared = [name for name in of_runs[0] if all(name in metrics for metrics in of_runs)]
    means = {name: mean([metrics[name] for metrics in of_runs]) for name in shared}
    # Finite numbers can have a sum that is not, and JSON knows no infinity.
    return {name: value for name, value in means.items() if math.isfinite(value)}
