"""Studies of functions through the service: as their authors install them, good and bad."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import pytest

from ridgeline.service.lifecycle import FailReason, StudyState, TrialState
from ridgeline.service.resources import Trial
from tests.deployment import ROOT, Deployment
from tests.e2e.support import small
from tests.sites import contract_run, install, install_package
from tests.worker.odd_functions import ENTRY_POINTS
from tests.worker.running import children, command, wait_for_death

pytestmark = pytest.mark.slow

EXAMPLE = ROOT / "examples" / "own_objective"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the odd functions, as installed."""
    site = tmp_path_factory.mktemp("site")
    install(site, "odd-functions", ENTRY_POINTS)
    return site


def study_of(task: str, name: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "task": {"name": task},
        "space": {"x": {"type": "float", "low": 0, "high": 1}},
        "sampler": {"name": "random", "seed": 3},
        "objective": {"metric": "loss", "direction": "minimize"},
        "budget": {"trials": 2},
        **changes,
    }


def deployment_of(url: str, home: Path, *folders: Path, **settings: str) -> Deployment:
    paths = os.pathsep.join(map(str, [ROOT, *folders]))
    deployment = Deployment(url, home, {"PYTHONPATH": paths, **settings})
    deployment.start_api()
    return deployment


@pytest.fixture
def functions(migrated_url: str, tmp_path: Path, site: Path) -> Iterator[Deployment]:
    deployment = deployment_of(migrated_url, tmp_path, site, RIDGELINE_FUNCTION_SLOTS="2")
    yield deployment
    deployment.close()


def outcome(deployment: Deployment, name: str) -> list[Trial]:
    for _ in deployment.follow(name):
        pass
    return list(deployment.client.trials(name))


def test_functions_and_packs_are_searched_side_by_side(
    functions: Deployment, tmp_path: Path
) -> None:
    client = functions.client
    client.create_study(study_of("square", "before"))
    assert client.study("before").reason == (
        "no worker is connected yet: one that is starting takes some seconds; "
        "`ridgeline worker` starts one"
    )
    functions.start_worker()
    (worker,) = client.workers()
    assert [(device.name, device.num_slots) for device in worker.devices][1:] == [("functions", 2)]
    pruner = {"name": "median", "startup": 3}
    client.create_study(study_of("square", "good", budget={"trials": 30}, pruner=pruner))
    client.create_study(study_of("seeded", "seeds", replicates=2))
    client.create_study(study_of("raises", "bad"))
    client.create_study(study_of("segfaults", "ugly"))
    client.create_study(small("packs", "random", budget={"trials": 4, "epochs": 2}))

    good = outcome(functions, "good")
    states = {state: [t for t in good if t.state is state] for state in TrialState}
    assert len(states[TrialState.COMPLETE]) + len(states[TrialState.PRUNED]) == 30
    assert states[TrialState.PRUNED], "none was worse than the median"
    for trial in states[TrialState.COMPLETE]:
        assert trial.value == pytest.approx(float(trial.config["x"]) ** 2, rel=1e-12)
    assert {(run.attempt, run.charges, run.device) for t in good for run in t.runs} == {
        (1, 0, "functions")
    }
    for trial in outcome(functions, "seeds"):
        assert [run.value for run in trial.runs] == [run.seed % 2**32 for run in trial.runs]

    for trial in outcome(functions, "bad"):
        (run,) = trial.runs
        assert (trial.state, trial.reason) == (TrialState.FAIL, FailReason.CRASHED)
        assert (run.error, run.charges, run.attempt) == (
            "RuntimeError: the solver \\0 \\ud800 found\nnothing",
            0,
            1,
        )
        assert "Traceback" in (run.log_tail or "")
    for trial in outcome(functions, "ugly"):
        (run,) = trial.runs
        assert (run.reason, run.charges, run.attempt) == (FailReason.CRASHED, 3, 3)
        assert run.error == "its process died with signal 11 (Segmentation fault)"
    assert {run.device for t in functions.outcome("packs") for run in t.runs} == {"cpu:0"}
    assert client.study("bad").state is StudyState.FAILED

    if functions.database_url.startswith("sqlite"):
        copied = optuna.load_study(study_name="good", storage=functions.database_url)
        values = {t.number: dict(t.intermediate_values) for t in copied.trials}
        one = states[TrialState.COMPLETE][0]
        square = float(one.config["x"]) ** 2
        assert values[one.number] == pytest.approx({1: square + 2, 2: square + 1, 3: square})


def test_another_worker_calls_what_a_killed_one_had(functions: Deployment) -> None:
    victim = functions.start_worker()
    functions.client.create_study(study_of("starts", "shaken", budget={"trials": 1}))
    pids: list[int] = []
    for event in functions.follow("shaken"):
        if event.type != "report":
            continue
        pids.append(int(event.data["metrics"]["loss"]))
        if len(pids) == 2:
            break
        functions.kill(victim)
        wait_for_death(pids[0])
        functions.start_worker()
    functions.client.cancel("shaken")
    wait_for_death(pids[1])
    ((run,),) = (trial.runs for trial in functions.client.trials("shaken"))
    assert (run.attempt, run.charges, run.reason) == (2, 0, FailReason.CANCELLED)


def test_whatever_is_killed_each_trial_ends_once(functions: Deployment) -> None:
    functions.client.create_study(study_of("slow-square", "shaken", budget={"trials": 12}))
    worker = functions.start_worker()
    kills = {"worker": 0, "guard": 0, "function": 0}
    for event in functions.follow("shaken"):
        if event.type != "report" or min(kills.values()) == 2:
            continue
        victim = min(kills, key=lambda name: kills[name])
        guards = [one for one in children(worker.pid) if "functions.guard" in command(one)]
        called = [one for guard in guards for one in children(guard)]
        if not called:
            continue
        if victim == "worker":
            functions.kill(worker)
            worker = functions.start_worker()
        else:
            with suppress(ProcessLookupError):
                os.kill((guards if victim == "guard" else called)[0], signal.SIGKILL)
        kills[victim] += 1

    assert min(kills.values()) == 2
    shaken = functions.outcome("shaken")
    assert [trial.number for trial in shaken] == list(range(12))
    for trial in shaken:
        assert trial.value == pytest.approx(float(trial.config["x"]) ** 2, rel=1e-12)
    runs = [run for trial in shaken for run in trial.runs]
    assert max(run.attempt for run in runs) > 1
    assert 0 < sum(run.charges for run in runs) <= kills["guard"] + kills["function"]


IMPATIENT = """
from ridgeline.search.tasks import importing
importing.IMPORT_SECONDS = 15
from ridgeline.service.cli import main
main()
"""
DEADLY = {
    "hangs": ("import threading; threading.Event().wait()", "importing it takes longer than 15 s"),
    "exits": ("import os; os._exit(0)", "importing it ends the process with code 0"),
    "dies": (
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "importing it ends the process: Segmentation fault",
    ),
    "forks": (
        "import os, threading; os.fork() or threading.Event().wait()",
        "importing it leaves processes behind",
    ),
    "raises": ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
}


def test_packages_that_cannot_be_imported_harm_nobody(
    migrated_sqlite: Path, tmp_path: Path, site: Path
) -> None:
    deadly = tmp_path / "deadly"
    for name, (source, _) in DEADLY.items():
        install(deadly, f"package-{name}", {f"{name}-at-import": f"{name}_at_import:task"})
        (deadly / f"{name}_at_import.py").write_text(source)
    (tmp_path / "ridgeline.db").write_bytes(migrated_sqlite.read_bytes())
    paths = os.pathsep.join(map(str, [ROOT, site, deadly]))
    url = f"sqlite:///{tmp_path / 'ridgeline.db'}"
    deployment = Deployment(url, tmp_path, {"PYTHONPATH": paths})
    try:
        deployment.spawn_api("-c", IMPATIENT, "serve")
        worker = deployment.spawn_worker("-c", IMPATIENT, "worker")
        deployment.client.create_study(study_of("square", "function"))
        deployment.client.create_study(small("pack", "random", budget={"trials": 2, "epochs": 2}))
        for name in ("function", "pack"):
            assert {trial.state for trial in deployment.outcome(name)} == {TrialState.COMPLETE}
        (known,) = deployment.client.workers()
        for process in (deployment.api, worker):
            log = deployment.log(process).read_text()
            for name, (_, reason) in DEADLY.items():
                which = f"the task {name}-at-import of package-{name} ({name}_at_import:task)"
                assert f"left out: {which}: {reason}" in log
        assert not any("at-import" in task for task in known.tasks)
    finally:
        deployment.close()


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the example is installed."""
    return install_package(EXAMPLE, tmp_path_factory.mktemp("example"))


def test_the_example_finds_what_the_script_finds(
    migrated_sqlite: Path, tmp_path: Path, example: Path
) -> None:
    page = (ROOT / "docs" / "own-task.md").read_text(encoding="utf-8")
    page = page.partition("\n## A module of torch\n")[0]
    script, module = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (study,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert module == (EXAMPLE / "own_objective.py").read_text()
    assert study == (EXAMPLE / "study.yaml").read_text()
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )

    (tmp_path / "ridgeline.db").write_bytes(migrated_sqlite.read_bytes())
    url = f"sqlite:///{tmp_path / 'ridgeline.db'}"
    deployment = deployment_of(url, tmp_path, example)
    try:
        deployment.start_worker()
        posts = [sys.executable, "-m", "ridgeline.service.cli", "run", str(EXAMPLE / "study.yaml")]
        subprocess.run(posts, env=deployment.env, cwd=tmp_path, check=True)
        trials = deployment.outcome("own-objective")
        best = deployment.client.best("own-objective")
    finally:
        deployment.close()
    assert len(trials) == 9
    assert best.value == float(done.stdout)


def test_the_example_is_a_task_as_others(example: Path) -> None:
    printed = contract_run(example)
    assert "own-objective" in printed
