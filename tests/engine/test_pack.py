"""Packed equals solo: where, when or beside whom a run trained changes no bit of its result."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from ridgeline.search.engine import DeviceData, Mlp, Pack, RunConfig
from ridgeline.search.engine.optim import clip_factors
from ridgeline.search.engine.penalty import add_gradients
from tests.engine.sets import blobs, config, fill, shape_for, step_spec

WIDTH = 4
EPOCHS = 3

Result = dict[str, Tensor]

# Shapes in powers of two, odd ones with a last partial batch, and some with much to multiply,
# for which another library may be the faster one.
SHAPES = {
    "even": ({"num_train": 128, "num_features": 16, "num_classes": 2}, (32, 16), 32),
    "odd": ({"num_train": 101, "num_features": 13, "num_classes": 3}, (33, 7), 23),
    "large": ({"num_train": 301, "num_features": 211, "num_classes": 3}, (133, 70), 93),
}
FAMILIES: dict[str, list[dict[str, Any]]] = {
    "adam": [
        {"learning_rate": 0.01},
        {"learning_rate": 0.003, "l1": 0.01, "penalize": "all"},
        {"learning_rate": 0.03, "l2": 0.02, "weight_decay": 0.1},
        {"learning_rate": 0.001, "l1": 0.02, "l1_update": "proximal"},
    ],
    "sgd": [
        {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True},
        {"learning_rate": 0.03, "momentum": 0.9, "l1": 0.01},
        {"learning_rate": 0.3, "l2": 0.02, "weight_decay": 0.1, "penalize": "all"},
        {"learning_rate": 0.05, "momentum": 0.5, "l1": 0.02, "l1_update": "proximal"},
    ],
}


class Lane:
    """What all runs of a test have in common."""

    def __init__(self, kind: str, optimizer: str, batch_norm: bool, dtype: torch.dtype) -> None:
        sizes, hidden, self.batch_size = SHAPES[kind]
        self.optimizer = optimizer
        self.data: DeviceData = blobs(**sizes, dtype=dtype)
        self.shape: Mlp = shape_for(self.data, hidden=hidden, batch_norm=batch_norm)
        self.spec = step_spec(self.configs()[0], self.shape, self.data)

    def pack(self, width: int = WIDTH) -> Pack:
        return Pack(self.spec, self.data, width=width)

    def configs(self) -> list[RunConfig]:
        return [
            config(
                seed=seed,
                optimizer=self.optimizer,
                batch_size=self.batch_size,
                epochs=EPOCHS,
                **changes,
            )
            for seed, changes in enumerate(FAMILIES[self.optimizer])
        ]


def result(pack: Pack, slot: int) -> Result:
    """Everything that comes out of a slot at the end of an epoch."""
    metrics = torch.tensor(pack.epoch_metrics([slot])[0], dtype=torch.float64)
    return {**pack.state(slot).tensors, "metrics": metrics}


def train(pack: Pack, slot: int) -> Result:
    """Tick until the slot has done its epochs."""
    while pack.epochs_done(slot) < EPOCHS:
        pack.tick()
    return result(pack, slot)


def assert_same_bits(one: Result, other: Result) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.fixture(params=list(SHAPES))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["adam", "sgd"])
def optimizer(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[False, True], ids=["plain", "norm"])
def batch_norm(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def lane(kind: str, optimizer: str, batch_norm: bool) -> Lane:
    return Lane(kind, optimizer, batch_norm, torch.float32)


@pytest.fixture
def alone(lane: Lane) -> list[Result]:
    """Each run of the lane, in a pack of full width, with nobody beside it."""
    results = []
    for slot, run_config in enumerate(lane.configs()):
        pack = lane.pack()
        pack.load(slot, run_config)
        results.append(train(pack, slot))
    return results


def test_slots_can_be_permuted(lane: Lane, alone: list[Result]) -> None:
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]):
        pack = lane.pack()
        for slot, run in enumerate(order):
            pack.load(slot, lane.configs()[run])
        while pack.epochs_done(0) < EPOCHS:
            pack.tick()
        for slot, run in enumerate(order):
            assert_same_bits(result(pack, slot), alone[run])


def test_neighbours_of_nan_do_not_show(lane: Lane, alone: list[Result]) -> None:
    for occupied in (False, True):
        pack = lane.pack()
        pack.load(2, lane.configs()[2])
        for slot in (0, 1, 3):
            if occupied:
                pack.load(slot, lane.configs()[slot])
            fill(pack, slot, float("nan"))
        assert_same_bits(train(pack, 2), alone[2])


def test_a_slot_without_a_run_is_frozen(lane: Lane) -> None:
    pack = lane.pack()
    for slot, run_config in enumerate(lane.configs()):
        pack.load(slot, run_config)
    for _ in range(pack.steps_per_epoch):
        pack.tick()
    before = {name: stacks.row(1) for name, stacks in pack._memory.state.items()}
    pack.free(1)
    for _ in range(3):
        pack.tick()
    assert_same_bits({name: stacks.row(1) for name, stacks in pack._memory.state.items()}, before)


def test_a_refilled_slot_starts_as_new(lane: Lane, alone: list[Result]) -> None:
    configs = lane.configs()
    pack = lane.pack()
    for slot in range(WIDTH):
        pack.load(slot, configs[(slot + 1) % WIDTH])
    for _ in range(pack.steps_per_epoch + 1):  # In the middle of the others' second epoch.
        pack.tick()
    fill(pack, 1, float("inf"))
    pack.free(1)
    pack.load(1, configs[0])
    pack.tick()
    pack.free(3)
    pack.load(3, configs[3])
    results = {}
    while len(results) < WIDTH:
        pack.tick()
        for slot in range(WIDTH):
            if slot not in results and pack.epochs_done(slot) == EPOCHS:
                results[slot] = result(pack, slot)
    for slot, run in ((0, 1), (1, 0), (2, 3), (3, 3)):
        assert_same_bits(results[slot], alone[run])


def test_a_run_can_move_to_another_slot_and_pack(lane: Lane, alone: list[Result]) -> None:
    configs = lane.configs()
    first, second = lane.pack(), lane.pack()
    first.load(0, configs[1])
    for _ in range(first.steps_per_epoch):
        first.tick()
    second.load(0, configs[2])
    second.tick()
    second.load(3, configs[1], first.state(0))
    assert_same_bits(train(second, 3), alone[1])


def test_a_pack_equals_packs_of_one(kind: str, optimizer: str, batch_norm: bool) -> None:
    lane = Lane(kind, optimizer, batch_norm, torch.float64)
    pack = lane.pack()
    for slot, run_config in enumerate(lane.configs()):
        pack.load(slot, run_config)
    train(pack, 0)
    hidden_biases = {f"layers.{i}.bias" for i in range(2)} if batch_norm else set()
    for slot, run_config in enumerate(lane.configs()):
        solo = lane.pack(width=1)
        solo.load(0, run_config)
        train(solo, 0)
        expected = solo.named(solo.weights(0))
        for name, weight in pack.named(pack.weights(slot)).items():
            # A batch norm takes these biases out again, so they are rounding under Adam.
            unseen = name in hidden_biases or (batch_norm and name.endswith("running_mean"))
            exact = {"rtol": 0.0, "atol": 1e-8} if unseen else {"rtol": 1e-10, "atol": 1e-12}
            assert_close(weight, expected[name], **exact)
        ours, its = pack.epoch_metrics([slot])[0], solo.epoch_metrics([0])[0]
        assert ours[:2] == pytest.approx(its[:2], rel=1e-10)


@pytest.mark.parametrize(("width", "batch_size"), [(1, 7), (3, 7), (1, 200), (2, 16)])
def test_every_sample_comes_once_an_epoch(width: int, batch_size: int) -> None:
    data = blobs(num_train=50)
    spec = step_spec(config(batch_size=batch_size), shape_for(data), data)
    pack = Pack(spec, data, width=width)
    for slot in range(width):
        pack.load(slot, config(batch_size=batch_size, seed=slot))
    memory = pack._memory
    for _ in range(3):
        pack.tick(pack.ticks_to_epoch_end)
        orders = []
        for slot in range(width):
            seen: list[int] = []
            for step in range(spec.num_steps):
                valid = ~memory.invalid_SB[step]
                assert int(valid.sum()) == int(memory.num_valid_S[step])
                seen += memory.samples_KSB[slot, step][valid].tolist()
            assert sorted(seen) == list(range(50))
            orders.append(seen)
        assert len({tuple(order) for order in orders}) == width


def test_a_batch_of_one_row_leaves_the_running_statistics() -> None:
    data = blobs(num_train=17)
    shape = shape_for(data, batch_norm=True)
    pack = Pack(step_spec(config(optimizer="sgd"), shape, data), data, width=1)
    pack.load(0, config(optimizer="sgd"))
    pack.tick()
    before = pack.weights(0)
    pack.tick()
    after = pack.weights(0)
    assert torch.equal(after.statistics_Q, before.statistics_Q)
    assert after.parameters_P.isfinite().all()
    assert not torch.equal(after.parameters_P, before.parameters_P)


def test_a_run_that_does_not_fit_the_pack_is_refused() -> None:
    data = blobs()
    spec = step_spec(config(), shape_for(data), data)
    pack = Pack(spec, data, width=1)
    for name, other in (
        ("batch_size", config(batch_size=8)),
        ("family", config(optimizer="sgd")),
        ("drops", config(dropout=0.5)),
        ("clips", config(clip_norm=1.0)),
        ("weighs", config(class_weights=(1.0, 2.0, 3.0))),
    ):
        with pytest.raises(ValueError, match=name):
            pack.load(0, other)
    with pytest.raises(ValueError, match="samples of shape"):
        Pack(replace(spec, model=Mlp(5, (), 3)), data, width=1)
    with pytest.raises(ValueError, match="outputs"):
        Pack(replace(spec, model=Mlp(6, (), 4)), data, width=1)


def test_a_slot_without_l2_sees_nothing_of_its_neighbours() -> None:
    # 0·w is no zero where w has overflowed, as the bias of a dead unit may without harm.
    weights = torch.tensor([[-torch.inf, 1.0], [3.0, 2.0]])
    gradients = torch.ones(2, 2)
    add_gradients(weights, gradients, torch.empty(2, 2), l1=None, l2=torch.tensor([[0.0], [0.5]]))
    assert gradients.tolist() == [[1.0, 1.0], [2.5, 2.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_slots", [2, 5, 6, 7, 8, 20, 24, 40, 48, 256])
def test_equal_slots_are_clipped_alike(num_slots: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(num_slots)
    max_norm = torch.full((num_slots,), 0.5, dtype=dtype)
    for num_regions in range(1, 14):
        gradients = [
            torch.randn(1, 50 * (i + 1), generator=generator, dtype=dtype)
            .expand(num_slots, -1)
            .contiguous()
            for i in range(num_regions)
        ]
        factors = clip_factors(gradients, max_norm)
        assert (factors == factors[0]).all(), num_regions
