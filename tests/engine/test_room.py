"""Runs that come one by one, as where a study waits for results, share packs that have room."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ridgeline.search.engine import Began, DeviceData, Event, LaneOptions, Lanes, Over, admission
from ridgeline.search.engine.admission import ROOM, Widths
from ridgeline.search.engine.models import mlp_native
from ridgeline.search.engine.native import Kernels
from tests.engine.lane_runs import alone, assert_same, drain, outcomes
from tests.engine.sets import CPU, blobs, config, shape_for

pytestmark = pytest.mark.usefixtures("no_clock")


SOME: list[dict[str, Any]] = [
    {"gradient_noise": 0.01},
    {"input_dropout": 0.25},
    {"max_norm": 0.5, "patience": 2},
    {"label_smoothing": 0.1, "l2": 0.01},
]
"""What runs of one pack may have, the kinds of regularisers not in the engine's order."""


@pytest.fixture
def data() -> DeviceData:
    return blobs(num_train=50, dtype=torch.float32)


def packs_of(lanes: Lanes) -> dict[int, list[int]]:
    """By batch size, how many runs are in each pack."""
    found: dict[int, list[int]] = {}
    for its in lanes._packs():
        found.setdefault(its.pack.spec.batch_size, []).append(len(its.runs))
    return found


def begin(lanes: Lanes, data: DeviceData, runs: Sequence[tuple[int, int]]) -> None:
    """Have runs wait, by seed and batch size, and put them into slots."""
    for seed, batch_size in runs:
        run = config(seed=seed, batch_size=batch_size, epochs=4)
        lanes.add(seed, run, shape_for(data), data, keep_weights=True)
    assert all(isinstance(event, Began) for event in lanes.advance())


def test_runs_that_come_one_by_one_share_a_pack(
    data: DeviceData, kernels_folder: Path, kernels: Kernels
) -> None:
    lanes = Lanes(CPU, LaneOptions(cache=kernels_folder))
    ended = {}
    for seed in range(ROOM["cpu"]):
        begin(lanes, data, [(seed, 16)])
        assert packs_of(lanes) == {16: [min(seed + 1, 4)]}, "each ends after four epochs"
        assert lanes.num_idle == 0, "free slots are not computed"
        ended |= outcomes(lanes.advance())
    ended |= outcomes(drain(lanes))
    assert len(ended) == ROOM["cpu"]
    for seed, outcome in ended.items():
        run = config(seed=seed, batch_size=16, epochs=4)
        assert_same(outcome, alone(run, shape_for(data), data, ROOM["cpu"], kernels))


def test_a_lane_gets_as_many_packs_as_it_has_threads(
    data: DeviceData, kernels_folder: Path
) -> None:
    lanes = Lanes(CPU, LaneOptions(cache=kernels_folder, threads=2))
    begin(lanes, data, [(seed, (10, 16)[seed % 2]) for seed in range(12)])
    assert packs_of(lanes) == {10: [6], 16: [6]}
    drain(lanes)
    begin(lanes, data, [(seed, 16) for seed in range(5)])
    lanes.advance()
    begin(lanes, data, [(5, 16)])
    assert packs_of(lanes) == {16: [3, 3]}
    drain(lanes)
    # Wide enough to be shared out all the same, since lanes do not end together.
    begin(lanes, data, [(seed, 10) for seed in range(20)] + [(seed, 16) for seed in range(20, 22)])
    lanes.advance()
    assert sorted(map(sorted, packs_of(lanes).values())) == [[2], [10, 10]]
    assert sum(isinstance(event, Over) for event in drain(lanes)) == 22


@pytest.mark.parametrize("threads", [1, 2])
def test_packs_that_compute_free_slots_are_as_wide_as_their_runs(
    data: DeviceData, kernels_folder: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr(mlp_native, "counts_show_in_steps", lambda *_: True)
    lanes = Lanes(CPU, LaneOptions(cache=kernels_folder, threads=threads))
    begin(lanes, data, [(seed, 16) for seed in range(4)])
    lanes.advance()
    assert [its.pack.width for its in lanes._packs()] == [4 // threads] * threads
    drain(lanes)


def test_a_model_too_large_for_packs_is_not_tried_in_one(
    data: DeviceData, kernels_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight slots of it might take more memory than there is."""
    monkeypatch.setattr(admission, "_CACHE_BYTES", 1)
    monkeypatch.setattr(Widths, "try_narrowing", None)
    lanes = Lanes(CPU, LaneOptions(cache=kernels_folder))
    begin(lanes, data, [(seed, 16) for seed in range(3)])
    assert [its.pack.width for its in lanes._packs()] == [1]
    assert len(outcomes(drain(lanes))) == 3


@pytest.mark.parametrize("threads", [2, 4])
def test_runs_are_shared_out_among_threads_that_others_have_left(
    data: DeviceData, kernels_folder: Path, kernels: Kernels, threads: int
) -> None:
    lanes = Lanes(CPU, LaneOptions(cache=kernels_folder, threads=threads))
    configs = {
        seed: config(seed=seed, batch_size=16, epochs=5 + seed % 3, **SOME[seed % len(SOME)])
        for seed in range(7)
    }
    for other in range(threads - 1):
        short = config(seed=other, batch_size=20 + other, epochs=1)
        lanes.add(("short", other), short, shape_for(data), data)
    for seed, run in configs.items():
        lanes.add(seed, run, shape_for(data), data, keep_weights=True)
    lanes.advance()
    assert packs_of(lanes)[16] == [7]
    widest, events = list[int](), list[Event]()
    while not lanes.is_idle:
        events += lanes.advance()
        widest.append(max(packs_of(lanes).get(16, [0])))
    assert -(-7 // threads) in widest
    ended = outcomes(events)
    for seed, run in configs.items():
        assert_same(ended[seed], alone(run, shape_for(data), data, ROOM["cpu"], kernels))
