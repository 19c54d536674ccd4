"""The report of a real study on real data, by the command that people give."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployment import Deployment
from tests.e2e.support import small
from tests.reports.reading import SVG, check, section

pytestmark = pytest.mark.slow


def report(deployment: Deployment, *args: str) -> str:
    command = "from ridgeline.service.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", command, "report", *args],
        capture_output=True,
        text=True,
        timeout=120,
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
    assert report(deployment, "digits", "-o", str(file)) == ""
    root = check(file.read_text(encoding="utf-8"))
    result = section(root, "result")
    assert f"Trial {best.number} is the best of 22 complete trials" in result
    assert "the mean over 2 seeds with the 95% interval" in result
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
    report(deployment, "digits", "-o", str(markdown))
    told = markdown.read_text(encoding="utf-8")
    assert told.startswith("# digits\n\nReport of a study. The study is COMPLETED: 22 trials")
    assert f"Trial {best.number} is the best of 22 complete trials" in report(deployment, "digits")
