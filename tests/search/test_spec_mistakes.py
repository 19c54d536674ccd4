"""Every mistake in a spec is told by the field it is in."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from ridgeline.search.fields import MAX_INT
from ridgeline.search.objective import MAX_TRIALS
from tests.search.specs import ABSENT, BASE, EXTERNAL, FULL, changed, problems_of

_NOT_WHOLE: tuple[object, ...] = (True, "5", 5.0, 5.5, [5], {}, MAX_INT + 1, 10**400)
_NOT_REAL: tuple[object, ...] = (True, "0.5", "1e-5", [0.5], {}, math.nan, math.inf, 10**400)
_NOT_TEXT: tuple[object, ...] = (True, 5, ["a"], {}, "", "a\0", "\ud800")


def _each(paths: str, *values: object) -> list[tuple[str, object]]:
    return [(path, value) for path in paths.split() for value in values]


WRONG = [
    *_each("sampler.seed budget.epochs replicates priority task.split.seed", *_NOT_WHOLE, None),
    *_each("early_stopping.patience task.defaults.batch_size", *_NOT_WHOLE, None),
    *_each("space.epochs.low space.epochs.high", *_NOT_WHOLE, None),
    *_each("budget.trials budget.max_parallel space.epochs.points", *_NOT_WHOLE),
    *_each("space.epochs.step", *_NOT_WHOLE, 0, -1),
    *_each("early_stopping.min_delta task.split.validation task.split.test", *_NOT_REAL, None),
    *_each("task.defaults.learning_rate task.defaults.l1 task.defaults.l2", *_NOT_REAL, None),
    *_each("task.defaults.weight_decay task.defaults.dropout", *_NOT_REAL, None),
    *_each("task.defaults.momentum task.defaults.warmup", *_NOT_REAL, None),
    *_each("task.defaults.clip_norm", *_NOT_REAL, None),
    *_each("task.defaults.max_norm task.defaults.input_dropout", *_NOT_REAL, None),
    *_each("task.defaults.label_smoothing task.defaults.gradient_noise", *_NOT_REAL, None),
    *_each("space.learning_rate.low space.learning_rate.high", *_NOT_REAL, None),
    *_each("budget.seconds budget.run_seconds space.learning_rate.step", *_NOT_REAL),
    *_each("reproducible task.batch_norm space.learning_rate.log", 1, 0, "true", None, []),
    *_each("space.epochs.log space.learning_rate.zero", 1, 0, "yes", None, []),
    *_each("task.defaults.nesterov", 1, 0, "yes", None, []),
    *_each("sampler.name objective.direction task.name task.activation", *_NOT_TEXT, "other"),
    *_each("penalty.penalize penalty.lambda_convention penalty.l1_update", *_NOT_TEXT, "other"),
    *_each("task.defaults.optimizer space.learning_rate.type", *_NOT_TEXT, "other"),
    *_each("task.defaults.schedule", *_NOT_TEXT, "other"),
    *_each("name task.dataset objective.metric", *_NOT_TEXT, None, "../x", "a/b", "a b", "é"),
    *_each("name task.dataset objective.metric", "-a", "a\n", "a" * 129),
    *_each("objective.metric", "test_accuracy"),
    *_each("space task sampler objective budget penalty", None, 5, "a", [], [{}], True),
    *_each("warm_start", None, 5, "a", {}, True, ["a", "b", "c", "d", "e", "f"]),
    *_each("early_stopping pruner", 5, "a", [], True),
    *_each("space.learning_rate", None, 5, "a", [], True),
    *_each("space.batch_size.values", None, 5, "ab", {}, {"a": 1}, []),
    *_each("task.hidden", None, 5, "ab", {}, [64] * 33),
    *_each("task.class_weights", 5, "evenly", {}, True, [], [1.0]),
]

MEDIAN = changed(FULL, "pruner", {"name": "median", "startup": 5, "warmup_epochs": 2})
HYPERBAND = changed(FULL, "pruner", {"name": "hyperband", "eta": 3, "brackets": 3})
CURVE = changed(FULL, "pruner", {"name": "curve", "eta": 3, "min_epochs": 2})
HALVING = changed(FULL, "pruner", {"name": "halving", "eta": 3, "min_epochs": 2})

OUT_OF_RANGE: list[tuple[str, object]] = [
    ("sampler.seed", -1),
    ("budget.trials", 0),
    ("budget.trials", MAX_TRIALS + 1),
    ("budget.epochs", 0),
    ("budget.epochs", 100_001),
    ("budget.seconds", 0),
    ("budget.seconds", 31_536_001),
    ("budget.run_seconds", 0),
    ("budget.run_seconds", 31_536_001),
    ("budget.max_parallel", 0),
    ("budget.max_parallel", 10_001),
    ("replicates", 0),
    ("replicates", 101),
    ("priority", -1_001),
    ("priority", 1_001),
    ("early_stopping.patience", 0),
    ("early_stopping.min_delta", -0.1),
    ("task.split.validation", 0),
    ("task.split.validation", 0.9),
    ("task.split.test", 1),
    ("task.split.seed", -1),
    ("task.defaults.learning_rate", 0),
    ("task.defaults.batch_size", 0),
    ("task.defaults.l2", -1e-9),
    ("task.defaults.dropout", 1),
    ("task.defaults.momentum", 1),
    ("task.defaults.warmup", 1),
    ("task.defaults.warmup", -0.1),
    ("task.defaults.clip_norm", -0.1),
    ("task.defaults.max_norm", -0.1),
    ("task.defaults.input_dropout", 1),
    ("task.defaults.label_smoothing", 1),
    ("task.defaults.gradient_noise", -0.1),
    ("space.learning_rate.points", 1),
    ("space.learning_rate.points", 1_001),
    ("space.learning_rate.step", 0),
    ("space.learning_rate.step", -0.1),
]


@pytest.mark.parametrize(("path", "value"), [*WRONG, *OUT_OF_RANGE], ids=repr)
def test_a_mistake_is_told_by_its_field(path: str, value: object) -> None:
    (problem,) = problems_of(changed(FULL, path, value))
    field, reason = problem
    assert field == path
    assert reason
    assert not reason.startswith(("Input", "Value", "String", "Tuple"))
    json.dumps(problem, ensure_ascii=False).encode()


@pytest.mark.parametrize("value", [0, -1.0, 1e13, *_NOT_REAL, None], ids=repr)
def test_a_mistake_in_a_list_of_weights_is_told_by_its_place(value: object) -> None:
    ((field, _),) = problems_of(changed(FULL, "task.class_weights", [1.0, value, 2.0]))
    assert field == "task.class_weights.1"


@pytest.mark.parametrize(
    ("base", "path", "value"),
    [
        *((MEDIAN, *case) for case in _each("pruner.startup", *_NOT_WHOLE, None, 0, 100_001)),
        *((MEDIAN, *case) for case in _each("pruner.warmup_epochs", *_NOT_WHOLE, -1, 50, 100_001)),
        *((MEDIAN, *case) for case in _each("pruner.eta pruner.min_epochs", 3)),
        *((HALVING, *case) for case in _each("pruner.eta", *_NOT_WHOLE, None, 0, 1, 1_001)),
        *((HALVING, *case) for case in _each("pruner.min_epochs", *_NOT_WHOLE, 0, 50, 100_001)),
        *((HALVING, *case) for case in _each("pruner.startup pruner.lerning_rate", 3)),
        *((HYPERBAND, *case) for case in _each("pruner.brackets", *_NOT_WHOLE, 0, 6, 9)),
        *((CURVE, *case) for case in _each("pruner.eta", *_NOT_WHOLE, 1, 1_001)),
        *((CURVE, *case) for case in _each("pruner.min_epochs", *_NOT_WHOLE, 0, 1, 26, 50)),
        *((CURVE, *case) for case in _each("pruner.brackets pruner.startup", 3)),
        *((HALVING, *case) for case in _each("pruner.name", *_NOT_TEXT, None, "asha")),
    ],
    ids=repr,
)
def test_a_mistake_in_a_pruner_is_told_by_its_field(
    base: dict[str, Any], path: str, value: object
) -> None:
    ((field, reason),) = problems_of(changed(base, path, value))
    assert field == path
    assert not reason.startswith(("Input", "Value", "String", "Tuple"))


@pytest.mark.parametrize(
    "path",
    [
        "name",
        "task",
        "space",
        "task.name",
        "task.dataset",
        "early_stopping.patience",
        "space.learning_rate.type",
        "space.learning_rate.low",
        "space.learning_rate.high",
        "space.batch_size.values",
    ],
)
def test_what_is_missing_is_named(path: str) -> None:
    assert problems_of(changed(FULL, path, ABSENT)) == [(path, "is missing")]


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "task.",
        "task.split.",
        "task.defaults.",
        "sampler.",
        "objective.",
        "budget.",
        "early_stopping.",
        "penalty.",
        "space.learning_rate.",
        "space.epochs.",
        "space.batch_size.",
    ],
)
def test_what_is_no_field_is_named(parent: str) -> None:
    assert problems_of(changed(FULL, f"{parent}lerning_rate", 1)) == [
        (f"{parent}lerning_rate", "is not a field here")
    ]


@pytest.mark.parametrize(
    ("value", "index"),
    [
        ([32, None], 1),
        ([32, [64]], 1),
        ([{}], 0),
        ([math.nan], 0),
        ([32.5, -math.inf], 1),
        ([MAX_INT + 1], 0),
        ([10**400], 0),
        (["a", "b\n"], 1),
        ([" 0.5\n"], 0),
        (["\x7f"], 0),
        (["\ud800"], 0),
        ([""], 0),
        (["a" * 201], 0),
    ],
)
def test_a_bad_value_of_a_list_is_told_once(value: list[object], index: int) -> None:
    ((field, reason),) = problems_of(
        changed(EXTERNAL, "space.p", {"type": "values", "values": value})
    )
    assert field == f"space.p.values.{index}"
    assert reason.startswith("must be true, false, a finite number")


@pytest.mark.parametrize("hidden", [[64, 0], [64, 65_537], [64, True], [64, "64"], [64, 64.0]])
def test_a_bad_width_is_told_by_its_index(hidden: list[object]) -> None:
    ((field, _),) = problems_of(changed(BASE, "task.hidden", hidden))
    assert field == "task.hidden.1"


@pytest.mark.parametrize("name", ["", "9", "a b", "l2\n", "é", "_", "a" * 101, "\ud800"])
def test_a_bad_name_of_a_parameter(name: str) -> None:
    parameter = {"type": "float", "low": 0, "high": 1}
    ((field, reason),) = problems_of(changed(BASE, "space", {name: parameter}))
    assert field.startswith("space.")
    assert reason.startswith("the name must ")
    json.dumps([field, reason], ensure_ascii=False).encode()


@pytest.mark.parametrize("name", ["float", "int", "values", "mlp", "bool"])
def test_a_parameter_named_like_a_type(name: str) -> None:
    data = changed(EXTERNAL, "space", {name: {"type": "float", "low": None, "high": 1}})
    assert [field for field, _ in problems_of(data)] == [f"space.{name}.low"]


def test_all_mistakes_are_told_at_once() -> None:
    data = changed(changed(changed(BASE, "replicates", 0), "budget.trials", "x"), "seed", 1)
    fields = [field for field, _ in problems_of(data)]
    assert sorted(fields) == ["budget.trials", "replicates", "seed"]


@pytest.mark.parametrize("data", [None, [], "x", 5, True])
def test_what_is_no_object_at_all(data: Any) -> None:
    assert problems_of(data) == [("", "must be an object")]


def test_keys_that_are_no_text() -> None:
    (problem,) = problems_of({**BASE, "\ud800": 1})
    json.dumps(problem, ensure_ascii=False).encode()
    assert [field for field, _ in problems_of(changed(BASE, "space", {1: {}}))] != []


# Ranges that contradict themselves


@pytest.mark.parametrize(
    ("parameter", "reason"),
    [
        (
            {"type": "float", "low": 1, "high": 1},
            'low and high are both 1; for one value use {"type": "values", "values": [1]}',
        ),
        (
            {"type": "float", "low": 1_000_001, "high": 1_000_000},
            "low (1000001) must be below high (1000000)",
        ),
        ({"type": "float", "low": 2, "high": 1}, "low (2) must be below high (1)"),
        ({"type": "float", "low": -1e308, "high": 1e308}, "finite"),
        ({"type": "float", "low": 0, "high": 1, "log": True}, "above 0"),
        ({"type": "float", "low": 0, "high": 1, "zero": True}, "low must be above 0"),
        ({"type": "float", "low": 1, "high": 2, "step": 0.1, "log": True}, "exclude each other"),
        ({"type": "float", "low": 1, "high": 2, "step": 0.1, "points": 3}, "leave points out"),
        ({"type": "float", "low": 1, "high": 2, "step": 1.5}, "larger than high - low"),
        ({"type": "float", "low": 1, "high": 2, "step": 1e-9}, "too small"),
        ({"type": "int", "low": 2, "high": 2}, '{"type": "values", "values": [2]}'),
        ({"type": "int", "low": 1, "high": 9, "step": 2, "log": True}, "exclude each other"),
        ({"type": "int", "low": 1, "high": 9, "step": 2, "points": 3}, "leave points out"),
        ({"type": "int", "low": 1, "high": 9, "step": 9}, "larger than high - low"),
        ({"type": "int", "low": 0, "high": 2, "log": True}, "above 0"),
        ({"type": "int", "low": 0, "high": 2, "points": 4}, "must not exceed"),
        ({"type": "values", "values": [1, True]}, "distinct"),
    ],
)
def test_a_range_that_contradicts_itself(parameter: dict[str, Any], reason: str) -> None:
    ((field, told),) = problems_of(changed(EXTERNAL, "space.p", parameter))
    assert field == ("space.p.values" if parameter["type"] == "values" else "space.p")
    assert reason in told


# Sources


def test_the_sources_of_a_warm_start() -> None:
    warm = changed(changed(BASE, "sampler.name", "auto"), "warm_start", ["a", "b", "a"])
    assert problems_of(warm) == [("warm_start.2", "a is named twice")]
    ((field, _),) = problems_of(changed(warm, "warm_start", ["a b"]))
    assert field == "warm_start.0"
    ((field, reason),) = problems_of(changed(BASE, "warm_start", ["a"]))
    assert field == "warm_start"
    assert reason == "the sampler random learns from no trials; leave it out"
