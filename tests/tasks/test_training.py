"""Runs of tasks: from what a worker is ordered to do, to the outcome."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from sklearn.metrics import (
    balanced_accuracy_score,
    f1_score,
    log_loss,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)
from sklearn.utils.class_weight import compute_class_weight

from ridgeline.search import engine
from ridgeline.search.engine.config import Augmentation
from ridgeline.search.engine.evaluation import all_outputs
from ridgeline.search.objective import EarlyStopping, Objective, Penalty
from ridgeline.search.spec import parse_spec
from ridgeline.search.tasks import training
from ridgeline.search.tasks.any_settings import settings_of
from ridgeline.search.tasks.base import EngineTask, RunInput
from ridgeline.search.tasks.data import Dataset, DatasetError, UnfitDataset
from ridgeline.search.tasks.datasets import load
from ridgeline.search.tasks.mlp import MlpDefaults, MlpSettings
from ridgeline.search.tasks.registry import task_of
from ridgeline.search.tasks.settings import Reading, Split
from ridgeline.search.tasks.splits import split_column
from ridgeline.search.tasks.training import Preparer, open_device
from tests.tasks.idx_files import encode, toy_arrays, write, write_folder
from tests.tasks.real_data import needs_real_data, real_root
from tests.tasks.table_files import write_csv, write_texts

pytestmark = pytest.mark.usefixtures("_threads_restored")


@pytest.fixture
def _threads_restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run_input(dataset: str = "digits", **config: Any) -> RunInput[MlpSettings]:
    return RunInput(
        task=MlpSettings(name="mlp", dataset=dataset, hidden=(32,)),
        config={**MlpDefaults().model_dump(), "epochs": 3, **config},
        seed=11,
        objective=Objective(),
        early_stopping=None,
        penalty=Penalty(),
        data_fingerprint=None,
    )


def begin(preparer: Preparer, run: RunInput[MlpSettings]) -> engine.TrainingRun:
    """The run by itself, trained by the engine called directly."""
    return engine.TrainingRun(*preparer.prepare(run))


def history(preparer: Preparer, run: RunInput[MlpSettings]) -> list[dict[str, float]]:
    return [report.metrics for report in begin(preparer, run).epochs()]


@pytest.fixture
def preparer() -> Preparer:
    return Preparer(None, open_device("cpu:0"))


@pytest.mark.parametrize("name", ["digits", "breast-cancer"])
def test_learns(preparer: Preparer, name: str) -> None:
    run = begin(preparer, run_input(name, epochs=8, learning_rate=0.005, batch_size=32))
    reports = list(run.epochs())
    assert [report.epoch for report in reports] == list(range(1, 9))
    assert reports[-1].metrics["train_loss"] < reports[0].metrics["train_loss"] / 2
    outcome = run.outcome()
    assert outcome.state == "complete"
    assert outcome.kept_epoch == 8
    assert outcome.value == reports[-1].metrics["validation_accuracy"]
    assert outcome.value > 0.93
    assert outcome.metrics["test_accuracy"] > 0.9
    assert outcome.metrics["test_loss"] < 0.4
    assert outcome.metrics["validation_loss"] == reports[-1].metrics["validation_loss"]
    assert not any(name.startswith("test_") for report in reports for name in report.metrics)


def run_of(settings: dict[str, Any], metric: str, **config: Any) -> RunInput[Any]:
    task = settings_of(settings)
    definition = task_of(task)
    assert definition.metrics is not None
    return RunInput(
        task=task,
        config={**definition.defaults(task), "epochs": 3, **config},
        seed=11,
        objective=Objective(metric=metric, direction=definition.metrics[metric]),
        early_stopping=None,
        penalty=Penalty(),
        data_fingerprint=None,
    )


FAST = {"epochs": 8, "learning_rate": 0.02}
RESNET = {"architecture": "resnet", "channels": [6, 8], "spatial_dropout": True}


@pytest.mark.parametrize(
    ("settings", "metric", "config", "least"),
    [
        ({"name": "linear", "dataset": "breast-cancer"}, "validation_accuracy", FAST, 0.9),
        ({"name": "linear", "dataset": "digits"}, "validation_accuracy", FAST, 0.9),
        ({"name": "linear", "dataset": "diabetes"}, "validation_r2", {"epochs": 40}, 0.4),
        (
            {"name": "mlp", "dataset": "diabetes", "hidden": [8]},
            "validation_r2",
            {"epochs": 20, "l2": 0.01},
            0.4,
        ),
        ({"name": "cnn", "dataset": "digits"}, "validation_accuracy", FAST, 0.9),
        (
            {"name": "cnn", "dataset": "digits", **RESNET},
            "validation_accuracy",
            {**FAST, "dropout": 0.1},
            0.9,
        ),
    ],
)
def test_tasks_learn(
    preparer: Preparer,
    settings: dict[str, Any],
    metric: str,
    config: dict[str, Any],
    least: float,
) -> None:
    run = begin(preparer, run_of(settings, metric, **{"learning_rate": 0.005, **config}))
    reports = list(run.epochs())
    outcome = run.outcome()
    assert outcome.state == "complete"
    assert outcome.value == reports[-1].metrics[metric] > least
    assert outcome.metrics[metric.replace("validation", "test")] > least - 0.05


def test_each_fold_trains_on_rows_of_its_own(preparer: Preparer) -> None:
    settings = {"name": "linear", "dataset": "breast-cancer", "split": {"folds": 6}}
    run = run_of(settings, "validation_accuracy", epochs=1)
    prepared = [preparer.prepare(replace(run, replicate=replicate)) for replicate in range(12)]
    assert len({one.data.fingerprint for one in prepared}) == 6
    for first, second in zip(prepared[:6], prepared[6:], strict=True):
        assert first.data.train.x is second.data.train.x, "no fold is put on the device twice"
    expected = split_column(load("breast-cancer", None), run.task.split, 2).validation
    assert len(prepared[2].data.validation.y) == len(expected)


def test_validation_rows_may_train_too(preparer: Preparer) -> None:
    settings = {"name": "linear", "dataset": "wine"}
    both = {**settings, "split": {"train_on": "train+validation"}}
    alone, together = (
        preparer.prepare(run_of(one, "validation_accuracy", epochs=1)).data
        for one in (settings, both)
    )
    num_rows = alone.train.num_samples + alone.validation.num_samples
    assert together.train.num_samples == num_rows
    assert together.test.num_samples == alone.test.num_samples
    assert together.fingerprint != alone.fingerprint
    assert together.train.x.mean(0).abs().max() < 1e-6, "all of them say what the mean is"
    run = begin(preparer, run_of(both, "validation_accuracy", epochs=2))
    list(run.epochs())
    seen = run.outcome().measures
    assert seen is not None
    assert seen.generalisation_gap == {}, "no row is left to see one by"
    assert seen.layers


@pytest.mark.parametrize("name", ["linear", "mlp"])
@pytest.mark.parametrize("weights", ["tfidf", "counts"])
def test_texts_in_a_bag_are_learned(tmp_path: Path, name: str, weights: str) -> None:
    write_texts(tmp_path / "mails")
    settings = {"name": name, "dataset": "mails", "bag": {"weights": weights, "vocabulary": 6}}
    run = run_of(settings, "validation_accuracy", epochs=40, learning_rate=0.05, batch_size=16)
    preparer = Preparer(tmp_path, open_device("cpu:0"))
    training = begin(preparer, run)
    assert list(training.epochs())[-1].metrics["validation_accuracy"] == 1
    assert training.outcome().metrics["test_accuracy"] == 1
    assert preparer.prepare(run).data is not None, "what is prepared fits again"
    without = run_of({"name": name, "dataset": "mails"}, "validation_accuracy")
    with pytest.raises(UnfitDataset, match=r"features are tokens, .* set task\.bag"):
        preparer.prepare(without)


@pytest.mark.parametrize("pooling", ["mean", "sum"])
def test_texts_are_learned(tmp_path: Path, pooling: str) -> None:
    write_texts(tmp_path / "mails")
    settings = {"name": "text", "dataset": "mails", "embedding": 8, "pooling": pooling}
    run = run_of(settings, "validation_accuracy", epochs=40, learning_rate=0.05, batch_size=16)
    training = begin(Preparer(tmp_path, open_device("cpu:0")), run)
    assert list(training.epochs())[-1].metrics["validation_accuracy"] == 1
    assert training.outcome().metrics["test_accuracy"] == 1


def test_linear_regression_comes_to_that_of_scikit_learn(preparer: Preparer) -> None:
    run = run_of(
        {"name": "linear", "dataset": "diabetes"},
        "validation_rmse",
        optimizer="sgd",
        learning_rate=0.05,
        batch_size=300,
        epochs=3000,
    )
    training = begin(preparer, run)
    last = list(training.epochs())[-1].metrics
    diabetes = load("diabetes", None)
    column = split_column(diabetes, Split())
    train, validation, test = (
        (diabetes.x[rows], diabetes.y[rows, 0])
        for rows in (column.train, column.validation, column.test)
    )
    model = LinearRegression().fit(*train)
    outcome = training.outcome()
    assert outcome.value == last["validation_rmse"]
    for part, (x, y) in (("validation", validation), ("test", test)):
        guesses = model.predict(x)
        for name, expected in (
            ("rmse", root_mean_squared_error(y, guesses)),
            ("mae", mean_absolute_error(y, guesses)),
            ("r2", r2_score(y, guesses)),
            ("loss", (((guesses - y) / train[1].std()) ** 2).mean()),
        ):
            assert outcome.metrics[f"{part}_{name}"] == pytest.approx(expected, rel=1e-3)
    assert outcome.metrics["test_rmse"] > 40, "in the unit of the data set"


@pytest.mark.parametrize("dataset", ["digits", "wine", "breast-cancer"])
@pytest.mark.parametrize(
    ("metric", "of_sklearn"),
    [
        ("balanced_accuracy", lambda y, p: balanced_accuracy_score(y, p.argmax(1))),
        ("macro_f1", lambda y, p: f1_score(y, p.argmax(1), average="macro")),
        (
            "roc_auc",
            lambda y, p: roc_auc_score(y, p[:, 1] if p.shape[1] == 2 else p, multi_class="ovr"),
        ),
        ("log_loss", lambda y, p: log_loss(y, p, labels=range(p.shape[1]))),
    ],
)
def test_classes_are_judged_as_scikit_learn_has_it(
    preparer: Preparer, dataset: str, metric: str, of_sklearn: Callable[[Any, Any], float]
) -> None:
    """Of the very outputs that the weights give."""
    settings = {"name": "linear", "dataset": dataset}
    config, model, data = preparer.prepare(run_of(settings, f"validation_{metric}"))
    run = engine.TrainingRun(config, model, data)
    list(run.epochs())
    outcome = run.outcome()
    weights = run._pack.weights(0)
    for name, part in (("validation", data.validation), ("test", data.test)):
        outputs = all_outputs(model, weights.parameters_P, weights.statistics_Q, part)
        p = torch.softmax(outputs.double(), dim=1).numpy()
        expected = of_sklearn(part.y.numpy(), p)
        assert outcome.metrics[f"{name}_{metric}"] == pytest.approx(expected, rel=1e-12)
    assert outcome.value == outcome.metrics[f"validation_{metric}"]


def test_squared_errors_are_told_in_the_unit_of_the_targets(preparer: Preparer) -> None:
    settings = {"name": "linear", "dataset": "diabetes"}
    run = begin(preparer, run_of(settings, "validation_mse", epochs=5))
    list(run.epochs())
    outcome = run.outcome()
    for part in ("validation", "test"):
        mse, rmse = (outcome.metrics[f"{part}_{name}"] for name in ("mse", "rmse"))
        assert mse == pytest.approx(rmse**2, rel=1e-5)
    assert outcome.value == outcome.metrics["validation_mse"]


def test_classes_weigh_as_the_study_says(tmp_path: Path) -> None:
    """Balanced as scikit-learn has it; few rows of a class then count as much as many."""
    generator = np.random.Generator(np.random.PCG64(0))
    rows = [
        [*(generator.normal(0.7 * (kind == "spam"), 1, 2)), kind]
        for kind in ["ham"] * 270 + ["spam"] * 30
    ]
    write_csv(tmp_path / "mails" / "train.csv", [["a", "b", "class"], *rows])
    preparer = Preparer(tmp_path, open_device("cpu:0"))

    def prepared(weights: Any) -> training.PreparedRun:
        settings = {"name": "linear", "dataset": "mails", "class_weights": weights}
        changes = {"epochs": 30, "learning_rate": 0.02}
        return preparer.prepare(run_of(settings, "validation_balanced_accuracy", **changes))

    chosen = {
        "none": prepared(None),
        "balanced": prepared("balanced"),
        "same": prepared([192 / 346, 192 / 38]),
    }
    y = chosen["balanced"].data.train.y.numpy()
    weights = compute_class_weight("balanced", classes=np.arange(2), y=y)
    assert chosen["balanced"].config.class_weights == pytest.approx(tuple(weights))
    assert chosen["same"].config.class_weights == pytest.approx(tuple(weights))
    assert chosen["none"].config.class_weights == ()
    outcomes = {}
    for name, one in chosen.items():
        run = engine.TrainingRun(*one)
        list(run.epochs())
        outcomes[name] = run.outcome()
    assert outcomes["balanced"].metrics == pytest.approx(outcomes["same"].metrics)
    none, balanced = (outcomes[name].metrics for name in ("none", "balanced"))
    assert balanced["test_balanced_accuracy"] > none["test_balanced_accuracy"] + 0.1
    assert balanced["test_loss"] > none["test_loss"], "of rows that weigh alike"


@pytest.mark.parametrize(
    ("dataset", "metric", "weights", "reason"),
    [
        ("digits", "validation_loss", [1, 2], "must be 10 numbers, one for each class, not 2"),
        ("diabetes", "validation_loss", "balanced", "must be left out: the targets are numbers"),
    ],
)
def test_weights_that_do_not_fit_the_classes_are_refused(
    dataset: str, metric: str, weights: Any, reason: str, preparer: Preparer
) -> None:
    settings = {"name": "mlp", "dataset": dataset, "class_weights": weights}
    with pytest.raises(UnfitDataset, match=rf"task\.class_weights {reason}"):
        preparer.prepare(run_of(settings, metric))
    data, spec = (
        load(dataset, None),
        parse_spec(
            {
                "name": "x",
                "task": settings,
                "space": {"l2": {"type": "float", "low": 0, "high": 1}},
                "sampler": {"name": "random"},
                "objective": {"metric": metric, "direction": "minimize"},
                "budget": {"trials": 2},
            }
        ),
    )
    definition = spec.definition
    assert isinstance(definition, EngineTask)
    problems = definition.data_problems(spec.task, spec, data.features, data.targets)
    assert [*problems] == [("task.class_weights", reason)]


def test_a_class_that_cannot_be_balanced_is_called_by_its_name(tmp_path: Path) -> None:
    labels = ["ham"] * 30 + ["spam"] * 30
    rows = [[row % 5, row, label] for row, label in enumerate(labels)]
    write_csv(tmp_path / "mails" / "train.csv", [["a", "day", "class"], *rows])
    split = {"kind": "time", "column": "day", "test": 0.4, "validation": 0.4}
    settings = {"name": "mlp", "dataset": "mails", "split": split, "class_weights": "balanced"}
    reason = "data set mails: no training row is of class 'spam', which has to be balanced"
    with pytest.raises(UnfitDataset, match=reason):
        Preparer(tmp_path, open_device("cpu:0")).prepare(run_of(settings, "validation_accuracy"))


def test_areas_are_refused_where_a_part_lacks_a_class(tmp_path: Path) -> None:
    rows = [[row % 5, row % 7, ["ham", "offer", "spam"][row % 3]] for row in range(60)]
    header = ["a", "b", "class"]
    write_csv(tmp_path / "mails" / "train.csv", [header, *rows])
    write_csv(tmp_path / "mails" / "test.csv", [header, *(row for row in rows if row[2] == "ham")])
    preparer, settings = (
        Preparer(tmp_path, open_device("cpu:0")),
        {"name": "mlp", "dataset": "mails"},
    )
    with pytest.raises(
        UnfitDataset, match=r"data set mails: .* the test rows have none of class 'offer'"
    ):
        preparer.prepare(run_of(settings, "validation_roc_auc"))
    run = begin(preparer, run_of(settings, "validation_macro_f1"))
    list(run.epochs())
    metrics = run.outcome().metrics
    assert metrics.keys() >= {"test_macro_f1", "test_balanced_accuracy", "test_log_loss"}
    assert "test_roc_auc" not in metrics


def test_data_and_metrics_that_are_not_for_the_task_are_refused(preparer: Preparer) -> None:
    images = {"name": "cnn", "dataset": "breast-cancer"}
    with pytest.raises(UnfitDataset, match="data set breast-cancer: its features are vector"):
        preparer.prepare(run_of(images, "validation_accuracy"))
    small = {"name": "cnn", "dataset": "digits", "channels": [2, 2, 2, 2]}
    with pytest.raises(UnfitDataset, match="images of 8×8 cannot be halved 4 times"):
        preparer.prepare(run_of(small, "validation_accuracy"))
    numbers = {"name": "linear", "dataset": "diabetes"}
    with pytest.raises(UnfitDataset, match=r"objective\.metric must be one of validation_loss, "):
        preparer.prepare(run_of(numbers, "validation_accuracy"))


def test_data_that_several_tasks_train_on_are_on_the_device_once(preparer: Preparer) -> None:
    digits = [{"name": "mlp", "dataset": "digits"}, {"name": "cnn", "dataset": "digits"}]
    flat, images = (preparer.prepare(run_of(one, "validation_loss")).data for one in digits)
    assert (flat.sample_shape, images.sample_shape) == ((64,), (1, 8, 8))
    assert flat.train.x.data_ptr() == images.train.x.data_ptr()
    assert flat.fingerprint == images.fingerprint


def test_a_run_follows_from_its_input_alone(preparer: Preparer) -> None:
    run = run_input(dropout=0.2)
    first = history(preparer, run)
    history(preparer, replace(run, seed=12))
    torch.manual_seed(99)
    assert history(preparer, run) == first
    assert history(Preparer(None, open_device("cpu:0")), run) == first
    assert history(preparer, replace(run, seed=12)) != first


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 0.01},
        {"batch_size": 100},
        {"l1": 0.01},
        {"l2": 0.01},
        {"weight_decay": 0.5},
        {"dropout": 0.5},
        {"optimizer": "sgd"},
        {"schedule": "step"},
        {"schedule": "cosine"},
        {"schedule": "one_cycle"},
        {"warmup": 0.2},
        {"clip_norm": 0.01},
        {"max_norm": 0.1},
        {"input_dropout": 0.5},
        {"label_smoothing": 0.3},
        {"gradient_noise": 0.1},
    ],
)
def test_every_parameter_has_an_effect(preparer: Preparer, change: dict[str, Any]) -> None:
    assert history(preparer, run_input(epochs=1, **change)) != history(
        preparer, run_input(epochs=1)
    )


def test_images_are_augmented_by_the_task_of_images_alone(preparer: Preparer) -> None:
    kinds = get_args(Augmentation)
    digits = {"name": "cnn", "dataset": "digits", "channels": [3, 4], "hidden": []}
    plain = run_of(digits, "validation_loss", epochs=1)
    changed = replace(plain, config={**plain.config, **dict.fromkeys(kinds, 0.3)})
    assert preparer.prepare(plain).config.augmentations == ()
    assert preparer.prepare(changed).config.augmentations == kinds
    assert history(preparer, changed) != history(preparer, plain)
    for name in ("mlp", "linear"):
        task = task_of(settings_of({"name": name, "dataset": "digits"}))
        assert task.parameters is not None
        assert not {*kinds} & {*task.parameters}


def test_labels_are_smoothed_where_targets_are_classes() -> None:
    spec = {
        "name": "x",
        "task": {"name": "linear", "dataset": "diabetes"},
        "space": {"label_smoothing": {"type": "float", "low": 0, "high": 0.2}},
        "sampler": {"name": "random"},
        "objective": {"metric": "validation_r2", "direction": "maximize"},
        "budget": {"trials": 1, "epochs": 1},
    }
    parsed, diabetes = parse_spec(spec), load("diabetes", None)
    task = task_of(parsed.task)
    assert isinstance(task, EngineTask)
    problems = task.data_problems(parsed.task, parsed, diabetes.features, diabetes.targets)
    reason = "is for classes, but the targets are numbers"
    assert [*problems] == [("space.label_smoothing", reason)]


def test_momentum_is_that_of_the_configuration(preparer: Preparer) -> None:
    def trained(**config: Any) -> list[dict[str, float]]:
        return history(preparer, run_input(optimizer="sgd", **config))

    plain, heavy, nesterov = (
        trained(momentum=0.0),
        trained(momentum=0.9),
        trained(momentum=0.9, nesterov=True),
    )
    assert plain != heavy != nesterov != plain
    # A search over both meets this pair.
    assert trained(momentum=0.0, nesterov=True) == plain


def test_penalty_conventions_reach_the_engine(preparer: Preparer) -> None:
    run = run_input(l1=0.02, learning_rate=0.2, optimizer="sgd", momentum=0.0)
    results = [
        history(preparer, replace(run, penalty=penalty))[-1]
        for penalty in (
            Penalty(),
            Penalty(penalize="all"),
            Penalty(lambda_convention="half_per_sample"),
            Penalty(l1_update="proximal"),
        )
    ]
    assert len({result["weight_norm"] for result in results}) == 4
    plain, _, weak, proximal = (result["near_zero_share"] for result in results)
    assert proximal > 2 * plain
    assert weak < plain


def test_model_settings_reach_the_engine(preparer: Preparer) -> None:
    run = run_input(epochs=1)
    changes: list[dict[str, Any]] = [
        {},
        {"hidden": ()},
        {"hidden": (16, 16)},
        {"activation": "tanh"},
        {"batch_norm": True},
        {"split": Split(seed=1)},
    ]
    results = [
        history(preparer, replace(run, task=run.task.model_copy(update=change)))[-1]["train_loss"]
        for change in changes
    ]
    assert len(set(results)) == len(changes)


def test_early_stopping_keeps_the_best_epoch(preparer: Preparer) -> None:
    run = begin(
        preparer,
        replace(
            run_input(epochs=60, learning_rate=0.02),
            objective=Objective(metric="validation_loss", direction="minimize"),
            early_stopping=EarlyStopping(patience=3),
        ),
    )
    losses = [report.metrics["validation_loss"] for report in run.epochs()]
    outcome = run.outcome()
    assert outcome.state == "complete"
    assert len(losses) < 60
    assert outcome.kept_epoch == int(np.argmin(losses)) + 1 == len(losses) - 3
    assert outcome.value == min(losses)


def test_divergence_is_an_outcome(preparer: Preparer) -> None:
    run = begin(preparer, run_input(optimizer="sgd", learning_rate=1e10, epochs=5))
    assert len(list(run.epochs())) < 5
    assert run.outcome().state == "diverged"
    assert run.outcome().value is None
    assert run.outcome().metrics == {}


def test_a_run_can_be_left_early(preparer: Preparer) -> None:
    run = begin(preparer, run_input(epochs=5))
    next(run.epochs())
    assert run.outcome().state == "stopped"
    assert run.outcome().kept_epoch == 1


def test_folders_of_the_data_root_are_trained_on(tmp_path: Path) -> None:
    write_folder(tmp_path / "toy")
    wanted = run_input("toy", epochs=30, batch_size=16, learning_rate=0.02)
    run = begin(Preparer(tmp_path, open_device("cpu:0")), wanted)
    assert list(run.epochs())[-1].metrics["validation_accuracy"] == 1
    assert run.outcome().metrics["test_accuracy"] > 0.9


@needs_real_data
def test_real_mnist() -> None:
    preparer = Preparer(real_root(), open_device("cpu:0"))
    run = begin(preparer, run_input("mnist", epochs=2, batch_size=256))
    assert list(run.epochs())[-1].metrics["validation_accuracy"] > 0.93
    assert run.outcome().metrics["test_accuracy"] > 0.93


def test_other_data_than_the_study_has_are_refused(preparer: Preparer) -> None:
    right = load("digits", None).fingerprint
    preparer.prepare(replace(run_input(epochs=1), data_fingerprint=right))
    with pytest.raises(DatasetError, match=rf"not the one the study .*{right}.*{'0' * 64}"):
        preparer.prepare(replace(run_input(), data_fingerprint="0" * 64))


def test_files_replaced_while_the_worker_runs_are_read_again(tmp_path: Path) -> None:
    write_folder(tmp_path / "toy")
    preparer = Preparer(tmp_path, open_device("cpu:0"))
    before = load("toy", tmp_path).fingerprint
    preparer.prepare(replace(run_input("toy"), data_fingerprint=before))
    images, _ = toy_arrays(seed=7)
    write(tmp_path / "toy" / "train-images-idx3-ubyte", encode(images))
    after = load("toy", tmp_path).fingerprint
    assert after != before
    preparer.prepare(replace(run_input("toy"), data_fingerprint=after))
    with pytest.raises(DatasetError, match="not the one"):
        preparer.prepare(replace(run_input("toy"), data_fingerprint=before))


def test_the_most_recent_data_stay_prepared(
    preparer: Preparer, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []

    def counted(name: str, data_root: Path | None, reading: Reading) -> Dataset:
        loaded.append(name)
        return load(name, data_root, reading)

    monkeypatch.setattr(training, "load", counted)

    def start(seed: int) -> int:
        """How many data sets are prepared for a run on the split of this seed."""
        loaded.clear()
        run = run_input()
        preparer.prepare(replace(run, task=run.task.model_copy(update={"split": Split(seed=seed)})))
        return len(loaded)

    assert [start(seed) for seed in (0, 1, 2, 3)] == [1, 1, 1, 1]
    assert [start(seed) for seed in (3, 1, 2, 0)] == [0, 0, 0, 0]
    assert start(4) == 1
    assert [start(seed) for seed in (0, 1, 2, 4)] == [0, 0, 0, 0]
    assert start(3) == 1


def test_configurations_must_be_complete(preparer: Preparer) -> None:
    run = run_input()
    without = {name: value for name, value in run.config.items() if name != "momentum"}
    with pytest.raises(ValueError, match="lacks momentum"):
        preparer.prepare(replace(run, config=without))
    with pytest.raises(ValueError, match="must not have temperature"):
        preparer.prepare(replace(run, config={**run.config, "temperature": 1.0}))
    with pytest.raises(ValueError, match="dropout must be below"):
        preparer.prepare(replace(run, config={**run.config, "dropout": 1.0}))


@pytest.mark.parametrize("name", ["cpu", "cpu:1", "cuda:99", "tpu:0", ""])
def test_devices_that_are_not_there_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="there is no device"):
        open_device(name)


def test_the_calling_thread_leaves_the_cores_to_the_packs() -> None:
    torch.set_num_threads(2)
    open_device("cpu:0")
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_data_that_do_not_fit_are_a_memory_error(
    preparer: Preparer, monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("ridgeline.search.engine.DeviceData.from_arrays", fail)
    with pytest.raises(MemoryError, match="memory"):
        preparer.prepare(run_input())


def test_other_errors_of_torch_stay_as_they_are(
    preparer: Preparer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr("ridgeline.search.engine.DeviceData.from_arrays", fail)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        preparer.prepare(run_input())


def test_runs_beside_others_come_to_what_they_come_to_alone() -> None:
    device = open_device("cpu:0")
    lanes, preparer = engine.Lanes(device, engine.LaneOptions(width=4)), Preparer(None, device)
    runs = {f"run {n}": run_input(epochs=1 + n % 3, learning_rate=0.001 * 2**n) for n in range(9)}
    for key, run in runs.items():
        lanes.add(key, *preparer.prepare(run))
    ended = {}
    while not lanes.is_idle:
        for event in lanes.advance():
            if isinstance(event, engine.Began):
                assert engine.ProgramIdentity.parse(event.program).width == 4
            if isinstance(event, engine.Over):
                ended[event.key] = event.outcome
    assert ended.keys() == runs.keys()
    for key, run in runs.items():
        alone = engine.TrainingRun(*preparer.prepare(run), width=4)
        list(alone.epochs())
        assert alone.outcome().metrics == ended[key].metrics
        assert alone.outcome().value == ended[key].value


def test_the_module_imports_no_torch() -> None:
    module = "ridgeline.search.tasks.training"
    code = f"import sys, {module}; print({{'sklearn', 'torch'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
