"""`ridgeline import`: what it writes can be run, and what it cannot take over it tells."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from ridgeline.service.cli.study_file import load_study
from ridgeline.service.cli.yaml_file import yaml_text
from ridgeline.service.client import Client
from tests.api.calling import sqlite_only
from tests.cli.conftest import Ridgeline
from tests.cli.test_commands import open_client
from tests.client.conftest import client
from tests.search.foreign_optuna import search, table

__all__ = ["client", "open_client"]  # fixtures

SWEEP = """\
program: train.py
method: bayes
metric: {name: val/loss, goal: minimize}
run_cap: 60
early_terminate: {type: hyperband, min_iter: 3}
parameters:
  lr: {distribution: q_log_uniform_values, min: 1e-5, max: 1e-1, q: 1e-5}
  dropout: {min: 0.0, max: 1.0}
  kind: {values: [sgd, "1e-4", "off"]}
"""

EXPERIMENT = """\
apiVersion: kubeflow.org/v1beta1
kind: Experiment
metadata: {name: mnist}
spec:
  objective: {type: maximize, objectiveMetricName: accuracy, goal: 0.99}
  algorithm: {algorithmName: random}
  maxTrialCount: 12
  parallelTrialCount: 3
  parameters:
    - name: lr
      parameterType: double
      feasibleSpace: {min: "0.01", max: "0.03"}
"""


def refusal(ridgeline: Ridgeline, *args: str) -> str:
    result = ridgeline("import", *args)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    (line,) = result.stderr.splitlines()
    return line.removeprefix("ridgeline: ")


def test_a_sweep_becomes_a_study_file(ridgeline: Ridgeline, tmp_path: Path) -> None:
    (tmp_path / "my sweep.yaml").write_text(SWEEP)
    result = ridgeline("import", "my sweep.yaml", "-o", "study.yaml")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.splitlines() == [
        "ridgeline: parameters.lr.distribution q_log_uniform_values: has no step on a log range "
        "here; the step is left out",
        "ridgeline: program: your own program trains, and asks for trials with client.external; "
        "it is left out",
    ]
    spec = load_study(tmp_path / "study.yaml")
    assert spec.name == "my-sweep"
    assert spec.space["kind"].model_dump()["values"] == ("sgd", "1e-4", "off")
    assert spec.space["dropout"].model_dump()["type"] == "float"
    assert ridgeline("import", "my sweep.yaml", "--format", "wandb").stdout == (
        tmp_path / "study.yaml"
    ).read_text(encoding="utf-8")


def test_an_experiment_becomes_a_study_file(ridgeline: Ridgeline, tmp_path: Path) -> None:
    (tmp_path / "katib.yaml").write_text(EXPERIMENT)
    result = ridgeline("import", "katib.yaml", "-o", "study.yaml")
    assert result.exit_code == 0
    assert result.stderr.startswith("ridgeline: spec.objective.goal: ")
    assert load_study(tmp_path / "study.yaml").budget.max_parallel == 3


def test_a_study_of_optuna_becomes_a_study_file(ridgeline: Ridgeline, tmp_path: Path) -> None:
    study = search(tmp_path / "o.db")
    (tmp_path / "trials.csv").write_text(table(study))
    for source in (["sqlite:///o.db", "--study", "wing drag"], ["trials.csv"]):
        result = ridgeline("import", *source, "-o", "study.yaml", "--best", "best.yaml")
        assert result.exit_code == 0, result.output
        assert "no call of the api takes results" in result.stderr
        spec = load_study(tmp_path / "study.yaml")
        best = yaml.safe_load((tmp_path / "best.yaml").read_text())
        assert len(best) == 10
        assert all(spec.space.problems(config, missing=None) == [] for config in best)


@sqlite_only
@pytest.mark.usefixtures("open_client")
def test_the_best_trials_of_a_study_of_optuna_are_tried_first(
    ridgeline: Ridgeline, client: Client, tmp_path: Path
) -> None:
    study = search(tmp_path / "o.db")
    ridgeline("import", "sqlite:///o.db", "-o", "study.yaml", "--best", "best.yaml")
    assert ridgeline("run", "study.yaml", "--name", "wing").exit_code == 0
    told = ridgeline("enqueue", "wing", "--file", "best.yaml")
    assert len(told.stdout.splitlines()) == 10, told.output
    (first,) = client.suggest("wing").trials
    assert first.config["lr"] == study.best_params["lr"]
    assert first.config.keys() == study.best_params.keys()


def test_the_fields_of_a_task_file_go_first(ridgeline: Ridgeline, tmp_path: Path) -> None:
    text = SWEEP.replace("lr:", "learning_rate:").replace("kind:", "optimizer:")
    (tmp_path / "sweep.yaml").write_text(
        text.replace('"1e-4", "off"', "adam").replace("1.0", "0.5")
    )
    (tmp_path / "task.yaml").write_text(
        "task: {name: mlp, dataset: digits}\nobjective: {metric: validation_loss}\n"
        "budget: {epochs: 30}\n"
    )
    result = ridgeline("import", "sweep.yaml", "--task", "task.yaml", "-o", "study.yaml")
    assert result.exit_code == 0, result.output
    spec = load_study(tmp_path / "study.yaml")
    assert (spec.task.name, spec.objective.direction) == ("mlp", "minimize")
    assert (spec.budget.trials, spec.budget.epochs) == (60, 30)
    (tmp_path / "task.yaml").write_text("task: {name: external}\nbudget: {trials: many}\n")
    line = refusal(ridgeline, "sweep.yaml", "--task", "task.yaml")
    assert line.startswith("task.yaml:2: budget.trials: ")
    (tmp_path / "task.yaml").write_text("name: mlp\n")
    line = refusal(ridgeline, "sweep.yaml", "--task", "task.yaml")
    assert line == "task.yaml: must be a mapping with task: in it"


def test_what_cannot_be_read_is_told_in_a_line(ridgeline: Ridgeline, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("a: [")
    (tmp_path / "other.yaml").write_text("a: 1")
    (tmp_path / "text.yaml").write_text(SWEEP.replace("max: 1.0", "max: much"))
    (tmp_path / "katib.yaml").write_text(EXPERIMENT.replace('"0.03"', "0;03"))
    (tmp_path / "latin.csv").write_bytes(b"\xff")
    for args, start in (
        (["absent.yaml"], "cannot read absent.yaml: "),
        (["absent.csv"], "cannot read absent.csv: "),
        (["bad.yaml"], "bad.yaml:1: "),
        (["other.yaml"], "other.yaml: is no W&B sweep (with method:) and no Katib experiment"),
        (["other.yaml", "--format", "wandb"], "other.yaml:1: method: must be one of"),
        (["other.yaml", "--format", "katib"], "other.yaml:1: kind: must be Experiment"),
        (["other.yaml", "--format", "optuna"], "other.yaml: has no trials"),
        (["text.yaml"], 'text.yaml:8: parameters.dropout.max: must be a number, not "much"'),
        (["katib.yaml"], "katib.yaml:12: spec.parameters.0.feasibleSpace.max: must be a number"),
        (["latin.csv"], "latin.csv: is no CSV in UTF-8"),
        (["text.yaml", "--study", "x"], "--study: is for the URL of an Optuna storage"),
        (["https://u:s/ec@ret@h/x"], "https://h/x: must be a file, or a URL of sqlite"),
        (["https://u:secret@h/x", "--format", "wandb"], "https://h/x: wandb is read from a file"),
        (["sqlite:///absent.db"], "sqlite:///absent.db: there is no such file"),
    ):
        assert refusal(ridgeline, *args).startswith(start)


def test_only_an_optuna_study_has_best_trials(ridgeline: Ridgeline, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    line = refusal(ridgeline, "sweep.yaml", "--best", "best.yaml")
    assert line == "--best: there are no finished trials in it to choose from"
    assert not (tmp_path / "best.yaml").exists()


def test_a_storage_needs_optuna_and_other_files_do_not(
    ridgeline: Ridgeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    assert ridgeline("import", "sweep.yaml").exit_code == 0
    line = refusal(ridgeline, "sqlite:///o.db")
    assert line == 'optuna is not installed; pip install "ridgeline[server]" brings it'


def test_texts_stay_texts_in_what_is_written() -> None:
    texts = ["1e-4", "off", "null", "1.0", "0o7", "~", "", "a: b", "1:30"]
    again = yaml.safe_load(yaml_text({"values": texts}))
    assert again == {"values": texts}
