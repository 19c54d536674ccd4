"""Packs of modules train beside each other, though torch keeps much in the process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from ridgeline.search.engine import LaneOptions, Lanes, Outcome, RunConfig
from ridgeline.search.engine.models.module import ModuleModel
from tests.engine.lane_runs import assert_same, drain, outcomes
from tests.engine.models import nets
from tests.engine.models.test_module import data_for
from tests.engine.sets import CPU, config

pytestmark = pytest.mark.slow

FACTORIES: dict[str, tuple[Callable[..., nn.Module], tuple[int, ...], int | None]] = {
    "traced": (nets.layer_norm, (5,), None),
    "attention": (nets.Attention, (6,), 11),
    "convolutions": (nets.residual_net, (2, 6, 6), None),
    "draws of its own": (nets.Noisy, (5,), None),
}


@pytest.fixture(autouse=True)
def switches() -> Iterator[None]:
    """Threads take turns after few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def trained(model: ModuleModel, runs: list[RunConfig], num_threads: int) -> dict[int, Outcome]:
    data = data_for(model, torch.float32)
    lanes = Lanes(CPU, LaneOptions(threads=num_threads, width=2, compile=False))
    for key, run in enumerate(runs):
        lanes.add(key, run, model, data, keep_weights=True)
    return outcomes(drain(lanes))


@pytest.mark.parametrize("name", FACTORIES)
def test_packs_of_modules_disturb_each_other_in_nothing(name: str) -> None:
    factory, shape, num_ids = FACTORIES[name]
    # Each batch size is a pack of its own, which is traced when it begins.
    runs = [config(seed=seed, batch_size=8 + 3 * seed, epochs=2, dropout=0.2) for seed in range(8)]
    beside = trained(ModuleModel.of(factory, shape, 3, num_ids), runs, num_threads=3)
    assert beside.keys() == {*range(8)}
    for key, run in enumerate(runs):
        (alone,) = trained(ModuleModel.of(factory, shape, 3, num_ids), [run], 1).values()
        assert_same(beside[key], alone)
