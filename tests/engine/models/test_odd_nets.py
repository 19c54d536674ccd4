"""Modules unlike most: which of them train, in packs or run by run, and which are refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from ridgeline.search.engine import LaneOptions, Lanes, Pack
from ridgeline.search.engine.models.module import ModuleModel
from ridgeline.search.engine.models.module_whole import from_bytes
from tests.engine.lane_runs import drain, outcomes
from tests.engine.models import nets, odd_nets
from tests.engine.models.test_module import data_for
from tests.engine.sets import CPU, config, step_spec


def assert_trains(model: ModuleModel) -> None:
    lanes = Lanes(CPU, LaneOptions(width=2, compile=False))
    data = data_for(model, torch.float32)
    for seed in range(2):
        lanes.add(seed, config(seed=seed, epochs=2, batch_size=16), model, data, keep_weights=True)
    for seed, outcome in outcomes(drain(lanes)).items():
        assert outcome.state == "complete"
        start = model.initial([seed])[0]
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


COUNTING = {
    "changes": ModuleModel.of(odd_nets.CountsInWholeNumbers, (5,), 3, replaces=False),
    "replaces": ModuleModel.of(odd_nets.CountsInWholeNumbers, (5,), 3, replaces=True),
    "batch norm": ModuleModel.of(nets.batch_norm_1d, (5,), 3, momentum=None),
}


@pytest.mark.parametrize("name", COUNTING)
def test_a_run_that_counts_begins_anew_in_a_slot_and_goes_on_in_another(name: str) -> None:
    model = COUNTING[name]
    data = data_for(model, torch.float32)
    run = config(seed=1, epochs=2, batch_size=15)

    def pack() -> Pack:
        return Pack(step_spec(run, model, data), data, width=2)

    whole, again, other = pack(), pack(), pack()
    whole.load(0, run)
    again.load(0, config(seed=2, epochs=2, batch_size=15))
    again.tick(again.ticks_to_epoch_end)
    again.free(0)
    again.load(0, run)  # after another run
    for one in (whole, again):
        one.tick(one.ticks_to_epoch_end)
    other.load(1, run, again.state(0))  # as from a checkpoint
    for one in (whole, other):
        one.tick(one.ticks_to_epoch_end)
    expected, found = whole.state(0).tensors, other.state(1).tensors
    assert all(found[key].equal(tensor) for key, tensor in expected.items())
    assert other.epoch_metrics([1]) == whole.epoch_metrics([0])


@pytest.mark.parametrize("name", ["changes", "replaces"])
def test_counts_are_exact_and_known_in_evaluation(name: str) -> None:
    model = COUNTING[name]
    data = data_for(model, torch.float32)
    run = config(seed=1, epochs=1, batch_size=16)
    pack = Pack(step_spec(run, model, data), data, width=1)
    pack.load(0, run)
    pack.tick(pack.ticks_to_epoch_end)
    tensors = pack.named(pack.weights(0))
    count = from_bytes(tensors["count"], torch.zeros(1, 1, dtype=torch.int64))
    num_steps = pack.steps_per_epoch
    assert count.item() == odd_nets.CountsInWholeNumbers.START + num_steps

    module = odd_nets.CountsInWholeNumbers(replaces=False).eval()
    own = {key: tensors[key] for key in model.parameters()}
    module.load_state_dict({**own, "count": count, "nothing": module.nothing}, strict=True)
    expected = nn.functional.cross_entropy(module(data.validation.x), data.validation.y.long())
    (metrics,) = pack.epoch_metrics([0])
    assert metrics[2] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("branches", [False, True])
def test_what_a_module_writes_to_a_parameter_is_kept_in_training_alone(branches: bool) -> None:
    model = ModuleModel.of(odd_nets.WritesToAParameter, (5,), 3, branches=branches)
    assert (model.survey.obstacle is None) is not branches
    data = data_for(model, torch.float32)
    run = config(seed=1, epochs=2, batch_size=16, optimizer="sgd", learning_rate=1e-6)
    for width in (1, 2):
        pack = Pack(step_spec(run, model, data), data, width=width)
        pack.load(0, run)
        pack.tick(pack.ticks_to_epoch_end)
        before = pack.named(pack.weights(0))
        assert before["first.weight"].abs().max().item() == pytest.approx(0.05, abs=1e-4)
        pack.epoch_metrics([0])
        assert pack.named(pack.weights(0))["first.weight"].equal(before["first.weight"])


def test_a_buffer_that_a_module_makes_once_passes() -> None:
    assert_trains(ModuleModel.of(odd_nets.MakesABuffer, (5,), 3, counts=False))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (ModuleModel.of(odd_nets.MakesABuffer, (5,), 3, counts=True), "makes made, a buffer, and"),
        (ModuleModel.of(odd_nets.GrowsABuffer, (5,), 3), r"seen, a buffer, the shape \[4\] in"),
        (
            ModuleModel.of(odd_nets.GivesNothingToLearn, (5,), 3, kind="detached"),
            "the outputs of GivesNothingToLearn have no gradient",
        ),
        (
            ModuleModel.of(odd_nets.GivesNothingToLearn, (5,), 3, kind="whole"),
            "must give real numbers, not torch.int64",
        ),
        (
            ModuleModel.of(odd_nets.GivesNothingToLearn, (5,), 3, kind="complex"),
            "must give real numbers, not torch.complex64",
        ),
        (ModuleModel.of(odd_nets.HasNoRunningStatistics, (5,), 3), "leave track_running_stats"),
    ],
)
def test_what_cannot_be_learned_or_kept_is_refused(model: ModuleModel, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        _ = model.survey


@pytest.mark.parametrize("num_slots", [1, 2])
@pytest.mark.parametrize("branches", [False, True])
def test_an_evaluation_in_parts_is_of_the_same_weights(branches: bool, num_slots: int) -> None:
    model = ModuleModel.of(odd_nets.WritesToAParameter, (5,), 3, branches=branches)
    start = model.initial([0])[0]
    weights = {name: torch.stack([start[name]] * num_slots) for name in model.parameters()}
    x = torch.randn(4, 5)
    first, second = (model.outputs(weights, {}, x) for _ in range(2))
    assert first.equal(second)


@pytest.mark.parametrize("kind", ["sequence", "weight"])
def test_dropout_of_what_has_no_rows_in_front_trains_run_by_run(kind: str) -> None:
    model = ModuleModel.of(odd_nets.DropsAlongOtherRows, (5,), 3, kind=kind)
    assert model.survey.obstacle is not None
    data = data_for(model, torch.float32)  # whose last batch is one row
    runs = [config(seed=1, epochs=2, batch_size=16, dropout=rate) for rate in (0.1, 0.6)]
    found = []
    for width in (1, 2):
        for run in runs:
            pack = Pack(step_spec(run, model, data), data, width=width)
            pack.load(width - 1, run)
            pack.tick(pack.ticks_to_epoch_end)
            found.append(pack.weights(width - 1).parameters_P)
    assert found[0].equal(found[2])
    assert found[1].equal(found[3])
    assert not found[0].equal(found[1])
