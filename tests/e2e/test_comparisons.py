"""`ridgeline compare`, with a real service and worker."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ridgeline.search.comparison import studies_of
from ridgeline.search.tasks.datasets import load
from ridgeline.search.tasks.settings import Split
from ridgeline.search.tasks.splits import split_column
from ridgeline.service.cli.study_file import load_comparison
from ridgeline.service.lifecycle import RunState
from ridgeline.service.resources import Run
from tests.chaos.processes import device_processes
from tests.deployment import ROOT, Deployment
from tests.e2e.alone import outcome_alone, preparer, run_input

pytestmark = pytest.mark.slow

LAYERS = "layers.0.weight", "layers.1.weight"

COMPARISON = """
name: small
base:
  task: {name: mlp, dataset: digits, hidden: [16]}
  space: {learning_rate: {type: float, low: 0.001, high: 0.02, log: true}}
  sampler: {name: random, seed: 4}
  budget: {trials: 2, epochs: 2}
arms: %s
replicates: 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(COMPARISON % "[none, dropout+l2]")
    return path


def compare(deployment: Deployment, file: Path) -> subprocess.CompletedProcess[str]:
    command = "from ridgeline.service.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", command, "compare", str(file)],
        capture_output=True,
        text=True,
        timeout=480,
        env=os.environ | {"RIDGELINE_URL": deployment.url},
    )


def test_arms_are_tuned_and_their_winners_compared_by_fresh_seeds(
    deployment: Deployment, file: Path
) -> None:
    deployment.start_worker()
    spec = load_comparison(file).spec
    # Begun before, as by a command that was interrupted.
    deployment.client.create_study(studies_of(spec)["dropout+l2"])
    done = compare(deployment, file)
    assert done.returncode == 0, done.stderr
    said = r"^none (is better than|is worse than|and) dropout\+l2.*: test_accuracy .*3 seeds"
    assert re.search(said, done.stdout, re.MULTILINE)
    assert re.search("^ *arm +accuracy gap +weights near 0 +inputs kept", done.stdout, re.MULTILINE)
    names = {study.name for study in deployment.client.studies()}
    arms = ("none", "dropout.l2")
    assert names == {f"small-{purpose}.{arm}" for purpose in ("search", "fresh") for arm in arms}
    searched = {run.seed for arm in arms for run in runs(deployment, f"small-search.{arm}")}
    seeds = [[run.seed for run in runs(deployment, f"small-fresh.{arm}")] for arm in arms]
    assert seeds[0] == seeds[1]
    assert len({*seeds[0]}) == 3
    assert not searched & {*seeds[0]}
    winner = deployment.client.best("small-search.dropout.l2").config
    (trial,) = deployment.client.trials("small-fresh.dropout.l2")
    assert trial.config == winner
    seen = [run.measures for run in trial.runs]
    assert all(one is not None and one.layers.keys() == {*LAYERS} for one in seen)

    again = compare(deployment, file)
    assert again.returncode == 0
    assert table(again) == table(done)


def test_what_stands_in_the_way_is_told_in_a_line(deployment: Deployment, file: Path) -> None:
    spec = load_comparison(file).spec
    other = studies_of(spec)["none"].model_copy(update={"replicates": 2})
    deployment.client.create_study(other)
    refused = compare(deployment, file)
    assert refused.returncode == 1
    assert refused.stderr == (
        "ridgeline: there is another study named small-search.none already: give the comparison "
        "another name, or delete that study with `ridgeline delete small-search.none`\n"
    )
    deployment.client.cancel("small-search.none")
    deployment.client.delete("small-search.none")
    deployment.client.create_study(studies_of(spec)["none"])
    deployment.client.cancel("small-search.none")
    refused = compare(deployment, file)
    assert refused.stderr.startswith(
        "ridgeline: there is a study that was cancelled or stopped named small-search.none already"
    )
    deployment.client.delete("small-search.none")
    deployment.client.create_comparison(spec)
    deployment.client.cancel("small-search.none")
    deployment.client.cancel("small-search.dropout.l2")
    refused = compare(deployment, file)
    assert refused.returncode == 1
    assert refused.stderr.endswith(
        "ridgeline: small: small-search.none is CANCELLED, which leaves the arm out for good; "
        "without it nothing can be compared\n"
    )
    file.write_text(COMPARISON % "[none, l2+dropuot]")
    refused = compare(deployment, file)
    assert refused.returncode == 2
    reason = "arms.l2+dropuot: there is no ready-made arm dropuot"
    assert refused.stderr.startswith(f"ridgeline: {file}:8: {reason}")
    file.write_text((COMPARISON % "[none, l2]").replace("digits", "nowhere"))
    refused = compare(deployment, file)
    assert refused.returncode == 1, "the name is taken"
    file.write_text(file.read_text().replace("name: small", "name: other"))
    refused = compare(deployment, file)
    assert refused.returncode == 2
    reason = "base.task.dataset: no worker has a data set 'nowhere'"
    assert refused.stderr.startswith(f"ridgeline: {file}:4: {reason}")


ALL_ROWS = COMPARISON % "[none, early_stopping]" + "train_on: train+validation\n"


def test_winners_that_train_on_validation_rows_derive_again(
    deployment: Deployment, tmp_path: Path
) -> None:
    deployment.start_worker()
    file = tmp_path / "all.yaml"
    file.write_text(ALL_ROWS.replace("name: small", "name: all"))
    done = compare(deployment, file)
    assert done.returncode == 0, done.stderr
    assert "Winners were trained again on training and validation rows." in done.stdout
    assert "validation_accuracy, fresh seeds" not in done.stdout
    assert "gap" not in table(done)
    digits = load("digits", None)
    split = split_column(digits, Split())
    for arm in deployment.client.comparison("all").arms:
        assert arm.winner is not None
        assert arm.fresh is not None
        spec = arm.fresh.spec
        (trial,) = deployment.client.trials(arm.fresh.name)
        searched = deployment.client.trial(arm.search.name, arm.winner.number).runs[0]
        assert {run.kept_epoch for run in trial.runs} == {searched.kept_epoch}
        for run in trial.runs:
            assert run.program is not None
            with preparer() as prepare:
                data = prepare.prepare(run_input(spec, trial.config, run.seed)).data
                alone = outcome_alone(prepare, spec, trial.config, run.seed, run.program)
            assert data.train.num_samples == len(split.train) + len(split.validation)
            assert data.train.num_samples + data.test.num_samples == len(digits.x)
            assert alone.metrics == run.metrics
            assert run.measures is not None
            assert run.measures.generalisation_gap == {}


DIVERGING = """
name: diverging
base:
  task: {name: mlp, dataset: diabetes, hidden: [8]}
  space: {learning_rate: {type: float, low: 0.001, high: 0.02, log: true}}
  sampler: {name: random}
  objective: {metric: validation_rmse, direction: minimize}
  budget: {trials: 2, epochs: 2}
arms:
  none: {}
  l2: {}
  huge: {space: {learning_rate: {type: values, values: [1.0e+10]}}}
replicates: 3
"""


def test_an_arm_that_only_diverges_leaves_the_others_to_compare(
    deployment: Deployment, tmp_path: Path
) -> None:
    deployment.start_worker()
    file = tmp_path / "diverging.yaml"
    file.write_text(DIVERGING)
    done = compare(deployment, file)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\nhuge has no winner: every trial failed; 2 diverged.\n" in done.stdout
    assert re.search(r"^(none|l2) .*(none|l2).*: test_rmse .*3 seeds", done.stdout, re.MULTILINE)
    assert not re.search(r"huge .*(none|l2)", done.stdout[done.stdout.index(" arm ") :])

    all_huge = DIVERGING.replace("low: 0.001, high: 0.02", "low: 1.0e+9, high: 1.0e+10")
    file.write_text(all_huge.replace("name: div", "name: all-div"))
    refused = compare(deployment, file)
    assert refused.returncode == 1
    assert refused.stderr == (
        "ridgeline: all-diverging: no trial of any arm came to its end: "
        "every trial failed; 2 diverged\n"
    )


SHAKEN = """
name: %s
base:
  task: {name: mlp, dataset: digits, hidden: [16]}
  space: {learning_rate: {type: float, low: 0.001, high: 0.02, log: true}}
  sampler: {name: random, seed: 4}
  budget: {trials: 30, epochs: 40}
arms: [none, l2]
replicates: 8
"""


def test_kills_change_nothing_of_the_table(deployment: Deployment, tmp_path: Path) -> None:
    """A device process dies in the search, the api between two winners, the worker after them."""
    worker = deployment.start_worker()
    file = tmp_path / "comparison.yaml"
    file.write_text(SHAKEN % "calm")
    calm = compare(deployment, file)
    assert calm.returncode == 0, calm.stderr

    deployment.kill(deployment.api)
    deployment.start_api(str(ROOT / "tests/e2e/dying_advance.py"), "2")
    file.write_text(SHAKEN % "shaken")
    deployment.client.create_comparison(load_comparison(file).spec)
    for event in deployment.follow("shaken-search.none"):
        if event.type == "run" and event.data["state"] == RunState.COMPLETE:
            (device,) = device_processes(worker.pid)
            os.kill(device, signal.SIGKILL)
            break
    assert deployment.api.wait(timeout=240) == -9
    deployment.start_api()
    assert sum(arm.fresh is not None for arm in deployment.client.comparison("shaken").arms) < 2
    names = wait_for_winners(deployment, "shaken")
    for event in deployment.follow(names[-1]):
        if event.type == "run" and event.data["state"] == RunState.RUNNING:
            deployment.kill(worker)
            break
    deployment.start_worker()
    shaken = compare(deployment, file)
    assert shaken.returncode == 0, shaken.stderr

    assert table(shaken) == table(calm)
    found = {study.name for study in deployment.client.studies() if "shaken" in study.name}
    assert found == {f"shaken-{of}.{arm}" for of in ("search", "fresh") for arm in ("none", "l2")}
    assert {study.trials.complete for study in deployment.client.studies()} == {30, 1}
    for of in ("search", "fresh"):
        trained = [run for name in found if f"-{of}." in name for run in runs(deployment, name)]
        assert max(run.attempt for run in trained) > 1, (
            f"nothing trained in {of} when it was killed"
        )


def wait_for_winners(deployment: Deployment, comparison: str) -> list[str]:
    """The studies that train the winners again, once there are all of them."""
    while True:
        arms = deployment.client.comparison(comparison).arms
        names = [arm.fresh.name for arm in arms if arm.fresh is not None]
        if len(names) == len(arms):
            return names


def table(done: subprocess.CompletedProcess[str]) -> str:
    """What a command has printed once all was done: the table and the sentences."""
    return done.stdout[done.stdout.index(" arm ") :]


def runs(deployment: Deployment, study: str) -> list[Run]:
    return [run for trial in deployment.client.trials(study) for run in trial.runs]
