"""Modules unlike most: which of them train, in packs or run by run, and which are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from ridgeline.search.engine import LaneOptions, Lanes
from ridgeline.search.engine.models.module import ModuleModel
from tests.engine.lane_runs import drain, outcomes
from tests.engine.models import odd_nets
from tests.engine.models.test_module import data_for
from tests.engine.sets import CPU, config


def assert_trains(model: ModuleModel) -> None:
    lanes = Lanes(CPU, LaneOptions(width=2, compile=False))
    data = data_for(model, torch.float32)
    for seed in range(2):
        lanes.add(seed, config(seed=seed, epochs=2, batch_size=16), model, data, keep_weights=True)
    for seed, outcome in outcomes(drain(lanes)).items():
        assert outcome.state == "complete"
        start = model.initial(seed)
        assert any(not outcome.weights[name].equal(start[name]) for name in model.parameters())


@pytest.mark.parametrize(
    "factory",
    [
        odd_nets.AsksForFloat32,
        odd_nets.BeginsAtZero,
        odd_nets.MakesAMask,
        odd_nets.RoundsToHalf,
        odd_nets.ComputesInDouble,
    ],
)
def test_what_wants_float32_trains_in_it(factory: Callable[..., nn.Module]) -> None:
    model = ModuleModel.of(factory, (5,), 3)
    assert model.survey.obstacle is None
    assert_trains(model)


@pytest.mark.parametrize("factory", [odd_nets.WatchesGradients, odd_nets.FollowsItsSlope])
def test_what_cannot_be_traced_trains_run_by_run(factory: Callable[..., nn.Module]) -> None:
    model = ModuleModel.of(factory, (5,), 3)
    obstacle = model.survey.obstacle
    assert obstacle is not None
    assert obstacle.startswith(f"{factory.__name__}: it cannot be traced (RuntimeError: ")
    assert "\n" not in obstacle
    assert_trains(model)


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        (odd_nets.HooksAGradient, "first.weight has a hook on its gradient"),
        (odd_nets.HooksAnAccumulation, "second.bias has a hook on its gradient"),
    ],
)
def test_hooks_on_gradients_are_refused(factory: Callable[..., nn.Module], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        _ = ModuleModel.of(factory, (5,), 3).survey


def test_a_parameter_of_no_elements_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing has no elements"):
        _ = ModuleModel.of(odd_nets.IsPartlyEmpty, (5,), 3).survey


def test_a_count_of_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="changes num_steps, a plain attribute"):
        _ = ModuleModel.of(odd_nets.CountsItsSteps, (5,), 3).survey


@pytest.mark.parametrize("kind", odd_nets.STATES)
def test_state_in_a_plain_attribute_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="changes kept, a plain attribute"):
        _ = ModuleModel.of(odd_nets.KeepsState, (5,), 3, kind=kind).survey


@pytest.mark.parametrize("factory", [odd_nets.RemembersWhatItMade, odd_nets.NormsItsWeights])
def test_what_is_no_state_of_training_passes(factory: Callable[..., nn.Module]) -> None:
    model = ModuleModel.of(factory, (5,), 3)
    assert model.survey.obstacle is None
    assert_trains(model)


def test_a_plain_tensor_is_told_to_be_a_buffer() -> None:
    with pytest.raises(ValueError, match=r'mask is a plain tensor.*register_buffer\("mask", …\)'):
        _ = ModuleModel.of(odd_nets.HoldsAMask, (5,), 3).survey


@pytest.mark.parametrize("kind", ["doubles", "clamps", "clears a part", "evaluates"])
def test_a_module_that_writes_to_its_rows_leaves_the_data_as_they_are(kind: str) -> None:
    model = ModuleModel.of(odd_nets.WritesToItsRows, (5,), 3, kind=kind)
    assert model.survey.obstacle is not None
    data = data_for(model, torch.float32)
    before = {part: part.x.clone() for part in (data.train, data.validation, data.test)}
    runs = {seed: config(seed=seed, epochs=2, batch_size=16) for seed in range(2)}
    alone = {}
    for seed, run in runs.items():
        lanes = Lanes(CPU, LaneOptions(width=1, compile=False))
        lanes.add(seed, run, model, data)
        alone |= outcomes(drain(lanes))
    lanes = Lanes(CPU, LaneOptions(width=2, compile=False))
    for seed, run in runs.items():
        lanes.add(seed, run, model, data)
    assert outcomes(drain(lanes)) == alone
    for part, x in before.items():
        assert part.x.equal(x)


def test_a_module_that_writes_to_its_rows_is_told_of() -> None:
    model = ModuleModel.of(odd_nets.WritesToItsRows, (5,), 3, kind="doubles")
    assert model.survey.obstacle == "WritesToItsRows: it writes to the rows that it is given"
