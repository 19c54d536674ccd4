"""Whole studies with real workers: complete, the same for any number of workers, read by Optuna."""

from __future__ import annotations

import itertools

import pytest

from ridgeline.service.cli import tables
from ridgeline.service.lifecycle import TrialState
from tests.deployment import Deployment
from tests.e2e.support import check_against_optuna, grid, results, small

pytestmark = pytest.mark.slow


def test_a_grid_with_two_workers_and_what_optuna_reads(
    deployment: Deployment, migrated_url: str
) -> None:
    deployment.start_worker()
    deployment.start_worker()
    deployment.client.create_study(grid("grid"))
    trials = deployment.outcome("grid")
    assert [trial.number for trial in trials] == list(range(36))
    assert [trial.grid_cell for trial in trials] == list(range(36))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    cells = {tuple(trial.config.values()) for trial in trials}
    assert cells == set(
        itertools.product((1e-3, 1e-2, 1e-1), (32, 64, 128), (0.0, 1e-3), (0.0, 0.5))
    )
    assert all(trial.runs[0].attempt == 1 for trial in trials)
    check_against_optuna(deployment, migrated_url, "grid", trials)


def test_one_worker_or_two_make_the_same_study(deployment: Deployment, migrated_url: str) -> None:
    first = deployment.start_worker()
    studies = [
        small("random", "random", replicates=2),
        small("tpe", "tpe", budget={"trials": 14, "epochs": 2, "max_parallel": 4}),
    ]
    outcomes = []
    for count in ("one", "two"):
        if count == "two":
            deployment.start_worker()
        for study in studies:
            name = f"{study['name']}-{count}"
            deployment.client.create_study({**study, "name": name, "reproducible": True})
        outcomes.append([deployment.outcome(f"{study['name']}-{count}") for study in studies])
    assert [results(trials) for trials in outcomes[0]] == [
        results(trials) for trials in outcomes[1]
    ]
    by_two = {run.worker for trials in outcomes[1] for t in trials for run in t.runs}
    assert len(by_two) == 2, "the second worker trained nothing"
    assert first.poll() is None
    check_against_optuna(deployment, migrated_url, "tpe-two", outcomes[1][1])


def test_folds_are_runs_of_each_trial(deployment: Deployment) -> None:
    deployment.start_worker()
    task = {"name": "mlp", "dataset": "wine", "hidden": [8], "split": {"folds": 3, "repeats": 2}}
    study = small("folds", "random", task=task, budget={"trials": 3, "epochs": 2}, replicates=2)
    deployment.client.create_study(study)
    trials = deployment.outcome("folds")
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    for trial in trials:
        assert [run.replicate for run in trial.runs] == list(range(12))
        values = [run.value for run in trial.runs if run.value is not None]
        assert trial.value == pytest.approx(sum(values) / 12)
        # 142 rows that are no test rows: folds of 48, 47 and 47.
        num_rows = [48, 47, 47] * 4
        for value, rows in zip(values, num_rows, strict=True):
            assert value * rows == pytest.approx(round(value * rows), abs=1e-3)


def test_a_winner_is_raced_and_confirmed_whatever_the_number_of_workers(
    deployment: Deployment,
) -> None:
    """With a real worker, and with two; what a person is told of it."""
    client = deployment.client
    again = {"racing": {"seeds": 3, "leaders": 2}, "fresh_seeds": 2, "reproducible": True}
    outcomes = []
    for name in ("one", "two"):
        deployment.start_worker()
        client.create_study(small(name, "random", budget={"trials": 6, "epochs": 1}, **again))
        outcomes.append(results(deployment.outcome(name)))
    assert outcomes[0] == outcomes[1]
    best = client.best("one")
    fresh = best.standing.fresh
    assert best.standing.num_seeds == 3
    assert fresh is not None
    assert fresh.value is not None
    assert fresh.selection_effect == pytest.approx(best.standing.value - fresh.value)
    last = client.trial("one", fresh.trial)
    assert (last.origin, last.repeats) == ("confirmation", best.number)
    report = client.study_report("one", format="md")
    assert "Trained again with 2 fresh seeds, which no choice was made by" in report
    lines = tables.study_lines(client.study("one"))
    assert any("with fresh seeds" in line and "selection effect" in line for line in lines)
