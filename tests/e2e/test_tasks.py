"""A study of each task through the service, on data that every machine has or that people bring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ridgeline.service.lifecycle import TrialState
from tests.deployment import Deployment
from tests.e2e.support import check_against_optuna, small
from tests.tasks.table_files import write_npz, write_table, write_texts

pytestmark = pytest.mark.slow

RMSE = {"metric": "validation_rmse", "direction": "minimize"}
R2 = {"metric": "validation_r2", "direction": "maximize"}
RATES = {"learning_rate": {"type": "float", "low": 0.003, "high": 0.1, "log": True}}
TINY = {"architecture": "resnet", "channels": [4, 6], "norm": "group"}
STUDIES: dict[str, dict[str, Any]] = {
    "linear": {"task": {"name": "linear", "dataset": "breast-cancer"}},
    "linear-numbers": {"task": {"name": "linear", "dataset": "diabetes"}, "objective": RMSE},
    "mlp-numbers": {
        "task": {"name": "mlp", "dataset": "diabetes", "hidden": [8]},
        "objective": R2,
        "early_stopping": {"patience": 1},
        "pruner": {"name": "median", "startup": 2, "warmup_epochs": 1},
    },
    "mlp-brackets": {
        "task": {"name": "mlp", "dataset": "digits", "hidden": [8]},
        "budget": {"trials": 12, "epochs": 6, "max_parallel": 3},
        "pruner": {"name": "hyperband", "eta": 2},
    },
    "mlp-curves": {
        "task": {"name": "mlp", "dataset": "digits", "hidden": [8]},
        "budget": {"trials": 12, "epochs": 8, "max_parallel": 3},
        "pruner": {"name": "curve", "eta": 2},
    },
    "cnn": {"task": {"name": "cnn", "dataset": "digits", "channels": [4], "hidden": [16]}},
    "cnn-own": {"task": {"name": "cnn", "dataset": "colours", **TINY}},
    "text-own": {"task": {"name": "text", "dataset": "mails", "embedding": 4, "hidden": [5]}},
    "mlp-own": {"task": {"name": "mlp", "dataset": "prices", "hidden": []}, "objective": RMSE},
}


def test_studies_of_all_tasks(deployment: Deployment, migrated_url: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_npz(root / "colours")
    write_table(root / "prices")
    write_texts(root / "mails")
    deployment.env["RIDGELINE_DATA_ROOT"] = str(root)
    deployment.start_worker()
    for name, changes in STUDIES.items():
        budget = {"trials": 4, "epochs": 3}
        study = small(name, "random", **{"space": RATES, "budget": budget, **changes})
        deployment.client.create_study(study)
    for name, changes in STUDIES.items():
        trials = deployment.outcome(name)
        assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
        check_against_optuna(deployment, migrated_url, name, trials)
        metric = changes.get("objective", {"metric": "validation_accuracy"})["metric"]
        (run,) = deployment.client.best(name).runs
        assert run.value == run.metrics[metric]
        assert metric.replace("validation", "test") in run.metrics
