"""`make demo`, apart from the installation."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from service.cli.up import sole_user

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"

pytestmark = pytest.mark.slow


def test_the_demo(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(DEMO)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    accuracies = re.findall(r"validation accuracy (0\.\d+), test accuracy (0\.\d+)", done.stdout)
    assert len(accuracies) == 3
    assert all(float(accuracy) > 0.9 for pair in accuracies for accuracy in pair)
    for name, num_trials in (("grid", 36), ("random", 30), ("tpe", 30)):
        assert f"digits-{name} is COMPLETED" in done.stdout
        assert f"digits-{name}: COMPLETED, {num_trials}/{num_trials} trials" in done.stdout
    (storage,) = re.findall(r'storage="(.*)"', done.stdout)
    study = optuna.load_study(study_name="digits-tpe", storage=storage)
    assert f"{study.best_value:.4f}" == accuracies[2][0]
    (home,) = (tmp_path / "demo-data").iterdir()
    with sole_user(home):
        pass  # the service has stopped
