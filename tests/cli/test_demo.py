"""`make demo`, apart from the installation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from sqlalchemy import create_engine, select

from ridgeline.search.engine import ProgramIdentity
from ridgeline.search.spec import parse_spec
from ridgeline.service.cli.up import sole_user
from ridgeline.service.store.tables import runs, studies, trials
from tests.e2e.alone import outcome_alone, preparer

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"
STRIDE = 7
"""Of the runs that are trained again, since one by one they take their time."""

pytestmark = pytest.mark.slow


def test_the_demo(tmp_path: Path) -> None:
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}  # what is compiled elsewhere stays there
    done = subprocess.run(
        [sys.executable, str(DEMO)],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
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
    check_values(home / "ridgeline.db")


def check_values(database: Path) -> None:
    """Packs trained the runs, and a run that is trained alone by the same program agrees."""
    engine = create_engine(f"sqlite:///{database}")
    query = (
        select(studies.c.spec, trials.c.config, runs)
        .join(trials, trials.c.id == runs.c.trial_id)
        .join(studies, studies.c.id == runs.c.study_id)
        .order_by(runs.c.id)
    )
    with engine.connect() as connection:
        trained = connection.execute(query).mappings().all()
    engine.dispose()
    widths = [ProgramIdentity.parse(run["program"]).width for run in trained]
    assert max(widths) > 1
    with preparer() as own:
        for run in trained[::STRIDE]:
            spec = parse_spec(run["spec"])
            alone = outcome_alone(own, spec, run["config"], run["seed"], run["program"])
            assert run["value"] == alone.value
            assert run["kept_epoch"] == alone.kept_epoch
            assert run["metrics"] == alone.metrics
