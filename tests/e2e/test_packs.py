"""Packs through the whole service: the engine's own bits, and runs pruned on the device."""

from __future__ import annotations

import pytest

from ridgeline.search.engine import ProgramIdentity
from ridgeline.search.spec import parse_spec
from ridgeline.service.lifecycle import TrialState
from tests.deployment import Deployment
from tests.e2e.alone import outcome_alone, preparer
from tests.e2e.support import small

pytestmark = pytest.mark.slow


def test_values_are_those_of_the_engine_called_directly(deployment: Deployment) -> None:
    deployment.start_worker()
    data = small(
        "packed",
        "random",
        replicates=2,
        early_stopping={"patience": 2},
        budget={"trials": 12, "epochs": 5},
    )
    deployment.client.create_study(data)
    trials = deployment.outcome("packed")
    spec = parse_spec(data)
    with preparer() as own:
        for trial in trials:
            for run in trial.runs:
                program = run.program or ""
                assert ProgramIdentity.parse(program).width == 4
                alone = outcome_alone(own, spec, trial.config, run.seed, program)
                assert run.value == alone.value
                assert run.metrics == alone.metrics
                assert run.kept_epoch == alone.kept_epoch


def test_halving_prunes_on_the_device(deployment: Deployment) -> None:
    deployment.start_worker()
    deployment.client.create_study(
        small(
            "halved",
            "random",
            pruner={"name": "halving", "eta": 2, "min_epochs": 1},
            budget={"trials": 24, "epochs": 8},
        )
    )
    trials = deployment.outcome("halved")
    pruned = [trial for trial in trials if trial.state is TrialState.PRUNED]
    assert len(pruned) + sum(t.state is TrialState.COMPLETE for t in trials) == 24
    assert pruned, "nothing was pruned"
    for trial in pruned:
        (run,) = trial.runs
        assert run.pruned_by_version is not None
        assert trial.value == run.value is not None
        assert run.kept_epoch in (1, 2, 4)
