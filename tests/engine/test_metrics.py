"""Metrics of all outputs: those of scikit-learn, for the runs alone that are judged by them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
from sklearn.exceptions import UndefinedMetricWarning
from torch import Tensor

from ridgeline.search.engine import (
    CheckpointError,
    DeviceData,
    LaneOptions,
    Lanes,
    Pack,
    TrainingRun,
)
from ridgeline.search.engine.config import Monitor, RunConfig
from ridgeline.search.engine.losses import LOSSES, epoch_metrics
from ridgeline.search.engine.metrics import OF_CLASSES, OF_NUMBERS, OutputMetric
from ridgeline.search.engine.models.mlp import Mlp
from ridgeline.search.engine.native import Kernels
from ridgeline.search.engine.progress import Progress
from ridgeline.search.engine.pruning import PruningRules
from tests.engine.plain import plain_module
from tests.engine.program_checks import (
    CASES,
    check_that_neighbours_slots_and_refills_change_no_bit,
)
from tests.engine.sets import CPU, blobs, config, shape_for, step_spec

BY_NAME = {metric.name: metric for metric in (*OF_CLASSES, *OF_NUMBERS)}
EXACT = {"rel": 1e-12, "abs": 1e-12}


def auc_of_sklearn(y_N: Any, p_NC: Any) -> float:
    of_binary = p_NC.shape[1] == 2
    return float(
        sk.roc_auc_score(y_N, p_NC[:, 1] if of_binary else p_NC, multi_class="ovr", average="macro")
    )


OF_SKLEARN: dict[str, Callable[[Any, Any], float]] = {
    "balanced_accuracy": lambda y, p: sk.balanced_accuracy_score(y, p.argmax(1)),
    "macro_f1": lambda y, p: sk.f1_score(y, p.argmax(1), average="macro"),
    "roc_auc": auc_of_sklearn,
    "log_loss": lambda y, p: sk.log_loss(y, p, labels=range(p.shape[1])),
}


def value(metric: OutputMetric, outputs: Tensor, targets: Tensor, unit: float = 1.0) -> float:
    told = metric.value(outputs, targets, unit)
    assert (told.dtype, told.shape) == (torch.float64, ())
    return told.item()


def expected(name: str, outputs_NC: Tensor, y_N: Tensor) -> float:
    return OF_SKLEARN[name](y_N.numpy(), torch.softmax(outputs_NC.double(), dim=1).numpy())


def outputs_of(num_rows: int, num_classes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Outputs that are right more often than not, of every class; the last classes are rare."""
    generator = torch.Generator().manual_seed(num_classes)
    shares = 0.6 ** torch.arange(num_classes)
    y = torch.multinomial(shares, num_rows, replacement=True, generator=generator)
    y[:num_classes] = torch.arange(num_classes)
    outputs = torch.randn(num_rows, num_classes, generator=generator, dtype=dtype)
    outputs[torch.arange(num_rows), y] += 1
    return outputs, y


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_classes", [2, 3, 7])
@pytest.mark.parametrize("name", OF_SKLEARN)
def test_it_is_that_of_scikit_learn(name: str, num_classes: int, dtype: torch.dtype) -> None:
    outputs, y = outputs_of(997, num_classes, dtype)
    its = expected(name, outputs, y)
    assert value(BY_NAME[name], outputs, y) == pytest.approx(its, **EXACT)


@pytest.mark.parametrize("num_classes", [2, 3, 7])
@pytest.mark.parametrize("name", OF_SKLEARN)
def test_rows_that_are_equal_share_their_rank(name: str, num_classes: int) -> None:
    outputs, y = outputs_of(997, num_classes, torch.float64)
    for step in (0.5, 4.0, 100.0):  # of 100 all outputs are equal
        equal = (outputs / step).round() * step
        its = expected(name, equal, y)
        assert value(BY_NAME[name], equal, y) == pytest.approx(its, **EXACT)


def test_ranks_are_exact_where_nothing_is_learned_or_all() -> None:
    y = torch.tensor([0, 1, 0, 1, 1])
    auc = BY_NAME["roc_auc"]
    assert value(auc, torch.zeros(5, 2), y) == 0.5
    right = torch.nn.functional.one_hot(y).double()
    assert value(auc, right, y) == 1.0
    assert value(auc, -right, y) == 0.0


@pytest.mark.parametrize("guessed", [False, True])
@pytest.mark.parametrize("name", ["balanced_accuracy", "macro_f1"])
def test_a_class_without_rows_counts_only_if_it_is_guessed(name: str, guessed: bool) -> None:
    outputs, y = outputs_of(97, 5, torch.float64)
    y[y == 2] = 0
    if not guessed:
        outputs[:, 2] = -100
    assert (outputs.argmax(1) == 2).any() == guessed
    warns = guessed and name == "balanced_accuracy"
    with pytest.warns(UserWarning, match="not in y_true") if warns else nullcontext():
        its = expected(name, outputs, y)
    assert value(BY_NAME[name], outputs, y) == pytest.approx(its, **EXACT)


def test_rows_of_one_class_alone() -> None:
    outputs, _ = outputs_of(97, 3, torch.float64)
    y = torch.ones(97, dtype=torch.int64)
    assert np.isnan(value(BY_NAME["roc_auc"], outputs, y))
    for name in ("macro_f1", "log_loss"):
        its = expected(name, outputs, y)
        assert value(BY_NAME[name], outputs, y) == pytest.approx(its, **EXACT)
    share = (outputs.argmax(1) == 1).double().mean().item()
    assert value(BY_NAME["balanced_accuracy"], outputs, y) == pytest.approx(share, **EXACT)
    with pytest.warns(UndefinedMetricWarning):  # so does scikit-learn, of two classes
        its = sk.roc_auc_score(y.numpy(), outputs[:, 1].numpy())
    assert np.isnan(its)


@pytest.mark.parametrize("count", [1, 3])
def test_squared_errors_are_in_the_unit_of_the_targets(count: int) -> None:
    generator = np.random.default_rng(0)
    targets = generator.normal(70, 30, size=(50, count))
    guesses = targets + generator.normal(0, 10, size=(50, count))
    standardised, outputs = (torch.tensor((y - 60) / 25) for y in (targets, guesses))
    told = value(BY_NAME["mse"], outputs, standardised, 25.0)
    assert told == pytest.approx(sk.mean_squared_error(targets, guesses), **EXACT)


def numbers(**num_rows: int) -> DeviceData:
    generator = np.random.default_rng(1)

    def part(name: str) -> tuple[Any, Any]:
        x = generator.normal(size=(num_rows.get(name, 20), 3))
        return x, x[:, :1] + generator.normal(size=(len(x), 1))

    return DeviceData.from_arrays(
        part("train"), part("validation"), part("test"), num_classes=None, device=CPU,
        dtype=torch.float64,
    )  # fmt: skip


OF_NUMBERS_RUN = config(
    loss="mean_squared_error", monitor="validation_rmse", direction="minimize", epochs=2
)


@pytest.mark.parametrize("num_rows", [1, 2, 3])
@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_metrics_of_few_numbers_are_those_of_scikit_learn(
    part: str, num_rows: int, program: dict[str, Any]
) -> None:
    """Of one row there is no R², which is NaN in scikit-learn."""
    data = numbers(**{part: num_rows})
    run = TrainingRun(OF_NUMBERS_RUN, Mlp(3, (4,), 1), data, **program)
    reports = list(run.epochs())
    outcome = run.outcome()
    assert reports[-1].metrics.items() <= outcome.metrics.items()
    told = {name.removeprefix(f"{part}_") for name in outcome.metrics if name.startswith(part)}
    assert told == {"loss", "mae", "rmse", "r2"} - ({"r2"} if num_rows == 1 else set())
    assert outcome.measures is not None
    with_gap = {"loss", "mae", "rmse", "r2"}
    if num_rows == 1 and part != "test":  # as many training rows as validation rows are looked at
        with_gap.remove("r2")
    assert outcome.measures.generalisation_gap.keys() == with_gap
    if part == "train":
        return  # its metrics are of training
    module = plain_module(Mlp(3, (4,), 1)).double()
    module.load_state_dict(outcome.weights)
    rows = getattr(data, part)
    y, guesses = rows.y.numpy(), module(rows.x).detach().numpy()
    assert outcome.metrics[f"{part}_mae"] == pytest.approx(sk.mean_absolute_error(y, guesses))
    with pytest.warns(UndefinedMetricWarning) if num_rows == 1 else nullcontext():
        r2 = sk.r2_score(y, guesses)
    if num_rows == 1:
        assert np.isnan(r2)
    else:
        assert outcome.metrics[f"{part}_r2"] == pytest.approx(r2, rel=1e-10)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_no_run_is_judged_by_r2_of_one_row(part: str) -> None:
    judged = replace(OF_NUMBERS_RUN, monitor="validation_r2", direction="maximize")
    with pytest.raises(ValueError, match=f"needs two rows or more.* one {part} row"):
        TrainingRun(judged, Mlp(3, (4,), 1), numbers(**{part: 1}))
    TrainingRun(judged, Mlp(3, (4,), 1), numbers(train=1))


@pytest.mark.parametrize("metric", BY_NAME.values(), ids=BY_NAME)
def test_outputs_that_are_no_numbers_give_none(metric: OutputMetric) -> None:
    outputs, y = outputs_of(50, 3, torch.float32)
    targets = y if metric in OF_CLASSES else torch.zeros(50, 3)
    assert np.isfinite(value(metric, outputs, targets))
    outputs[17, 1] = torch.nan
    assert np.isnan(value(metric, outputs, targets))


def test_every_metric_has_a_name_of_its_own_and_can_be_monitored() -> None:
    told = {name for loss in LOSSES.values() for name, _ in loss.metrics}
    asked = [metric.name for loss in LOSSES.values() for metric in loss.output_metrics]
    assert len(asked) == len({*asked} - told)
    assert {f"validation_{name}" for name in (*told, *asked)} == set(get_args(Monitor))


DATA = blobs(num_train=101, num_features=13, dtype=torch.float32)
SHAPE = shape_for(DATA)


def judged_by(name: str, **changes: Any) -> RunConfig:
    metric = BY_NAME[name]
    return config(monitor=f"validation_{name}", direction=metric.direction, **changes)


@pytest.mark.parametrize("name", OF_SKLEARN)
def test_a_run_is_judged_by_its_weights_on_each_part(name: str, program: dict[str, Any]) -> None:
    run = TrainingRun(judged_by(name, epochs=5), SHAPE, DATA, **program)
    reports = list(run.epochs())
    outcome = run.outcome()
    assert reports[0].metrics.keys() == {*epoch_metrics(LOSSES["cross_entropy"])} | {
        f"validation_{name}"
    }
    assert outcome.value == outcome.metrics[f"validation_{name}"]
    module = plain_module(SHAPE)
    module.load_state_dict(outcome.weights)
    with torch.no_grad():
        validated, tested = (module(part.x) for part in (DATA.validation, DATA.test))
    # The products' last bits are the program's: outputs agree as those of float32 do.
    its = expected(name, validated, DATA.validation.y)
    assert outcome.value == pytest.approx(its, rel=1e-6)
    for other in OF_SKLEARN:
        its = expected(other, tested, DATA.test.y)
        assert outcome.metrics[f"test_{other}"] == pytest.approx(its, rel=1e-6)


def test_what_nobody_asks_for_is_not_told_and_changes_no_bit(program: dict[str, Any]) -> None:
    without, judged = (
        TrainingRun(one, SHAPE, DATA, **program) for one in (config(), judged_by("roc_auc"))
    )
    for plainly, report in zip(without.epochs(), judged.epochs(), strict=True):
        assert plainly.metrics == {
            name: told for name, told in report.metrics.items() if name != "validation_roc_auc"
        }
    one, other = without.outcome(), judged.outcome()
    assert without.program == judged.program
    assert all(torch.equal(other.weights[name], row) for name, row in one.weights.items())
    assert other.metrics.keys() - one.metrics.keys() == {
        "validation_roc_auc",
        *(f"test_{name}" for name in OF_SKLEARN),
    }


def test_neighbours_slots_and_refills_change_no_bit() -> None:
    """By torch's operations; of other forms their own tests tell."""
    check_that_neighbours_slots_and_refills_change_no_bit(CASES["judged"], {})


def test_early_stopping_keeps_the_best_epoch_by_it() -> None:
    chosen = judged_by("roc_auc", learning_rate=0.2, epochs=60, patience=5)
    run = TrainingRun(chosen, SHAPE, DATA)
    values = [report.metrics["validation_roc_auc"] for report in run.epochs()]
    outcome = run.outcome()
    assert outcome.kept_epoch == values.index(max(values)) + 1 < len(values) < 60
    assert outcome.value == max(values)
    short = TrainingRun(replace(chosen, epochs=outcome.kept_epoch, patience=None), SHAPE, DATA)
    list(short.epochs())
    assert short.outcome().metrics == outcome.metrics


def test_rules_prune_by_it() -> None:
    chosen = judged_by("log_loss", epochs=5)
    for threshold, goes_on in ((100.0, True), (0.0, False)):
        pack = Pack(step_spec(chosen, SHAPE, DATA), DATA, width=1)
        progress = Progress(chosen, pack, 0)
        pack.load(0, chosen)
        pack.tick(pack.ticks_to_epoch_end)
        rules = PruningRules(1, chosen.monitor, "minimize", {1: threshold})
        assert progress.end_epoch(pack.epoch_metrics([0])[0], rules) is not None
        assert progress.is_over != goes_on


def test_a_run_goes_on_with_what_it_was_judged_by() -> None:
    chosen = judged_by("macro_f1", epochs=4, patience=4)
    whole = TrainingRun(chosen, SHAPE, DATA)
    list(whole.epochs())
    first = TrainingRun(chosen, SHAPE, DATA)
    next(first.epochs())
    saved = first.checkpoint()
    second = TrainingRun(chosen, SHAPE, DATA, checkpoint=saved)
    list(second.epochs())
    assert second.outcome().metrics == whole.outcome().metrics
    with pytest.raises(CheckpointError, match="another config"):
        TrainingRun(judged_by("roc_auc", epochs=4, patience=4), SHAPE, DATA, checkpoint=saved)


@pytest.mark.parametrize("name", OF_SKLEARN)
def test_a_run_that_diverges_has_no_value(name: str) -> None:
    chosen = judged_by(name, optimizer="sgd", learning_rate=1e6, epochs=50)
    run = TrainingRun(chosen, shape_for(DATA, hidden=(16, 16)), DATA)
    reports = list(run.epochs())
    outcome = run.outcome()
    assert (outcome.state, outcome.value) == ("diverged", None)
    assert outcome.diverged_epoch == len(reports) + 1


@pytest.mark.parametrize("part", ["validation", "test"])
def test_areas_need_rows_of_every_class(part: str) -> None:
    whole = getattr(DATA, part)
    without = replace(DATA, **{part: replace(whole, y=whole.y.clamp(max=1))})
    chosen = judged_by("roc_auc")
    lanes = Lanes(CPU, LaneOptions(compile=False))
    for use in (
        lambda: TrainingRun(chosen, SHAPE, without),
        lambda: lanes.add("a", chosen, SHAPE, without),
    ):
        with pytest.raises(ValueError, match=f"the {part} rows have none of class 2"):
            use()
    run = TrainingRun(judged_by("macro_f1"), SHAPE, without)
    list(run.epochs())
    assert ("test_roc_auc" in run.outcome().metrics) == (part == "validation")


def test_a_metric_of_other_targets_is_refused() -> None:
    chosen = config(monitor="validation_mse", direction="minimize")
    with pytest.raises(ValueError, match="cross_entropy has no validation_mse, only train_loss"):
        TrainingRun(chosen, SHAPE, DATA)


def test_a_narrowed_pack_judges_the_runs_where_they_are(kernels: Kernels) -> None:
    spec = step_spec(judged_by("roc_auc"), SHAPE, DATA)
    whole, narrow = (Pack(spec, DATA, width=4, kernels=kernels) for _ in range(2))
    for pack in (whole, narrow):
        for slot in range(4):
            pack.load(slot, judged_by("roc_auc", seed=slot))
        pack.tick(2)
    narrow.free(1)
    moved = narrow.narrow()
    for pack in (whole, narrow):
        pack.tick(pack.ticks_to_epoch_end)
    assert narrow.epoch_metrics([moved.get(3, 3)]) == whole.epoch_metrics([3])
