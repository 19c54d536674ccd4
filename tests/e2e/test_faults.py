"""SIGKILL, wherever it hurts: nothing is lost, nothing counts twice, and no value changes."""

from __future__ import annotations

import pytest

from ridgeline.service.lifecycle import RunState
from ridgeline.service.resources import Event
from tests.deployment import ROOT, Deployment
from tests.e2e.support import results, small

pytestmark = pytest.mark.slow


def ends_a_run(event: Event) -> bool:
    return event.type == "run" and event.data["state"] == RunState.COMPLETE


def test_another_worker_finishes_what_a_killed_one_began(deployment: Deployment) -> None:
    many = {"trials": 90, "epochs": 20}  # more runs than a worker has at hand
    victim = deployment.start_worker()
    deployment.client.create_study(small("calm", "random", replicates=2, budget=many))
    calm = deployment.outcome("calm")

    deployment.client.create_study(small("shaken", "random", replicates=2, budget=many))
    ended = 0
    for event in deployment.follow("shaken"):
        ended += ends_a_run(event)
        if ended == 5 and victim.poll() is None:
            deployment.kill(victim)
            deployment.start_worker()
    shaken = deployment.outcome("shaken")

    assert [trial.number for trial in shaken] == list(range(90))
    assert results(shaken) == results(calm)
    attempts = [run.attempt for trial in shaken for run in trial.runs]
    assert max(attempts) == 2, "the victim held nothing when it died"
    assert {run.charges for trial in shaken for run in trial.runs} == {0}
    assert len({run.worker for trial in shaken for run in trial.runs}) == 2


def test_an_api_killed_between_commit_and_answer(deployment: Deployment) -> None:
    many = {"trials": 90, "epochs": 2}  # more than a few syncs have done with
    deployment.start_worker()
    deployment.client.create_study(small("calm", "random", budget=many))
    calm = deployment.outcome("calm")

    deployment.kill(deployment.api)
    for num_syncs in (1, 2, 3, 5):
        deployment.start_api(str(ROOT / "tests/e2e/dying_api.py"), str(num_syncs))
        if num_syncs == 1:
            deployment.client.create_study(small("shaken", "random", budget=many))
        assert deployment.api.wait(timeout=60) == -9
    deployment.start_api()
    shaken = deployment.outcome("shaken")

    assert results(shaken) == results(calm)
    # The worker outlived every api; no run was handed out a second time.
    assert {run.attempt for trial in shaken for run in trial.runs} == {1}
    assert {run.charges for trial in shaken for run in trial.runs} == {0}
