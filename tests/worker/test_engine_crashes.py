"""A run that kills the real engine's process: found by halves, and the others' values unchanged."""

from __future__ import annotations

import os
from typing import Any

import pytest

from search.space import Config
from search.tasks.settings import MlpDefaults
from service.worker.mlp import MlpBackend
from service.worker.training import DeviceSpec, Trainer
from tests.worker.fakes import MAX_CHARGES, FakeApi
from tests.worker.running import at_work, ended, new_agent

pytestmark = pytest.mark.slow

GUILTY = 3
NUM_RUNS = 5


class Deadly(MlpBackend):
    """Packs end their process as soon as they step the guilty run."""

    def trainer(self, device: str, spec: DeviceSpec) -> Trainer:
        from search.engine.pack import Pack

        tick: Any = Pack.tick

        def deadly_tick(pack: Any, *args: Any) -> None:
            if any(run is not None and run.config.seed == GUILTY for run in pack._occupants):
                os._exit(5)
            tick(pack, *args)

        Pack.tick = deadly_tick  # type: ignore[assignment,method-assign]
        return super().trainer(device, spec)


def trained(backend: MlpBackend, runs: list[int]) -> FakeApi:
    defaults: Config = MlpDefaults().model_dump()
    api = FakeApi()
    for run in runs:
        api.add(run)
        api.runs[run].order = api.runs[run].order.model_copy(
            update={
                "task": {"name": "mlp", "dataset": "digits", "hidden": [16]},
                "config": {**defaults, "epochs": 2},
                "objective": {"metric": "validation_accuracy", "direction": "maximize"},
                "penalty": {"penalize": "weights"},
                "reproducible": True,
            }
        )
    with at_work(new_agent(api, backend=backend)):
        api.wait_until(lambda: all(run.state in ("DONE", "FAILED") for run in api.runs.values()))
    return api


def test_a_run_that_kills_the_engine_is_found_and_changes_no_value() -> None:
    innocent = [run for run in range(1, NUM_RUNS + 1) if run != GUILTY]
    api = trained(Deadly(), [*innocent, GUILTY])
    assert ended(api, GUILTY)[-MAX_CHARGES:] == ["crashed"] * MAX_CHARGES
    assert set(ended(api, GUILTY)[:-MAX_CHARGES]) <= {"released"}
    undisturbed = trained(MlpBackend(), innocent)
    for run in innocent:
        assert api.runs[run].charges == 0
        assert api.runs[run].epochs == undisturbed.runs[run].epochs
        assert api.runs[run].ends[-1].value == undisturbed.runs[run].ends[-1].value
