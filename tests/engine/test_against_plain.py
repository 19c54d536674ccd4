"""Numeric truth: the engine against an independently written loop, in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from ridgeline.search.engine import NEAR_ZERO, DeviceData, Mlp, TrainingRun
from tests.engine.plain import epochs_for, train_plainly
from tests.engine.sets import blobs, config, shape_for

NUM_STEPS = 200
EXACT = {"rtol": 1e-10, "atol": 1e-12}
ROUNDED = {"rtol": 0.0, "atol": 1e-8}


def unseen_by_the_loss(shape: Mlp) -> set[str]:
    """Biases before a batch norm, which takes them out again, and the running means they shift.

    Their gradient is 0 but for rounding, and Adam divides rounding by rounding: no two correct
    programs agree on them beyond its ε.  No output depends on them in training mode; in evaluation
    mode one does, as far as the running mean lags behind the bias.
    """
    hidden = range(len(shape.hidden))
    return {f"layers.{i}.bias" for i in hidden} | {f"norms.{i}.running_mean" for i in hidden}


def check(data: DeviceData, shape: Mlp, **settings: Any) -> None:
    batch_size = settings.get("batch_size", 16)
    epochs = epochs_for(NUM_STEPS, data.train.num_samples, batch_size)
    run_config = config(epochs=epochs, **settings)
    run = TrainingRun(run_config, shape, data)
    reports = list(run.epochs())
    outcome = run.outcome()
    plain = train_plainly(run_config, shape, data)

    assert outcome.state == "complete"
    expected = {k: v for k, v in plain.model.state_dict().items() if "tracked" not in k}
    assert outcome.weights.keys() == expected.keys()
    for name, weight in outcome.weights.items():
        exact = ROUNDED if shape.batch_norm and name in unseen_by_the_loss(shape) else EXACT
        assert_close(weight, expected[name], **exact, msg=lambda text, name=name: f"{name} {text}")
    for metric in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"):
        plural = metric.replace("loss", "losses").replace("accuracy", "accuracies")
        got = [report.metrics[metric] for report in reports]
        lags = shape.batch_norm and metric == "validation_loss"
        assert got == pytest.approx(getattr(plain, plural), rel=1e-8 if lags else 1e-10)
    matrices = torch.cat([layer.weight.detach().flatten() for layer in plain.model.layers])
    last = reports[-1].metrics
    assert last["weight_norm"] == pytest.approx(matrices.norm().item(), rel=1e-10)
    near_zero = (matrices.abs() < NEAR_ZERO).double().mean().item()
    assert last["near_zero_share"] == pytest.approx(near_zero, abs=1e-12)


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "learning_rate": 0.1},
    "momentum": {"optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9},
    "nesterov": {"optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9, "nesterov": True},
    "adam": {"optimizer": "adam"},
    "adamw": {"optimizer": "adamw"},
}
PENALTIES: dict[str, dict[str, Any]] = {
    "none": {},
    "l1": {"l1": 0.01},
    "l1_proximal": {"l1": 0.05, "l1_update": "proximal"},
    "l1_half_per_sample": {"l1": 1.0, "lambda_convention": "half_per_sample"},
    "proximal_half_per_sample": {
        "l1": 10.0,
        "l1_update": "proximal",
        "lambda_convention": "half_per_sample",
    },
    "l2": {"l2": 0.01},
    "l2_half_per_sample": {"l2": 2.0, "lambda_convention": "half_per_sample"},
    "decay": {"weight_decay": 0.1},
    "dropout": {"dropout": 0.3},
    "everything": {"l1": 0.01, "l2": 0.02, "weight_decay": 0.05, "dropout": 0.2},
    "everything_all": {
        "l1": 0.01,
        "l2": 0.02,
        "weight_decay": 0.05,
        "dropout": 0.2,
        "penalize": "all",
    },
}


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_penalties_and_optimizers(optimizer: str, penalty: str) -> None:
    data = blobs()
    check(data, shape_for(data), **OPTIMIZERS[optimizer], **PENALTIES[penalty])


SCHEDULES: dict[str, dict[str, Any]] = {
    "constant_warmup": {"warmup": 0.25},
    "step": {"schedule": "step"},
    "step_warmup": {"schedule": "step", "warmup": 0.1},
    "cosine": {"schedule": "cosine"},
    "cosine_warmup": {"schedule": "cosine", "warmup": 0.15},
    "one_cycle": {"schedule": "one_cycle"},
}
# Decay and threshold go by the rate of the step.
RATED: dict[str, dict[str, Any]] = {
    "decay": {"weight_decay": 0.1},
    "proximal": {"l1": 0.05, "l1_update": "proximal"},
    "everything_all": PENALTIES["everything_all"],
}


@pytest.mark.parametrize("penalty", RATED)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_schedules(optimizer: str, schedule: str, penalty: str) -> None:
    data = blobs()
    settings = {**OPTIMIZERS[optimizer], **SCHEDULES[schedule], **RATED[penalty]}
    check(data, shape_for(data), **settings)


# Gradients have norms of mostly 0.1 to 1: they are clipped always, on the way, and never.
@pytest.mark.parametrize("clip_norm", [0.02, 0.3, 100.0])
@pytest.mark.parametrize("penalty", ["none", "l1", "l1_proximal", "l2", "everything_all"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_clipping(optimizer: str, penalty: str, clip_norm: float) -> None:
    data = blobs()
    settings = {**OPTIMIZERS[optimizer], **PENALTIES[penalty], "clip_norm": clip_norm}
    check(data, shape_for(data), **settings)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_schedules_with_clipping(optimizer: str) -> None:
    data = blobs()
    settings = {**OPTIMIZERS[optimizer], **PENALTIES["everything"], **SCHEDULES["cosine_warmup"]}
    check(data, shape_for(data), clip_norm=0.3, **settings)


# A strong penalty shrinks weights under a batch norm until the network is chaotic and magnifies
# rounding a millionfold in 200 steps; these are weak enough to tell a mistake from that.
NORM_PENALTIES: dict[str, dict[str, Any]] = {
    "none": {},
    "dropout": {"dropout": 0.3},
    "proximal": {"l1": 3e-4, "l1_update": "proximal"},
    "everything_all": {
        "l1": 1e-4,
        "l2": 1e-3,
        "weight_decay": 1e-2,
        "dropout": 0.2,
        "penalize": "all",
    },
    "clipped": {"l2": 1e-3, "clip_norm": 0.3, "schedule": "cosine", "warmup": 0.1},
}


@pytest.mark.parametrize("penalty", NORM_PENALTIES)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_batch_norm(optimizer: str, activation: str, penalty: str) -> None:
    data = blobs()
    shape = shape_for(data, hidden=(8, 5), batch_norm=True, activation=activation)
    check(data, shape, **OPTIMIZERS[optimizer], **NORM_PENALTIES[penalty])


@pytest.mark.parametrize("num_classes", [2, 3, 10])
@pytest.mark.parametrize("hidden", [(), (9,), (8, 7, 5)])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_shapes(activation: str, hidden: tuple[int, ...], num_classes: int) -> None:
    data = blobs(num_classes=num_classes, num_features=5)
    check(data, shape_for(data, hidden=hidden, activation=activation), dropout=0.1, l2=0.001)


@pytest.mark.parametrize(
    ("num_train", "batch_size"),
    [(96, 16), (97, 16), (111, 16), (40, 64), (64, 64), (33, 1), (50, 33)],
)
def test_batches_that_divide_and_that_do_not(num_train: int, batch_size: int) -> None:
    data = blobs(num_train=num_train)
    check(data, shape_for(data), batch_size=batch_size, dropout=0.25)


def test_a_large_validation_set_is_evaluated_in_chunks() -> None:
    data = blobs()
    many = torch.arange(5_001) % data.validation.num_samples
    split = type(data.validation)(data.validation.x[many], data.validation.y[many])
    large = replace(data, validation=split)
    check(large, shape_for(large))
