"""Packs that compute no free slots: no bit of a run shows how many slots are computed with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ridgeline.search.engine import LaneOptions, Lanes, Mlp, products
from ridgeline.search.engine.models import mlp_native
from ridgeline.search.engine.models.mlp_native import MlpEvaluation, MlpSteps
from ridgeline.search.engine.native import Kernels
from ridgeline.search.engine.pack import Pack
from tests.engine.lane_runs import alone, assert_same, drain, outcomes
from tests.engine.program_checks import ADAM, SGD, SMALL, SMALL64, Case, assert_same_bits
from tests.engine.sets import CPU, blobs, config, fill, shape_for

WIDTH = 6
EPOCHS = 3
_SGD = [{**run, "optimizer": "sgd"} for run in SGD]
EVEN = blobs(num_train=128, num_features=64, num_classes=10, dtype=torch.float32)
LARGE = blobs(num_train=701, num_features=301, dtype=torch.float32)
CASES = {
    "adam": Case(SMALL, ADAM + ADAM[:2]),
    "adam64": Case(SMALL64, ADAM + ADAM[:2]),
    "sgd": Case(SMALL, _SGD + _SGD[:2]),
    "sgd64": Case(SMALL64, _SGD + _SGD[:2]),
    "even": Case(EVEN, ADAM + ADAM[:2], hidden=(64,), batch_size=32),
    "softmax": Case(EVEN, [{"learning_rate": 0.1, "l1": 0.01}] * WIDTH, hidden=(), batch_size=16),
    "batch-of-one": Case(SMALL, [{"learning_rate": 0.003}] * WIDTH, batch_size=1),
    "large": Case(LARGE, ADAM + ADAM[:2], hidden=(133, 70), batch_size=231),
}
Result = dict[str, torch.Tensor]


@pytest.fixture(params=[False, True], ids=["mkl", "onednn"])
def onednn_wanted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of every size are for one library, where there is a choice."""
    monkeypatch.setattr(products, "_LEAST_FLOPS", 0 if request.param else 1e30)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def pack_of(case: Case, kernels: Kernels) -> Pack:
    return Pack(case.spec, case.data, width=WIDTH, kernels=kernels)


def rounded(num_runs: int, with_onednn: bool | None) -> int:
    """Of slots to compute: of each number that oneDNN multiplies it makes a kernel first."""
    return 2 ** (num_runs - 1).bit_length() if with_onednn else num_runs


def results(pack: Pack, runs: dict[int, int], epochs: int = EPOCHS) -> dict[int, Result]:
    """What runs come to, by number; `runs` gives them by slot.  All are at the same step."""
    while pack.epochs_done(next(iter(runs))) < epochs:
        pack.tick(pack.ticks_to_epoch_end)
    metrics = pack.epoch_metrics(list(runs))
    return {
        run: {
            **pack.state(slot).tensors,
            "metrics": torch.tensor(values, dtype=torch.float64),
        }
        for (slot, run), values in zip(runs.items(), metrics, strict=True)
    }


@pytest.mark.usefixtures("onednn_wanted")
def test_the_number_of_slots_that_are_computed_changes_no_bit(case: Case, kernels: Kernels) -> None:
    expected: dict[int, Result] = {}
    for run in range(WIDTH):
        pack = pack_of(case, kernels)
        pack._can_narrow, pack._num_computed = False, WIDTH
        pack.load(run, case.configs[run])
        expected |= results(pack, {run: run})
        assert pack.num_computed == WIDTH, "the whole pack"
    for num_runs in range(1, WIDTH + 1):
        pack = pack_of(case, kernels)
        for slot in range(num_runs):
            pack.load(slot, case.configs[slot])
        pack.tick(1)  # the free slots past the runs are not computed from the first tick on
        can_narrow = pack.narrows()
        num_computed = min(WIDTH, rounded(num_runs, pack.with_onednn)) if can_narrow else WIDTH
        assert pack.num_computed == num_computed
        assert pack.narrow() == {}
        assert pack.num_computed == num_computed
        for run, result in results(pack, {slot: slot for slot in range(num_runs)}).items():
            assert_same_bits(result, expected[run])


@pytest.mark.usefixtures("onednn_wanted")
def test_runs_move_in_the_middle_of_an_epoch_and_nothing_shows(
    case: Case, kernels: Kernels
) -> None:
    pack = pack_of(case, kernels)
    for slot in range(WIDTH):
        pack.load(slot, case.configs[slot])
    expected = results(pack, {slot: slot for slot in range(WIDTH)})
    pack = pack_of(case, kernels)
    for slot in range(WIDTH):
        pack.load(slot, case.configs[slot])
    pack.tick(2)
    for slot in (0, 2, 3):
        fill(pack, slot, float("nan"))
        pack.free(slot)
    if not (moved := pack.narrow()):
        pytest.skip("this library's products depend on how many there are")
    assert moved == {4: 0, 5: 2}
    at = {0: 4, 1: 1, 2: 5}
    assert pack.num_computed == rounded(3, pack.with_onednn)
    pack.tick(1)
    # A run that comes later has a slot again, and the last to move is the newcomer.
    pack.load(3, replace(case.configs[3], seed=99))
    assert pack.num_computed == 4
    pack.tick(1)
    pack.free(1)
    assert pack.narrow() == {3: 1}
    del at[1]
    for run, result in results(pack, at).items():
        assert_same_bits(result, expected[run])


def test_pairs_of_products_that_depend_on_their_number_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shape = Mlp(13, (33, 7), 3)
    asked = shape, 32, 8, torch.float32, None
    in_steps = mlp_native.counts_show_in_steps.__wrapped__
    in_evaluation = mlp_native.counts_show_in_evaluation.__wrapped__
    bmm = torch.bmm
    assert not in_steps(*asked)
    assert not in_evaluation(*asked)

    def depending(left: torch.Tensor, right: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        bmm(left, right, out=out)
        return out.mul_(1.5) if len(left) == 4 and out.shape[1:] == (33, rows) else out

    monkeypatch.setattr(torch, "bmm", depending)
    rows = 32
    assert in_steps(*asked)
    assert in_evaluation(*asked)
    rows = 31
    assert not in_steps(*asked)


def test_a_pack_whose_bits_would_show_it_computes_all_of_its_slots(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlp_native, "counts_show_in_steps", lambda *_: True)
    monkeypatch.setattr(mlp_native, "counts_show_in_evaluation", lambda *_: False)
    computed = record_slots(monkeypatch)
    pack = pack_of(CASES["adam"], kernels)
    pack.load(2, CASES["adam"].configs[2])
    pack.tick(1)
    assert pack.narrow() == {}
    results(pack, {2: 2}, epochs=1)
    num_steps = pack.steps_per_epoch
    assert computed == {"steps": [WIDTH] * num_steps, "evaluations": [WIDTH]}


def test_other_packs_are_left_as_they_are() -> None:
    pack = Pack(CASES["adam"].spec, CASES["adam"].data, width=WIDTH)
    pack.load(2, CASES["adam"].configs[2])
    pack.tick(1)
    assert pack.narrow() == {}
    assert pack.epochs_done(2) == 0


def record_slots(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """How many slots each native step and evaluation is asked for, from now on."""
    computed: dict[str, list[int]] = {"steps": [], "evaluations": []}
    train, evaluate = MlpSteps.run, MlpEvaluation.run

    def recorded(self: MlpSteps, num_slots: int, count: int) -> None:
        computed["steps"] += [num_slots] * count
        train(self, num_slots, count)

    def evaluated(self: MlpEvaluation, num_slots: int) -> None:
        computed["evaluations"].append(num_slots)
        evaluate(self, num_slots)

    monkeypatch.setattr(MlpSteps, "run", recorded)
    monkeypatch.setattr(MlpEvaluation, "run", evaluated)
    return computed


@pytest.mark.usefixtures("no_clock")
def test_the_last_runs_of_a_lane_are_computed_alone(
    kernels: Kernels, kernels_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = blobs(num_train=50, dtype=torch.float32)
    shape = shape_for(data, hidden=(9,))
    runs = {n: config(seed=n, epochs=1 + 2 * n, patience=2 if n == 3 else None) for n in range(6)}
    computed = record_slots(monkeypatch)
    lanes = Lanes(CPU, LaneOptions(width=4, cache=kernels_folder))
    for number, run in runs.items():
        lanes.add(number, run, shape, data, keep_weights=True)
    ended = outcomes(drain(lanes))
    monkeypatch.undo()
    num_epochs = sum(outcome.epochs_trained for outcome in ended.values())
    assert sum(computed["steps"]) == num_epochs * 4, "no free slot is computed in 4 steps an epoch"
    on_test_and_train = 2 * len(runs)  # of the weights that are kept
    assert sum(computed["evaluations"]) == num_epochs + on_test_and_train
    for number, run in runs.items():
        assert_same(ended[number], alone(run, shape, data, 4, kernels))


def test_packs_are_opened_and_narrowed_while_others_multiply_by_the_other_library(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a pack's bits depend on is tried in its turn, not beside those of others."""
    case = CASES["even"]
    monkeypatch.setattr(products, "_has_wider_onednn", lambda: True)
    monkeypatch.setattr(products, "_LEAST_FLOPS", 1e30)
    pack = pack_of(case, kernels)
    for slot in (1, 3):
        pack.load(slot, case.configs[slot])
    pack.tick(1)
    monkeypatch.setattr(products, "_LEAST_FLOPS", 0)
    other = pack_of(case, kernels)
    assert (pack.with_onednn, other.with_onednn) == (False, True)
    with pack._computing():
        third = pack_of(case, kernels)
        third.load(1, case.configs[1])
        assert third.narrow() == {}
    with other._computing():
        assert pack.narrow() in ({}, {3: 0})
