"""Weights of classes: those of torch, of each slot by itself, and of training alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from ridgeline.search.engine import CheckpointError, LaneOptions, Lanes, TrainingRun
from ridgeline.search.engine.checkpoint import load_checkpoint, save_checkpoint
from ridgeline.search.engine.losses import LOSSES, WeighedCrossEntropy
from ridgeline.search.engine.models.base import Model, Rows
from ridgeline.search.engine.models.mlp import Mlp
from ridgeline.search.engine.saved import SavedRun
from ridgeline.search.engine.spec import StepSpec
from tests.engine.lane_runs import drain, outcomes
from tests.engine.program_checks import (
    SMALL64,
    WEIGHED64,
    Case,
    CaseOfKinds,
    check_that_a_slot_without_a_run_is_frozen,
    check_that_it_agrees_with_the_plain_loop,
    check_that_neighbours_slots_and_refills_change_no_bit,
)
from tests.engine.sets import CPU, blobs, config, samples, shape_for, step_spec

K, B, C = 3, 9, 4
EXACT = {"rtol": 1e-10, "atol": 1e-12}
WEIGHTS = torch.tensor(
    [[1.0, 1.0, 1.0, 1.0], [0.2, 1.0, 3.0, 1e-3], [9.0, 0.5, 2.0, 1e3]], dtype=torch.float64
)


def batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    outputs = 3 * torch.randn(K, C, B, generator=generator, dtype=dtype)
    return outputs, torch.randint(C, (K, B), generator=generator)


def rows_of(num_valid: list[int], dtype: torch.dtype = torch.float64) -> Rows:
    counts = torch.tensor(num_valid)
    return Rows(torch.arange(B)[None, :] >= counts[:, None], counts.to(dtype).view(-1, 1, 1))


@pytest.mark.parametrize("smoothing", [None, [0.0, 0.1, 0.5]])
def test_gradients_are_those_of_torch(smoothing: list[float] | None) -> None:
    outputs, y = batch()
    num_valid = [9, 5, 1]
    given = None if smoothing is None else torch.tensor(smoothing, dtype=torch.float64)
    loss = WeighedCrossEntropy(WEIGHTS)
    judged = loss.judge(outputs.clone(), y, rows_of(num_valid), given)
    plain = LOSSES["cross_entropy"].judge(outputs.clone(), y, rows_of(num_valid), given)
    assert torch.equal(judged.losses_KB, plain.losses_KB)
    assert torch.equal(judged.scores_KB, plain.scores_KB)
    assert_close(judged.gradient_KCB[0], plain.gradient_KCB[0], **EXACT)  # whose weights are 1
    for slot, n in enumerate(num_valid):
        leaf = outputs[slot, :, :n].T.clone().requires_grad_()
        share = smoothing[slot] if smoothing else 0.0
        F.cross_entropy(leaf, y[slot, :n], WEIGHTS[slot], label_smoothing=share).backward()
        assert_close(judged.gradient_KCB[slot, :, :n].T, leaf.grad, **EXACT)
        assert (judged.gradient_KCB[slot, :, n:] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_slot_sees_another(dtype: torch.dtype) -> None:
    outputs, y = batch(dtype)
    weights, num_valid, order = WEIGHTS.to(dtype), [9, 5, 7], [2, 0, 1]
    judged = WeighedCrossEntropy(weights).judge(outputs.clone(), y, rows_of(num_valid, dtype))
    permuted = WeighedCrossEntropy(weights[order]).judge(
        outputs[order], y[order], rows_of([num_valid[k] for k in order], dtype)
    )
    assert torch.equal(permuted.gradient_KCB, judged.gradient_KCB[order])
    smoothing = torch.tensor([0.0, 0.3, 0.1], dtype=dtype)
    outputs[1:] = torch.nan
    beside_nan = WeighedCrossEntropy(weights).judge(
        outputs, y, rows_of(num_valid, dtype), smoothing
    )
    assert torch.equal(beside_nan.gradient_KCB[0], judged.gradient_KCB[0]), "smoothed by 0"


def test_it_agrees_with_the_plain_loop_beside_dropout(program: dict[str, Any]) -> None:
    check_that_it_agrees_with_the_plain_loop(WEIGHED64, program)


def test_dropout_and_schedules_leave_slots_alone(program: dict[str, Any]) -> None:
    check_that_neighbours_slots_and_refills_change_no_bit(WEIGHED64, program)


RUNS: list[dict[str, Any]] = [
    {"class_weights": (1.0, 2.0, 0.1), "learning_rate": 0.01},
    {"class_weights": (0.3, 1.0, 1.0), "learning_rate": 0.003, "l1": 0.01},
    {"class_weights": (5.0, 5.0, 1e-3), "learning_rate": 0.03, "weight_decay": 0.1},
    {"class_weights": (1.0, 1.0, 1.0), "learning_rate": 0.001, "l2": 0.1},
]
KINDS = ("label_smoothing", "mixup")
STRENGTHS = {"label_smoothing": [0.1, 0.3, 0.05, 0.2], "mixup": [0.3, 1.0, 0.5, 8.0]}


def weighed(kinds: tuple[str, ...], dtype: torch.dtype) -> Case:
    case = CaseOfKinds(STRENGTHS, Mlp(13, (33, 7), 3), kinds, dtype=dtype)
    case.configs = [replace(one, **run) for one, run in zip(case.configs, RUNS, strict=True)]
    case.spec = step_spec(case.configs[0], case.shape, case.data)
    return case


@pytest.mark.parametrize("kinds", [(), KINDS[:1], KINDS[1:], KINDS], ids=str)
def test_it_agrees_with_a_plain_loop(kinds: tuple[str, ...], program: dict[str, Any]) -> None:
    check_that_it_agrees_with_the_plain_loop(weighed(kinds, torch.float64), program)


@pytest.mark.parametrize("kinds", [(), KINDS], ids=str)
def test_neighbours_slots_and_refills_change_no_bit(
    kinds: tuple[str, ...], program: dict[str, Any]
) -> None:
    check_that_neighbours_slots_and_refills_change_no_bit(weighed(kinds, torch.float32), program)


def test_a_slot_without_a_run_is_frozen(program: dict[str, Any]) -> None:
    check_that_a_slot_without_a_run_is_frozen(weighed((), torch.float32), program)


def test_equal_weights_are_as_none() -> None:
    shape = shape_for(SMALL64)
    runs = [
        TrainingRun(config(class_weights=weights), shape, SMALL64)
        for weights in ((), (2.0, 2.0, 2.0))
    ]
    for plain, other in zip(*(run.epochs() for run in runs), strict=True):
        assert other.metrics == pytest.approx(plain.metrics, rel=1e-10)


def test_lanes_part_runs_with_weights_from_those_without(kernels_folder: Path) -> None:
    data = blobs(dtype=torch.float32)
    shape = shape_for(data)
    lanes = Lanes(CPU, LaneOptions(width=4, compile=False))
    runs = {
        key: config(seed=key, class_weights=weights)
        for key, weights in enumerate(((), (1.0, 2.0, 3.0), (3.0, 2.0, 1.0)))
    }
    for key, run in runs.items():
        lanes.add(key, run, shape, data, keep_weights=True)
    assert [lane.num_open for lane in lanes._lanes.values()] == [1, 2]
    ended = outcomes(drain(lanes))
    for key, run in runs.items():
        alone = TrainingRun(run, shape, data, width=4)
        list(alone.epochs())
        assert ended[key].metrics == alone.outcome().metrics


def test_no_program_is_compiled_for_steps_with_weights(kernels_folder: Path) -> None:
    data = blobs(dtype=torch.float32)
    lanes = Lanes(CPU, LaneOptions(width=4, cache=kernels_folder))
    for key, weights in enumerate(((), (1.0, 2.0, 3.0))):
        run = config(class_weights=weights)
        lanes.add(key, run, shape_for(data, activation="tanh"), data)
    assert [lane.wants_program for lane in lanes._lanes.values()] == [True, False]


def test_a_run_goes_on_from_a_checkpoint_with_its_weights() -> None:
    data = blobs(dtype=torch.float32)
    shape, run = shape_for(data), config(class_weights=(1.0, 2.0, 3.0))
    whole, first = (TrainingRun(run, shape, data) for _ in range(2))
    list(whole.epochs())
    next(first.epochs())
    saved = first.checkpoint()
    second = TrainingRun(run, shape, data, checkpoint=saved)
    list(second.epochs())
    assert second.outcome().metrics == whole.outcome().metrics
    tensors, metadata = load_checkpoint(saved)
    metadata["config"] |= {"class_weights": [1.0, 2.0, 4.0]}
    other = save_checkpoint(tensors, metadata)
    with pytest.raises(CheckpointError, match="another config"):
        TrainingRun(run, shape, data, checkpoint=other)


def test_a_checkpoint_that_is_older_than_the_weights_is_of_a_run_without() -> None:
    data = blobs(dtype=torch.float32)
    shape = shape_for(data)
    training = TrainingRun(config(), shape, data)
    next(training.epochs())
    tensors, metadata = load_checkpoint(training.checkpoint())
    del metadata["config"]["class_weights"]
    older, spec = save_checkpoint(tensors, metadata), step_spec(config(), shape, data)
    assert SavedRun.read(older, config(), spec, data).state.epochs_done == 1


def test_weights_that_do_not_fit_are_refused() -> None:
    data = samples(Mlp(13, (), 3), num_train=20, dtype=torch.float64)
    model: Model = Mlp(13, (), 3)
    for changes, reason in (
        ({"class_weights": (1.0, 2.0)}, "class_weights must be 3, one for each class, not 2"),
        (
            {
                "class_weights": (1.0, 2.0, 3.0),
                "loss": "mean_squared_error",
                "monitor": "validation_loss",
            },
            "mean_squared_error has no classes",
        ),
    ):
        with pytest.raises(ValueError, match=reason):
            StepSpec.of(config(**changes), model, data.train.num_samples, "float64")
    for weight in (0.0, -1.0, float("nan"), float("inf"), "1"):
        with pytest.raises(ValueError, match="class_weights must be"):
            config(class_weights=(1.0, weight, 1.0))
