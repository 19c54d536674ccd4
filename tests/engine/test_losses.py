"""What must hold for every loss: gradients, each slot by itself, rows that only pad, extremes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from ridgeline.search.engine import DeviceData, LaneOptions, Lanes, Mlp, Pack, TrainingRun, rng
from ridgeline.search.engine.data import Split
from ridgeline.search.engine.layout import ParameterLayout
from ridgeline.search.engine.losses import LOSSES, Loss, Targets, epoch_metrics, targets_of
from ridgeline.search.engine.models.base import Rows
from ridgeline.search.engine.native import Kernels
from tests.engine.plain import plain_module
from tests.engine.sets import CPU, blobs, config, shape_for, step_spec

K, B, C = 3, 9, 4
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def plain(loss: Loss, outputs_BC: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """The loss of each row as torch has it, [B]."""
    if loss.name == "cross_entropy":
        return F.cross_entropy(outputs_BC, targets, reduction="none", label_smoothing=smoothing)
    if loss.name == "binary_cross_entropy":
        targets = targets * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(outputs_BC, targets, reduction="none").mean(1)
    return F.mse_loss(outputs_BC, targets, reduction="none").mean(1)


@pytest.fixture(params=LOSSES)
def loss(request: pytest.FixtureRequest) -> Loss:
    return LOSSES[request.param]


def batch(loss: Loss, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Outputs [K, C, B] and targets as they come from a data set, [K, B] or [K, B, C]."""
    generator = torch.Generator().manual_seed(0)
    outputs = 3 * torch.randn(K, C, B, generator=generator, dtype=dtype)
    if loss.targets == "classes":
        return outputs, torch.randint(C, (K, B), generator=generator)
    if loss.name == "binary_cross_entropy":
        return outputs, torch.randint(2, (K, B, C), generator=generator).to(dtype)
    return outputs, torch.randn(K, B, C, generator=generator, dtype=dtype)


def rows_of(num_valid: list[int], dtype: torch.dtype = torch.float64) -> Rows:
    counts = torch.tensor(num_valid)
    return Rows(torch.arange(B)[None, :] >= counts[:, None], counts.to(dtype).view(-1, 1, 1))


SMOOTHINGS = [None, [0.0, 0.1, 0.5]]


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_gradients_are_those_of_autograd(loss: Loss, smoothing: list[float] | None) -> None:
    if smoothing is not None and not loss.takes_smoothing:
        pytest.skip("it is not for labels")
    outputs, y = batch(loss)
    num_valid = [9, 5, 1]
    given = None if smoothing is None else torch.tensor(smoothing, dtype=torch.float64)
    judged = loss.judge(outputs.clone(), targets_of(y), rows_of(num_valid), given)
    for slot, n in enumerate(num_valid):
        leaf = outputs[slot].T.clone().requires_grad_()
        losses = plain(loss, leaf[:n], y[slot, :n], smoothing[slot] if smoothing else 0.0)
        losses.mean().backward()
        assert_close(judged.gradient_KCB[slot].T, leaf.grad, **EXACT)
        assert_close(judged.losses_KB[slot, :n], losses.detach(), **EXACT)


def test_evaluation_says_what_training_says(loss: Loss) -> None:
    outputs, y = batch(loss)
    judged = loss.judge(outputs.clone(), targets_of(y), rows_of([B] * K))
    for losses, scores in (
        loss.evaluate(outputs, targets_of(y)),
        map(torch.stack, zip(*(loss.evaluate(outputs[k].T, y[k]) for k in range(K)), strict=True)),
    ):
        assert_close(losses, judged.losses_KB, **EXACT)
        assert_close(scores, judged.scores_KB)


def test_scores_are_those_of_the_second_metric(loss: Loss) -> None:
    outputs, y = batch(loss)
    _, scores = loss.evaluate(outputs, targets_of(y))
    guesses = outputs.transpose(1, 2)
    (_, (name, direction), *_) = loss.metrics
    expected = {
        "cross_entropy": lambda: guesses.argmax(2) == y,
        "binary_cross_entropy": lambda: ((guesses > 0) == (y == 1)).double().mean(2),
        "mean_squared_error": lambda: (guesses - y).abs().mean(2),
    }[loss.name]()
    assert_close(scores, expected)
    assert (direction == "maximize") == (name == "accuracy")
    assert scores.sum(dtype=loss.score_dtype).double() == pytest.approx(expected.double().sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_slot_sees_another(loss: Loss, dtype: torch.dtype) -> None:
    outputs, y = batch(loss, dtype)
    num_valid = [9, 5, 7]
    smoothing = torch.tensor([0.0, 0.3, 0.1], dtype=dtype) if loss.takes_smoothing else None
    judged = loss.judge(outputs.clone(), targets_of(y), rows_of(num_valid, dtype), smoothing)
    order = [2, 0, 1]
    permuted = loss.judge(
        outputs[order],
        targets_of(y[order]),
        rows_of([num_valid[k] for k in order], dtype),
        None if smoothing is None else smoothing[order],
    )
    outputs[1:] = torch.nan
    beside_nan = loss.judge(outputs, targets_of(y), rows_of(num_valid, dtype), smoothing)
    for name in ("gradient_KCB", "losses_KB", "scores_KB"):
        whole = getattr(judged, name)
        assert torch.equal(getattr(permuted, name), whole[order]), name
        assert torch.equal(getattr(beside_nan, name)[0], whole[0]), name
    if smoothing is not None:
        outputs, y = batch(loss, dtype)
        without = loss.judge(outputs, targets_of(y), rows_of(num_valid, dtype))
        assert torch.equal(without.gradient_KCB[0], judged.gradient_KCB[0]), "smoothed by 0"
        assert torch.equal(without.losses_KB[0], judged.losses_KB[0])


@pytest.mark.parametrize("junk", [1e30, float("inf"), float("nan")])
def test_rows_that_only_pad_leave_no_gradient(loss: Loss, junk: float) -> None:
    outputs, y = batch(loss)
    rows = rows_of([9, 5, 1])
    clean = loss.judge(outputs.clone(), targets_of(y), rows)
    assert rows.invalid_KB is not None
    padded = rows.invalid_KB[:, None].expand_as(outputs)
    judged = loss.judge(outputs.masked_fill(padded, junk), targets_of(y), rows)
    assert torch.equal(judged.gradient_KCB, clean.gradient_KCB)
    assert (judged.gradient_KCB[padded] == 0).all()
    counted = ~rows.invalid_KB
    assert torch.equal(judged.losses_KB[counted], clean.losses_KB[counted])


@pytest.mark.parametrize("smoothed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_are_finite_and_exact(dtype: torch.dtype, smoothed: bool) -> None:
    size = 1e4
    for loss in (LOSSES["cross_entropy"], LOSSES["binary_cross_entropy"]):
        signs = torch.tensor([1.0, -1.0], dtype=dtype)
        outputs = (size * signs).view(2, 1, 1).repeat(1, 2, 1)
        outputs[:, 1] = -outputs[:, 1]  # [+, -] in one slot, [-, +] in the other
        if loss.targets == "classes":
            targets = torch.zeros(2, 1, dtype=torch.int64)
            wrong = 2 * size
        else:
            targets = torch.tensor([1.0, 0.0], dtype=dtype).view(1, 2, 1).repeat(2, 1, 1)
            wrong = size
        rows = Rows(None, torch.ones(2, 1, 1, dtype=dtype))
        smoothing = torch.full((2,), 0.1, dtype=dtype) if smoothed else None
        judged = loss.judge(outputs, targets, rows, smoothing)
        assert judged.gradient_KCB.isfinite().all()
        share = 0.05 if smoothed else 0.0
        expected = torch.tensor([[share * wrong], [(1 - share) * wrong]], dtype=dtype)
        assert_close(judged.losses_KB, expected)


def test_an_infinite_output_that_is_right_costs_nothing() -> None:
    loss = LOSSES["binary_cross_entropy"]
    outputs = torch.tensor([[[float("inf")], [float("-inf")]]])
    losses, scores = loss.evaluate(outputs, torch.tensor([[[1.0], [0.0]]]))
    assert (losses.item(), scores.item()) == (0.0, 1.0)


def test_one_class_is_not_smoothed_away() -> None:
    """A slot without smoothing keeps its bits where a smoothed one has an infinite loss."""
    outputs = torch.tensor([[[0.0], [float("-inf")]]] * 2)
    rows = Rows(None, torch.ones(2, 1, 1))
    targets = torch.zeros(2, 1, dtype=torch.int64)
    judged = LOSSES["cross_entropy"].judge(outputs, targets, rows, torch.tensor([0.0, 0.1]))
    assert judged.losses_KB.tolist() == [[0.0], [float("inf")]]


def test_metrics_have_the_names_that_were_published() -> None:
    assert epoch_metrics(LOSSES["cross_entropy"]) == (
        "train_loss",
        "train_accuracy",
        "validation_loss",
        "validation_accuracy",
        "weight_norm",
        "near_zero_share",
    )
    assert epoch_metrics(LOSSES["mean_squared_error"])[4:8] == (
        "validation_loss",
        "validation_mae",
        "validation_rmse",
        "validation_r2",
    )


def test_metrics_of_numbers_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    generator = np.random.default_rng(0)
    targets = generator.normal(70, 30, size=(50, 1))
    guesses = targets + generator.normal(0, 10, size=(50, 1))
    standardised, outputs = (torch.tensor((y - 60) / 25) for y in (targets, guesses))
    loss = LOSSES["mean_squared_error"]
    losses, scores = loss.evaluate(outputs, standardised)
    part = Split(torch.zeros(50, 1), standardised)
    told = loss.told([losses.mean().item(), scores.mean().item()], part.variance, 25.0)
    assert dict(zip((name for name, _ in loss.metrics), told, strict=True)) == pytest.approx(
        {
            "loss": ((guesses - targets) ** 2).mean() / 25**2,
            "mae": mean_absolute_error(targets, guesses),
            "rmse": root_mean_squared_error(targets, guesses),
            "r2": r2_score(targets, guesses),
        },
        rel=1e-10,
    )


def test_several_numbers_have_one_r2_by_their_variances() -> None:
    from sklearn.metrics import r2_score

    generator = np.random.default_rng(0)
    targets = generator.normal(size=(50, 3)) * [1, 2, 5]
    guesses = targets + generator.normal(size=(50, 3))
    loss = LOSSES["mean_squared_error"]
    losses, _ = loss.evaluate(torch.tensor(guesses), torch.tensor(targets))
    part = Split(torch.zeros(50, 1), torch.tensor(targets))
    r2 = loss.told([losses.mean().item(), 0.0], part.variance, 1.0)[3]
    expected = r2_score(targets, guesses, multioutput="variance_weighted")
    assert r2 == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("mean", "r2"), [(0.0, 1.0), (0.25, 0.0)])
def test_targets_that_do_not_vary_have_an_r2(mean: float, r2: float) -> None:
    assert LOSSES["mean_squared_error"].told([mean, 0.1], 0.0, 1.0)[3] == r2


@pytest.mark.parametrize("mean", [math.inf, math.nan])
def test_a_loss_that_is_not_finite_shows_in_every_part(loss: Loss, mean: float) -> None:
    for variance in (0.0, 1.0):
        assert not all(map(math.isfinite, loss.told([mean, 0.5], variance, 1.0)))


def test_what_is_monitored_must_be_a_metric_of_the_loss() -> None:
    data = blobs()
    run = config(monitor="validation_rmse", direction="minimize")
    lanes = Lanes(CPU, LaneOptions(compile=False))
    for use in (
        lambda: TrainingRun(run, shape_for(data), data),
        lambda: lanes.add("a", run, shape_for(data), data),
    ):
        with pytest.raises(ValueError, match="cross_entropy has no validation_rmse"):
            use()


@pytest.mark.parametrize(
    ("name", "targets", "num_outputs", "reason"),
    [
        ("cross_entropy", Targets.classes(3), 4, "4 outputs, the data have 3 classes"),
        ("cross_entropy", Targets.classes(1), 1, "at least two classes"),
        ("cross_entropy", Targets("numbers", 3, 0.0, 1.0), 3, "needs classes"),
        ("mean_squared_error", Targets.classes(3), 3, "needs numbers"),
        ("mean_squared_error", Targets("numbers", 2, 0.0, 1.0), 3, "the data have 2 numbers"),
        ("binary_cross_entropy", Targets("numbers", 3, 0.0, 1.5), 3, "from 0 to 1.5"),
        ("binary_cross_entropy", Targets("numbers", 3, -1.0, 1.0), 3, "from -1 to 1"),
    ],
)
def test_targets_that_cannot_be_learned_are_refused(
    name: str, targets: Targets, num_outputs: int, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        LOSSES[name].check(targets, num_outputs)
    accepted: dict[str, Any] = {
        "cross_entropy": Targets.classes(3),
        "mean_squared_error": Targets("numbers", 3, -9.0, 9.0),
        "binary_cross_entropy": Targets("numbers", 3, 0.0, 1.0),
    }
    LOSSES[name].check(accepted[name], 3)


@pytest.mark.parametrize("with_kernels", [False, True])
@pytest.mark.parametrize("name", ["binary_cross_entropy", "mean_squared_error"])
def test_a_pack_learns_numbers(name: str, with_kernels: bool, kernels: Kernels) -> None:
    """As a plain loop does, in float64, over 200 steps."""
    generator = np.random.default_rng(0)

    def part(num_samples: int) -> tuple[Any, Any]:
        x = generator.normal(size=(num_samples, 6))
        y = x[:, :2] + 0.1 * generator.normal(size=(num_samples, 2))
        return x, (y > 0).astype(float) if name == "binary_cross_entropy" else y

    data = DeviceData.from_arrays(
        part(97), part(57), part(43), num_classes=None, device=CPU, dtype=torch.float64
    )
    model = Mlp(6, (8,), 2)
    run = config(
        optimizer="sgd", learning_rate=0.1, epochs=29, loss=name, monitor="validation_loss"
    )
    pack = Pack(
        step_spec(run, model, data), data, width=2, kernels=kernels if with_kernels else None
    )
    assert pack.metrics == epoch_metrics(LOSSES[name])
    for slot in range(2):
        pack.load(slot, replace(run, seed=slot))
    metrics = []
    for _ in range(run.epochs):
        pack.tick(pack.ticks_to_epoch_end)
        metrics = pack.epoch_metrics([1])[0]

    layout = ParameterLayout(model)
    row = layout.initial_rows([1], CPU, torch.float64)
    module = plain_module(model).double()
    module.load_state_dict({name: view[0].clone() for name, view in layout.views(row).items()})
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    train_losses: list[float] = []
    for epoch in range(run.epochs):
        (order,) = rng.permutations([(1, epoch)], rng.counters(97, CPU))
        train_losses.clear()
        for rows in order.split(16):
            losses = plain(LOSSES[name], module(data.train.x[rows]), data.train.y[rows], 0.0)
            optimizer.zero_grad()
            losses.mean().backward()
            optimizer.step()
            train_losses += losses.tolist()
    for key, weight in pack.named(pack.weights(1)).items():
        assert_close(weight, module.state_dict()[key], **EXACT)
    losses = plain(LOSSES[name], module(data.validation.x), data.validation.y, 0.0)
    of = dict(zip(pack.metrics, metrics, strict=True))
    assert of["train_loss"] == pytest.approx(sum(train_losses) / 97, rel=1e-10)
    assert of["validation_loss"] == pytest.approx(losses.mean().item(), rel=1e-10)


def test_a_model_with_other_outputs_than_there_are_numbers_is_refused() -> None:
    arrays = np.zeros((4, 3)), np.zeros((4, 2))
    data = DeviceData.from_arrays(arrays, arrays, arrays, num_classes=None, device=CPU)
    spec = step_spec(config(loss="mean_squared_error"), Mlp(3, (), 1), data)
    with pytest.raises(ValueError, match="the model has 1 outputs, the data have 2 numbers"):
        Pack(spec, data, width=1)
