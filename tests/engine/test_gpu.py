"""The contracts of a pack on a GPU; skipped where there is none.

They need torch, numpy, scipy, pytest and hypothesis alone:

    PYTHONPATH=src python -m pytest --confcutdir=tests/engine tests/engine/test_gpu.py
"""

from __future__ import annotations

from copy import copy
from typing import Any

import pytest
import torch

from ridgeline.search.engine import Began, LaneOptions, Lanes, Saved, graphs
from ridgeline.search.engine.models.convolutional import lenet, resnet
from ridgeline.search.engine.models.module import ModuleModel
from ridgeline.search.engine.models.module_packing import unpackable
from ridgeline.search.engine.threads import computing
from tests.engine import test_augment, test_regularisers
from tests.engine.lane_runs import assert_same, drain, outcomes
from tests.engine.program_checks import (
    CASES,
    WEIGHED64,
    check_that_a_slot_without_a_run_is_frozen,
    check_that_it_agrees_with_the_plain_loop,
    check_that_neighbours_slots_and_refills_change_no_bit,
)
from tests.engine.sets import blobs, config, on_device, shape_for

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    # Once a process, of autograd's own thread.
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS"),
]

GPU = torch.device("cuda:0")
PLAIN = {
    **{f"step: {name}": CASES[name] for name in ("adam64", "sgd64")},
    "weighed": WEIGHED64,
    **{f"augmented: {name}": case for name, case in test_augment.PLAIN.items()},
    **{f"regularised: {name}": case for name, case in test_regularisers.PLAIN.items()},
}
BITS = {
    **{f"step: {name}": case for name, case in CASES.items()},
    "weighed": WEIGHED64,
    **{f"augmented: {name}": case for name, case in test_augment.BITS.items()},
    **{f"regularised: {name}": case for name, case in test_regularisers.BITS.items()},
}


@pytest.fixture(autouse=True)
def _soon_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nearly all steps of these tests are replayed."""
    monkeypatch.setattr(graphs, "_NUM_CALLED", 2)


def on_gpu(case: Any) -> Any:
    moved = copy(case)
    moved.data = on_device(case.data, GPU)
    return moved


@pytest.mark.parametrize("name", PLAIN)
def test_it_agrees_with_the_plain_loop(name: str) -> None:
    check_that_it_agrees_with_the_plain_loop(PLAIN[name], {}, GPU)


@pytest.mark.parametrize("name", BITS)
def test_neighbours_slots_and_refills_change_no_bit(name: str) -> None:
    check_that_neighbours_slots_and_refills_change_no_bit(on_gpu(BITS[name]), {})


def test_a_slot_without_a_run_is_frozen() -> None:
    check_that_a_slot_without_a_run_is_frozen(on_gpu(CASES["sgd-norm"]), {})


@pytest.mark.parametrize("width", [4, 16])
@pytest.mark.parametrize("net", [lenet, resnet])
def test_slots_of_convolutional_nets_are_alone(net: Any, width: int) -> None:
    model = convolutional(net)
    with computing(0):
        for num_rows in (16, 48, 64):
            assert unpackable(model, width, num_rows, GPU, torch.float32) is None


def convolutional(net: Any) -> ModuleModel:
    settings = {
        "image": [1, 28, 28], "outputs": 10, "channels": [6, 16], "blocks": 1, "hidden": [32],
        "norm": "batch", "activation": "relu", "pooling": "max", "spatial_dropout": True,
    }  # fmt: skip
    return ModuleModel.of(net, (1, 28, 28), 10, **settings)


@pytest.mark.usefixtures("no_clock")
def test_runs_go_on_from_checkpoints_beside_others() -> None:
    data = on_device(blobs(num_train=50, dtype=torch.float32), GPU)
    shape = shape_for(data)
    runs = [config(seed=seed, epochs=6, dropout=0.1 * seed) for seed in range(6)]

    def lanes() -> Lanes:
        return Lanes(GPU, LaneOptions(width=4, compile=False, save_seconds=0))

    whole = lanes()
    for key, run in enumerate(runs):
        whole.add(key, run, shape, data, keep_weights=True)
    events = drain(whole)
    assert all(str(e.program).startswith("eager/") for e in events if isinstance(e, Began))
    saved = {e.key: e.content for e in events if isinstance(e, Saved) and e.epoch == 2}
    expected = outcomes(events)
    assert len(saved) == len(expected) == len(runs)
    again = lanes()
    for key in reversed(range(len(runs))):
        again.add(key, runs[key], shape, data, keep_weights=True, checkpoint=saved[key])
    for key, outcome in outcomes(drain(again)).items():
        assert_same(outcome, expected[key])
