"""One run from its configuration to its outcome: endings, checkpoints, reproducibility."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from ridgeline.search.engine import CheckpointError, DeviceData, EpochReport, Outcome, TrainingRun
from ridgeline.search.engine.checkpoint import load_checkpoint, save_checkpoint
from ridgeline.search.engine.evaluation import loss_and_score
from ridgeline.search.engine.losses import LOSSES
from tests.engine.sets import CPU, blobs, config, shape_for

METRICS = {
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "weight_norm",
    "near_zero_share",
}


def start(checkpoint: bytes | None = None, **changes: Any) -> TrainingRun:
    data = blobs(dtype=torch.float32)
    shape = shape_for(data, hidden=(12, 5), batch_norm=True)
    return TrainingRun(config(**changes), shape, data, checkpoint=checkpoint)


def finish(run: TrainingRun) -> tuple[list[EpochReport], Outcome]:
    return list(run.epochs()), run.outcome()


def assert_same_outcome(one: Outcome, other: Outcome) -> None:
    assert one.weights.keys() == other.weights.keys()
    for name, weight in one.weights.items():
        assert torch.equal(weight, other.weights[name]), name
    assert one.metrics == other.metrics
    assert (one.state, one.kept_epoch, one.value) == (other.state, other.kept_epoch, other.value)


def test_a_run_reports_every_epoch_and_keeps_the_last() -> None:
    reports, outcome = finish(start(epochs=4))
    assert [report.epoch for report in reports] == [1, 2, 3, 4]
    assert all(report.metrics.keys() == METRICS for report in reports)
    assert outcome.state == "complete"
    assert (outcome.kept_epoch, outcome.epochs_trained) == (4, 4)
    assert outcome.diverged_epoch is None
    assert outcome.value == reports[-1].metrics["validation_accuracy"]
    assert outcome.metrics.keys() == METRICS | {"test_loss", "test_accuracy"}
    assert reports[-1].metrics.items() <= outcome.metrics.items()
    json.dumps([report.metrics for report in reports] + [outcome.metrics], allow_nan=False)


def test_it_learns() -> None:
    reports, _ = finish(start(epochs=15))
    assert reports[-1].metrics["train_loss"] < 0.7 * reports[0].metrics["train_loss"]
    assert reports[-1].metrics["validation_accuracy"] > 0.6


def test_early_stopping_keeps_the_weights_of_the_best_epoch() -> None:
    changes: dict[str, Any] = {
        "learning_rate": 0.2,
        "monitor": "validation_loss",
        "direction": "minimize",
    }
    reports, outcome = finish(start(epochs=60, patience=5, **changes))
    losses = [report.metrics["validation_loss"] for report in reports]
    assert len(reports) < 60
    assert outcome.kept_epoch == losses.index(min(losses)) + 1 == len(reports) - 5
    assert outcome.value == min(losses)
    assert outcome.epochs_trained == len(reports)
    # The same run, trained no further than that epoch, ends with the very same weights.
    _, short = finish(start(epochs=outcome.kept_epoch, **changes))
    for name, weight in short.weights.items():
        assert torch.equal(weight, outcome.weights[name])
    assert short.metrics == outcome.metrics


def test_a_caller_may_stop_and_go_on() -> None:
    run = start(epochs=4)
    for report in run.epochs():
        if report.epoch == 2:
            break
    stopped = run.outcome()
    assert (stopped.state, stopped.kept_epoch, stopped.epochs_trained) == ("stopped", 2, 2)
    reports, outcome = finish(run)
    assert [report.epoch for report in reports] == [3, 4]
    assert_same_outcome(outcome, finish(start(epochs=4))[1])


def test_a_run_stopped_before_its_first_epoch_has_nothing() -> None:
    outcome = start().outcome()
    assert (outcome.state, outcome.kept_epoch, outcome.value) == ("stopped", None, None)
    assert outcome.metrics == outcome.weights == {}


@pytest.mark.parametrize("patience", [None, 3])
def test_a_run_diverges_without_an_exception(patience: int | None) -> None:
    data = blobs(dtype=torch.float32)
    diverging = config(optimizer="sgd", learning_rate=1e6, epochs=50, patience=patience)
    run = TrainingRun(diverging, shape_for(data, hidden=(16, 16)), data)
    reports, outcome = finish(run)
    assert outcome.state == "diverged"
    assert outcome.diverged_epoch == len(reports) + 1 < 50
    assert outcome.epochs_trained == len(reports)
    assert (outcome.kept_epoch, outcome.value) == (None, None)
    assert outcome.metrics == outcome.weights == {}
    json.dumps([report.metrics for report in reports], allow_nan=False)
    assert list(run.epochs()) == []


def test_a_loss_that_is_not_finite_in_one_step_only_is_seen() -> None:
    data = blobs(dtype=torch.float32)
    run = TrainingRun(config(epochs=3), shape_for(data), data)
    reports = run.epochs()
    next(reports)
    run._pack.tick()
    run._pack._memory.loss_sums_K[0] += float("inf")  # as a step of infinite loss adds
    for _ in range(run._pack.steps_per_epoch - 1):
        run._pack.tick()
    assert run._pack.epoch_metrics([0])[0][0] == float("inf")


def test_the_global_generator_plays_no_part() -> None:
    torch.manual_seed(1)
    _, first = finish(start(dropout=0.3))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    run = start(dropout=0.3)
    for _ in run.epochs():
        np.random.default_rng().random()
    assert torch.equal(torch.get_rng_state(), state)
    assert_same_outcome(run.outcome(), first)


def test_the_seed_matters() -> None:
    one, other = finish(start(seed=1))[1], finish(start(seed=2))[1]
    assert not torch.equal(one.weights["layers.0.weight"], other.weights["layers.0.weight"])


@pytest.mark.parametrize("patience", [None, 3])
@pytest.mark.parametrize("cut", [1, 4])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_resumed_run_ends_with_the_same_bits(
    optimizer: str, cut: int, patience: int | None
) -> None:
    changes: dict[str, Any] = {
        "epochs": 8,
        "optimizer": optimizer,
        "momentum": 0.9,
        "dropout": 0.2,
        "l1": 1e-4,
        "patience": patience,
        "seed": 2**63 - 1,
    }
    reports, whole = finish(start(**changes))
    first = start(**changes)
    for report in first.epochs():
        if report.epoch == cut:
            break
    content = first.checkpoint()
    resumed = start(checkpoint=content, **changes)
    assert resumed.epochs_trained == cut
    assert resumed.checkpoint() == content
    rest, outcome = finish(resumed)
    assert rest == reports[cut:]
    assert_same_outcome(outcome, whole)


def test_a_finished_run_resumes_finished() -> None:
    run = start(epochs=2)
    _, outcome = finish(run)
    resumed = start(checkpoint=run.checkpoint(), epochs=2)
    assert list(resumed.epochs()) == []
    assert_same_outcome(resumed.outcome(), outcome)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[:10],
        lambda content: content + b"x",
        lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:],
        lambda content: content[:30] + bytes([content[30] ^ 128]) + content[31:],
        lambda content: b"x" + content,
    ],
)
def test_a_damaged_checkpoint_is_refused(damage: Any) -> None:
    run = start()
    next(iter(run.epochs()))
    with pytest.raises(CheckpointError):
        start(checkpoint=damage(run.checkpoint()))


def test_a_checkpoint_of_another_run_is_refused() -> None:
    run = start()
    next(iter(run.epochs()))
    content = run.checkpoint()
    with pytest.raises(CheckpointError, match="another config"):
        start(checkpoint=content, seed=8)
    data = blobs(dtype=torch.float32)
    with pytest.raises(CheckpointError, match="another model"):
        TrainingRun(config(), shape_for(data), data, checkpoint=content)
    larger = blobs(dtype=torch.float32, num_train=101)
    shape = shape_for(data, hidden=(12, 5), batch_norm=True)
    with pytest.raises(CheckpointError, match="another data"):
        TrainingRun(config(), shape, larger, checkpoint=content)
    tensors, metadata = load_checkpoint(content)
    program = metadata["program"].replace("torch=", "torch=0.")
    with pytest.raises(CheckpointError, match="another program"):
        start(checkpoint=save_checkpoint(tensors, {**metadata, "program": program}))
    del tensors["first_moment"]
    with pytest.raises(CheckpointError, match="first_moment"):
        start(checkpoint=save_checkpoint(tensors, metadata))


def test_checkpoint_bytes_that_are_whole_but_not_ours() -> None:
    honest = save_checkpoint({"a": torch.ones(3)}, {"b": 1})
    tensors, metadata = load_checkpoint(honest)
    assert torch.equal(tensors["a"], torch.ones(3))
    assert metadata == {"b": 1}
    with pytest.raises(CheckpointError, match="another"):
        start(checkpoint=honest)


def test_kept_weights_give_the_outcomes_test_metrics() -> None:
    data = blobs(dtype=torch.float32)
    shape = shape_for(data)
    run = TrainingRun(config(patience=2), shape, data)
    _, outcome = finish(run)
    kept = run._progress.kept
    assert kept is not None
    values = loss_and_score(
        shape, LOSSES["cross_entropy"], kept.parameters_P, kept.statistics_Q, data.test
    )
    assert values.tolist() == [outcome.metrics["test_loss"], outcome.metrics["test_accuracy"]]


def test_read_only_and_other_arrays_are_copied() -> None:
    x = np.arange(12, dtype=np.uint8).reshape(6, 2)
    y = np.array([0, 1, 0, 1, 0, 1], dtype=np.int8)
    x.flags.writeable = False
    data = DeviceData.from_arrays(
        (x[::2], y[::2]), (x, y), (x, y), num_classes=2, device=CPU, dtype=torch.float64
    )
    assert data.train.x.tolist() == [[0, 1], [4, 5], [8, 9]]
    assert data.train.y.dtype == torch.int64


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        (np.zeros((3, 2)), np.array([0, 1, 2]), "labels"),
        (np.zeros((3, 2)), np.array([0, -1, 1]), "labels"),
        (np.zeros((3, 2)), np.array([0.0, 1.0, 1.0]), "labels"),
        (np.zeros((3, 2)), np.array([0, 1]), "fit"),
        (np.zeros((3, 3)), np.array([0, 1, 1]), "fit"),
        (np.zeros((0, 2)), np.zeros(0, dtype=int), "no samples"),
        (np.full((3, 2), np.nan), np.array([0, 1, 1]), "finite"),
    ],
)
def test_data_that_cannot_be_used_is_refused(x: Any, y: Any, reason: str) -> None:
    good = (np.zeros((4, 2)), np.array([0, 1, 0, 1]))
    with pytest.raises(ValueError, match=f"validation: .*{reason}"):
        DeviceData.from_arrays(good, (x, y), good, num_classes=2, device=CPU)
