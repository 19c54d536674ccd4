"""Small studies on real data, and what of an outcome must be equal."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.storages import RDBStorage

from ridgeline.service.resources import Trial
from tests.deployment import Deployment

SPACE = {
    "learning_rate": {"type": "float", "low": 1e-3, "high": 1e-1, "log": True, "points": 3},
    "batch_size": {"type": "values", "values": [32, 64, 128]},
    "l2": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True, "zero": True},
    "dropout": {"type": "float", "low": 0, "high": 0.5, "points": 2},
}


def small(name: str, sampler: str, **changes: Any) -> dict[str, Any]:
    """A study that takes seconds: a narrow network on the digits, two epochs a run."""
    return {
        "name": name,
        "task": {"name": "mlp", "dataset": "digits", "hidden": [16]},
        "space": SPACE,
        "sampler": {"name": sampler, "seed": 5},
        "budget": {"trials": 14, "epochs": 2},
        **changes,
    }


def grid(name: str) -> dict[str, Any]:
    """3 × 3 × 2 × 2 cells."""
    l2 = {"type": "values", "values": [0.0, 1e-3]}
    return small(name, "grid", space=SPACE | {"l2": l2}, budget={"epochs": 2})


def results(trials: list[Trial]) -> list[tuple[Any, ...]]:
    """All of an outcome that may not depend on who trained it, and when."""
    return [
        (
            trial.number,
            trial.config,
            trial.value,
            trial.state,
            *((run.seed, run.value, run.kept_epoch, run.metrics) for run in trial.runs),
        )
        for trial in trials
    ]


def check_against_optuna(deployment: Deployment, url: str, name: str, trials: list[Trial]) -> None:
    """`optuna.load_study` on the untouched database shows what the api says."""
    storage = RDBStorage(url)
    metric = deployment.client.study(name).spec.objective.metric
    study = optuna.load_study(study_name=name, storage=storage)
    assert [frozen.number for frozen in study.trials] == [trial.number for trial in trials]
    for frozen, trial in zip(study.trials, trials, strict=True):
        assert frozen.state.name == trial.state
        assert frozen.value == trial.value
        epochs = deployment.client.trial(name, trial.number).epochs
        assert frozen.intermediate_values == {
            report.epoch: report.metrics[metric] for report in epochs
        }
        params = dict(frozen.params)
        if params.pop("l2_zero", False):
            params["l2"] = 0.0
        assert params == trial.config
    best = deployment.client.best(name)
    assert (study.best_trial.number, study.best_value) == (best.number, best.value)
    storage.remove_session()
    storage.engine.dispose()
