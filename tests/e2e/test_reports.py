"""Reports of a real study and a real comparison on real data, by the commands people give."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ridgeline.service import measures_in_words
from tests.deployment import Deployment
from tests.e2e.support import small
from tests.reports.reading import SVG, check, section

pytestmark = pytest.mark.slow


def ridgeline(deployment: Deployment, *args: str) -> str:
    command = "from ridgeline.service.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", command, *args],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"RIDGELINE_URL": deployment.url},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_study_of_the_digits(deployment: Deployment, tmp_path: Path) -> None:
    deployment.start_worker()
    spec = small("digits", "random", replicates=2, budget={"trials": 22, "epochs": 3})
    deployment.client.create_study(spec)
    deployment.outcome("digits")
    best = deployment.client.best("digits")
    file = tmp_path / "report.html"
    assert ridgeline(deployment, "report", "digits", "-o", str(file)) == ""
    root = check(file.read_text(encoding="utf-8"))
    result = section(root, "result")
    assert f"Trial {best.number} is the best of 22 complete trials" in result
    assert "the mean over 2 seeds with the 95 % interval" in result
    assert all(str(run.seed) in result for run in best.runs)
    curves = section(root, "curves")
    assert f"Trial {best.number}: train_accuracy is" in curves
    assert "train_loss" in curves
    parameters = section(root, "parameters")
    assert "What sets the best trials apart is" in parameters
    assert "validation_accuracy by learning_rate and batch_size" in parameters
    assert "validation_accuracy by learning_rate and l2" in parameters
    assert best.runs[0].program is not None
    assert best.runs[0].program in section(root, "repeat")
    assert len(list(root.iter(f"{SVG}svg"))) == 7

    markdown = tmp_path / "report.md"
    ridgeline(deployment, "report", "digits", "-o", str(markdown))
    told = markdown.read_text(encoding="utf-8")
    assert told.startswith("# digits\n\nReport of a study. The study is COMPLETED: 22 trials")
    assert f"Trial {best.number} is the best of 22 complete trials" in ridgeline(
        deployment, "report", "digits"
    )


COMPARISON = {
    "name": "arms",
    "base": {
        "task": {"name": "mlp", "dataset": "digits", "hidden": [16]},
        "space": {"learning_rate": {"type": "float", "low": 0.001, "high": 0.02, "log": True}},
        "sampler": {"name": "random", "seed": 4},
        "budget": {"trials": 2, "epochs": 3},
    },
    "arms": {"none": {}, "dropout+l2": {}},
    "replicates": 3,
}


def test_a_comparison_on_the_digits(deployment: Deployment, tmp_path: Path) -> None:
    deployment.start_worker()
    spec = tmp_path / "arms.yaml"
    spec.write_text(yaml.safe_dump(COMPARISON))
    ridgeline(deployment, "compare", str(spec))
    found = deployment.client.comparison("arms").result
    assert found is not None
    file = tmp_path / "report.html"
    ridgeline(deployment, "comparison", "report", "arms", "-o", str(file))
    root = check(file.read_text(encoding="utf-8"))
    result = section(root, "result")
    assert found.differences[0].sentence in result
    assert found.arms[0].measures
    assert all(measures_in_words.label(name) in result for name in found.arms[0].measures)
    curves = section(root, "curves")
    for arm in ("none", "dropout+l2"):
        assert f"{arm}, mean over 3 runs: train_accuracy is" in curves
        assert f"{arm}: validation_loss by epoch" in curves
