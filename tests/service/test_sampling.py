"""Every suggestion can be derived again from what the sampler saw."""

from __future__ import annotations

import pytest

from service import sampling, studies, trials
from service.errors import NotFound
from service.store.session import Store
from tests.service.factory import FakeWorker, ended, post, spec
from tests.service.test_workers import all_trials

SPACE = {
    "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True, "points": 4},
    "l2": {"type": "float", "low": 1e-6, "high": 1e-2, "log": True, "zero": True, "points": 3},
    "batch_size": {"type": "values", "values": [16, 32, 64]},
}


@pytest.mark.parametrize("reproducible", [False, True])
@pytest.mark.parametrize("sampler", ["grid", "random", "tpe"])
def test_suggestions_are_derived_again(store: Store, sampler: str, reproducible: bool) -> None:
    post(
        store,
        spec(
            space=SPACE,
            sampler={"name": sampler, "seed": 11},
            budget={"trials": 20, "max_parallel": 4},
            reproducible=reproducible,
        ),
    )
    with store.transaction() as tx:
        trials.enqueue(tx, "s", [{"learning_rate": 0.01, "l2": 0.0, "batch_size": 32}])
    worker = FakeWorker(store, num_slots=4)
    worker.sync()
    while worker.held:
        orders = list(worker.held.values())
        # End the newest first, so that what was seen is not simply "all trials before".
        worker.sync(
            ended=[
                ended(order, "diverged" if order.trial == 5 else "complete")
                for order in orders[-2:]
            ]
        )
    store.histories = type(store.histories)()
    found = all_trials(store)
    assert len(found) == 21 if sampler == "grid" else 20
    with store.reading() as tx:
        study_id = studies.find(tx, "s").id
        for trial in found[1:]:
            again = sampling.rederive(tx, study_id, trial.number)
            assert (again.config, again.seed, again.grid_cell) == (
                trial.config,
                trial.sampler_seed,
                trial.grid_cell,
            )
        with pytest.raises(NotFound, match="chosen by a sampler"):
            sampling.rederive(tx, study_id, 0)
