"""Which ranges of a space a task accepts."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ridgeline.search.space import Space
from ridgeline.search.tasks.domain import Domain
from ridgeline.search.tasks.mlp import MlpTask


@pytest.mark.parametrize(
    ("name", "parameter", "reason"),
    [
        ("learning_rate", {"type": "float", "low": 1e-4, "high": 1, "log": True}, None),
        ("learning_rate", {"type": "float", "low": 0, "high": 1}, "0 must be above 0"),
        ("learning_rate", {"type": "float", "low": 0.1, "high": 1, "zero": True}, "above 0"),
        ("learning_rate", {"type": "values", "values": [0.1, 1]}, None),
        ("learning_rate", {"type": "values", "values": ["fast"]}, "'fast' is not a number"),
        ("learning_rate", {"type": "values", "values": [True]}, "True is not a number"),
        ("l1", {"type": "float", "low": 1e-6, "high": 1, "zero": True, "log": True}, None),
        ("l1", {"type": "float", "low": -1, "high": 1}, "-1 must be at least 0"),
        ("l2", {"type": "float", "low": 0, "high": 1e13}, "must be at most 1000000000000"),
        ("dropout", {"type": "float", "low": 0, "high": 1}, "1 must be below 1"),
        ("dropout", {"type": "float", "low": 0, "high": 0.9}, None),
        ("batch_size", {"type": "values", "values": [16, 64]}, None),
        ("batch_size", {"type": "int", "low": 16, "high": 64}, "must be a finite list"),
        ("batch_size", {"type": "values", "values": [0, 64]}, "0 must be at least 1"),
        ("batch_size", {"type": "values", "values": [16.5]}, "16.5 is not a whole number"),
        ("epochs", {"type": "int", "low": 1, "high": 50}, None),
        ("epochs", {"type": "float", "low": 1, "high": 50}, 'use "type": "int"'),
        ("optimizer", {"type": "values", "values": ["sgd", "adam"]}, None),
        ("optimizer", {"type": "values", "values": ["lion"]}, "'lion' is not one of sgd"),
        ("optimizer", {"type": "int", "low": 0, "high": 2}, "must be a finite list"),
        ("schedule", {"type": "values", "values": ["constant", "cosine"]}, None),
        ("schedule", {"type": "values", "values": ["linear"]}, "'linear' is not one of constant"),
        ("nesterov", {"type": "values", "values": [True, False]}, None),
        ("nesterov", {"type": "values", "values": [True]}, None),
        ("nesterov", {"type": "values", "values": [0, 1]}, "0 is not true or false"),
        ("nesterov", {"type": "values", "values": ["true"]}, "'true' is not true or false"),
        ("nesterov", {"type": "int", "low": 0, "high": 1}, "must be a finite list"),
        ("warmup", {"type": "float", "low": 0, "high": 0.3}, None),
        ("warmup", {"type": "float", "low": 0, "high": 1}, "1 must be below 1"),
        ("clip_norm", {"type": "float", "low": 0.1, "high": 10, "log": True, "zero": True}, None),
        ("clip_norm", {"type": "float", "low": -1, "high": 1}, "-1 must be at least 0"),
        ("max_norm", {"type": "values", "values": [0, 2, 4]}, None),
        ("input_dropout", {"type": "float", "low": 0, "high": 1}, "1 must be below 1"),
    ],
)
def test_ranges(name: str, parameter: dict[str, Any], reason: str | None) -> None:
    problem = MlpTask.parameters[name].problem(Space.model_validate({name: parameter})[name])
    if reason is None:
        assert problem is None
    else:
        assert problem is not None
        assert reason in problem


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"kind": "real"}, "kind is 'real', not one of float, int, choice, flag"),
        ({"kind": "choice", "choices": "ab"}, "choices are 'ab', a text: give a tuple of texts"),
        ({"kind": "choice", "choices": (1, 2)}, "choices has 1, which is not a text"),
        ({"kind": "int", "choices": ("a",)}, 'choices are for the kind "choice", not for "int"'),
        ({"kind": "float", "low": "1"}, "low is '1', not a number"),
        ({"kind": "float", "high": float("nan")}, "high is nan, not a number"),
        ({"kind": "int", "low": 2, "high": 1}, "nothing lies between low, 2, and high, 1"),
        ({"kind": "float", "low": 1, "high": 1, "open_low": True}, "nothing lies between low, 1,"),
    ],
)
def test_what_is_no_domain_is_refused(arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}"):
        Domain(description="of a test", **arguments)


def test_choices_may_be_a_list() -> None:
    choices: Any = ["a", "b"]
    assert Domain("choice", "of a test", choices=choices).choices == ("a", "b")
