"""SIGKILL, wherever it hurts: nothing is lost, nothing counts twice, and no value changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from ridgeline.service.lifecycle import RunState
from ridgeline.service.resources import Event
from tests.chaos.oracle import reading
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


@pytest.fixture
def saving(migrated_url: str, tmp_path: Path) -> Iterator[Deployment]:
    """Workers that make checkpoints as often as they can."""
    deployment = Deployment(migrated_url, tmp_path, {"RIDGELINE_CHECKPOINT_SECONDS": "0.01"})
    deployment.start_api()
    yield deployment
    deployment.close()


FIRST_EPOCHS_OF_SAVED = """
SELECT r.id, p.reported_at FROM rl_runs r JOIN rl_reports p ON p.run_id = r.id AND p.epoch = 1
WHERE r.state = 'RUNNING' AND EXISTS (
    SELECT 1 FROM rl_artifacts a
    WHERE a.run_id = r.id AND a.state = 'WHOLE' AND a.attempt = :attempt)
"""


def test_another_worker_goes_on_where_a_killed_one_was(saving: Deployment) -> None:
    def ask(statement: str, **values: object) -> list[tuple[int, float]]:
        with closing(reading(saving.database_url)) as connection:
            return [(row[0], row[1]) for row in connection.execute(text(statement), values)]

    changes = {
        "budget": {"trials": 4, "epochs": 400},
        "early_stopping": {"patience": 300},
        "reproducible": True,
    }
    workers = [saving.start_worker()]
    saving.client.create_study(small("calm", "random", **changes))
    calm = saving.outcome("calm")

    saving.client.create_study(small("shaken", "random", **changes))
    told: dict[int, float] = {}
    for _ in saving.follow("shaken"):
        if len(workers) > 3:
            continue
        if saved := ask(FIRST_EPOCHS_OF_SAVED, attempt=len(workers)):
            saving.kill(workers[-1])
            told |= {run: reported_at for run, reported_at in saved if run not in told}
            workers.append(saving.start_worker())
    shaken = saving.outcome("shaken")

    assert results(shaken) == results(calm)
    assert max(run.attempt for trial in shaken for run in trial.runs) == 4
    assert told, "no run had a checkpoint when its worker was killed"
    # Their first epochs were never told again.
    first = dict(ask("SELECT run_id, reported_at FROM rl_reports WHERE epoch = 1"))
    assert {run: first[run] for run in told} == told
    assert not any("begins anew" in saving.log(worker).read_text() for worker in workers)
