"""Daily operations while processes are killed: each has its effect once, and no trial is lost."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TypeVar

import pytest

from ridgeline.service.client import ApiError, Client
from ridgeline.service.lifecycle import FailReason, StudyState, TrialState
from ridgeline.service.resources import Study
from tests.api.calling import EXTERNAL
from tests.deployment import ROOT, Deployment

pytestmark = pytest.mark.slow

DEADLINE_SECONDS = 120

_T = TypeVar("_T")


class Shaken:
    """A deployment whose api dies twice in each operation: before its commit, and after it."""

    def __init__(self, deployment: Deployment, armed: Path) -> None:
        self.client: Client = deployment.client
        self._deployment = deployment
        self._armed = armed
        deployment.kill(deployment.api)
        self._start()

    def _start(self) -> None:
        self._deployment.start_api(str(ROOT / "tests/e2e/dying_writes.py"), str(self._armed))

    def do(self, operation: Callable[[Client], _T]) -> _T:
        """The answer to one call of the client, which repeats its request until there is one."""
        with ThreadPoolExecutor(1) as thread:
            self._armed.write_text("before")
            answer = thread.submit(operation, self.client)
            for then in ("after", None):
                assert self._deployment.api.wait(timeout=DEADLINE_SECONDS) == -9
                if then is not None:
                    self._armed.write_text(then)
                self._start()
            return answer.result()


def fail_one(client: Client) -> None:
    (trial,) = client.suggest("x").trials
    client.complete(
        "x", trial.number, attempt=trial.attempt, state="FAIL", reason=FailReason.DIVERGED
    )


def test_each_operation_has_its_effect_once(deployment: Deployment, tmp_path: Path) -> None:
    shaken = Shaken(deployment, tmp_path / "armed")
    client = shaken.client
    assert shaken.do(lambda client: client.create_study(EXTERNAL)).num_trials == 4
    assert shaken.do(lambda client: client.pause("x")).state is StudyState.PAUSED
    assert shaken.do(lambda client: client.resume("x")).state is StudyState.QUEUED
    assert shaken.do(lambda client: client.extend("x", trials=2)).num_trials == 6
    (trial,) = shaken.do(lambda client: client.enqueue("x", [{}]))
    assert (trial.number, client.study("x").trials.waiting) == (0, 1)

    fail_one(client)
    reasons = [FailReason.DIVERGED]
    retried: Study = shaken.do(lambda client: client.retry("x", reasons=reasons))
    assert (retried.num_trials, retried.trials.waiting) == (7, 1)
    cloned = shaken.do(lambda client: client.clone("x", "y", {"priority": 3}))
    assert (cloned.name, cloned.spec.priority, cloned.num_trials) == ("y", 3, 7)
    assert shaken.do(lambda client: client.stop("x")).state is StudyState.COMPLETED
    assert [trial.number for trial in client.trials("x")] == [0, 1]

    assert shaken.do(lambda client: client.archive("x")).archived
    assert not shaken.do(lambda client: client.unarchive("x")).archived
    assert shaken.do(lambda client: client.delete("x")).name == "x"
    with pytest.raises(ApiError, match="there is no study named x"):
        client.study("x")
    assert [study.name for study in client.studies()] == ["y"]


def test_of_four_programs_one_is_killed_and_the_study_completes(deployment: Deployment) -> None:
    client = deployment.client
    budget = {"trials": 40, "max_parallel": 3}
    client.create_study({**EXTERNAL, "sampler": {"name": "tpe", "seed": 1}, "budget": budget})
    with program(deployment, "2") as victim:
        assert victim.stdout is not None
        assert [line_of(victim.stdout) for _ in range(2)] == ["0", "1"]
        assert line_of(victim.stdout) == "holds 2"
        others = [program(deployment) for _ in range(3)]
        assert others[0].stdout is not None
        told = [line_of(others[0].stdout)]  # the study is on its way
        deployment.kill(victim)
    for other in others:
        rest, _ = other.communicate(timeout=DEADLINE_SECONDS)
        assert other.returncode == 0
        told += rest.split()
    assert sorted(map(int, ["0", "1", *told])) == list(range(40)), "each was ended by one program"
    assert client.study("x").state is StudyState.COMPLETED
    trials = list(client.trials("x"))
    assert Counter(trial.state for trial in trials) == {TrialState.COMPLETE: 40}
    attempts = {trial.number: run.attempt for trial in trials for run in trial.runs}
    assert attempts == {number: 2 if number == 2 else 1 for number in range(40)}
    assert {run.charges for trial in trials for run in trial.runs} == {0}


def program(deployment: Deployment, *limit: str) -> subprocess.Popen[str]:
    script = str(ROOT / "tests/e2e/looping_program.py")
    return subprocess.Popen(
        [sys.executable, script, deployment.url, "x", *limit],
        env={**deployment.env, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def line_of(stream: IO[str]) -> str:
    return stream.readline().strip()
