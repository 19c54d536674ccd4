"""Studies of modules of torch through the service: as their authors install them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from ast import literal_eval
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ridgeline.service import processes
from ridgeline.service.lifecycle import FailReason, TrialState
from ridgeline.service.resources import Trial
from tests.chaos.processes import descendants
from tests.deployment import ROOT, Deployment
from tests.sites import contract_run, install, install_package
from tests.worker.odd_modules import ENTRY_POINTS
from tests.worker.running import wait_for_death

pytestmark = pytest.mark.slow

EXAMPLE = ROOT / "examples" / "own_task"
PAGE = (ROOT / "docs" / "own-task.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the example is installed."""
    return install_package(EXAMPLE, tmp_path_factory.mktemp("example"))


@pytest.fixture
def settings() -> dict[str, str]:
    return {}


@pytest.fixture
def deployment(
    migrated_sqlite: Path, tmp_path: Path, example: Path, settings: dict[str, str]
) -> Iterator[Deployment]:
    (tmp_path / "ridgeline.db").write_bytes(migrated_sqlite.read_bytes())
    install(tmp_path / "odd", "odd-modules", ENTRY_POINTS)
    paths = os.pathsep.join(map(str, [ROOT, example, tmp_path / "odd"]))
    deployment = Deployment(
        f"sqlite:///{tmp_path / 'ridgeline.db'}", tmp_path, {**settings, "PYTHONPATH": paths}
    )
    deployment.start_api()
    yield deployment
    deployment.close()


def blocks(language: str) -> list[str]:
    """What the page shows of modules in that language."""
    section = PAGE.partition("\n## A module of torch\n")[2]
    return re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


def study_in(file: str, **changes: Any) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load((EXAMPLE / file).read_text())
    return {**spec, **changes}


def test_the_example_finds_the_cell_that_the_script_finds(
    deployment: Deployment, tmp_path: Path, example: Path
) -> None:
    networks, script, module = blocks("python")
    source = EXAMPLE / "own_task"
    assert networks in (source / "networks.py").read_text()
    assert module in (source / "__init__.py").read_text()
    assert blocks("yaml") == [(EXAMPLE / "study.yaml").read_text()]
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(example), "OMP_NUM_THREADS": "1"},
    )

    deployment.start_worker()
    posts = [sys.executable, "-m", "ridgeline.service.cli", "run", str(EXAMPLE / "study.yaml")]
    subprocess.run(posts, env=deployment.env, cwd=tmp_path, check=True)
    trials = deployment.outcome("own-residual")
    best = deployment.client.best("own-residual")
    assert len(trials) == 6
    assert {key: best.config[key] for key in ("learning_rate", "dropout")} == literal_eval(
        done.stdout
    )


def test_a_convolutional_network_is_searched_on_images(deployment: Deployment) -> None:
    deployment.start_worker()
    study = study_in(
        "mnist.yaml",
        task={"name": "own-cnn", "dataset": "digits", "channels": 8},
        budget={"trials": 3, "epochs": 6},
    )
    deployment.client.create_study(study)
    trials = deployment.outcome("own-cnn")
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    assert max(trial.value or 0 for trial in trials) > 0.8  # of ten classes


@pytest.mark.parametrize("file", ["study.yaml", "mnist.yaml"])
def test_the_studies_are_short(file: str) -> None:
    assert len((EXAMPLE / file).read_text().splitlines()) <= 25


def test_the_examples_are_tasks_as_others(example: Path) -> None:
    printed = contract_run(example)
    for name in ("own-residual", "own-cnn"):
        assert f"test_its_runs_learn_to_the_end_and_tell_its_metrics[{name}] PASSED" in printed


BAD = {
    "raises-at-build": "no licence",
    "raises-in-forward": "attention",
    "wrong-shape": "WrongShape must give 10 outputs a row, [4, 10] for 4 rows, not [4, 9]",
    "parameterless": "the module has no parameters to train",
    "no-module": "odd_networks:no_module must give an nn.Module, not 5",
    "missing-module": "tests.worker.odd_networks:Missing cannot be imported",
}


def ended(deployment: Deployment, name: str) -> list[Trial]:
    """The trials of a study, however it ends."""
    for _ in deployment.follow(name):
        pass
    return list(deployment.client.trials(name))


def study_of(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "task": {"name": name, "dataset": "digits"},
        "space": {"learning_rate": {"type": "float", "low": 0.001, "high": 0.01}},
        "sampler": {"name": "random", "seed": 1},
        "objective": {"metric": "validation_loss", "direction": "minimize"},
        "budget": {"trials": 2, "epochs": 2},
    }


def test_bad_modules_fail_their_own_runs_alone(deployment: Deployment) -> None:
    deployment.start_worker()
    for name in (*BAD, "nan", "by-data", "linear-module"):
        deployment.client.create_study(study_of(name))
    for name, reason in BAD.items():
        for trial in ended(deployment, name):
            (run,) = trial.runs
            assert (trial.state, run.reason) == (TrialState.FAIL, FailReason.CRASHED), name
            assert (run.attempt, run.charges) == (3, 3), name
            assert reason in (run.error or ""), name
    for trial in ended(deployment, "nan"):
        assert (trial.state, trial.reason) == (TrialState.FAIL, FailReason.DIVERGED)
    for name in ("by-data", "linear-module"):
        assert_undisturbed(deployment.outcome(name))


def assert_undisturbed(trials: list[Trial]) -> None:
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    runs = [run for trial in trials for run in trial.runs]
    assert {(run.attempt, run.charges) for run in runs} == {(1, 0)}


@pytest.mark.parametrize(
    "settings", [{"RIDGELINE_HANG_SECONDS": "20", "RIDGELINE_MAX_CHARGES": "1"}]
)
def test_modules_that_hang_pay_for_it_alone(deployment: Deployment) -> None:
    deployment.start_worker()
    bad = ("hangs-at-build", "hangs-in-training")
    for name in (*bad, "linear-module"):
        study = study_of(name)
        deployment.client.create_study({**study, "budget": {"trials": 1, "epochs": 2}})
    for name in bad:
        (trial,) = ended(deployment, name)
        (run,) = trial.runs
        assert (trial.state, run.reason) == (TrialState.FAIL, FailReason.TIMEOUT), name
        assert "a step did not end for 20 s" in (run.error or "")
    (trial,) = deployment.outcome("linear-module")
    assert (trial.state, trial.runs[0].charges) == (TrialState.COMPLETE, 0)


def test_modules_that_print_or_fork_disturb_nobody(deployment: Deployment) -> None:
    worker = deployment.start_worker()
    for name in ("prints", "forks", "linear-module"):
        deployment.client.create_study(study_of(name))
    for name in ("prints", "forks", "linear-module"):
        assert_undisturbed(deployment.outcome(name))
    started = descendants(worker.pid)
    log = deployment.log(worker)
    assert log.stat().st_size < 2**20
    assert "so far so good" in log.read_text()
    assert "more is printed" in log.read_text()
    assert processes.terminate(worker, grace_seconds=20) == 0
    for pid in started:
        wait_for_death(pid)
