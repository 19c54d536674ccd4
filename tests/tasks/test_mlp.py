"""What a study may search, what it may set as a default, and what the engine takes, are one."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import ValidationError

from ridgeline.search.engine.config import RunConfig
from ridgeline.search.engine.models.mlp import Activation
from ridgeline.search.objective import Objective, Penalty
from ridgeline.search.space import ValuesParameter
from ridgeline.search.tasks.mlp import MlpDefaults, MlpSettings, MlpTask

PROBES: dict[str, list[Any]] = {
    "float": [-1.0, -1e-9, 0.0, 1e-9, 0.5, 1 - 1e-9, 1.0, 2.0, 1e12, 1.001e12],
    "int": [-1, 0, 1, 2, 65_536, 65_537, 100_000, 100_001],
    "flag": [True, False],
    "choice": ["no such thing"],
}
LEAST: dict[str, Any] = {"seed": 0, "learning_rate": 0.1, "batch_size": 1, "epochs": 1}


def probes() -> list[tuple[str, Any]]:
    return [
        (name, value)
        for name, domain in MlpTask.parameters.items()
        for value in [*PROBES[domain.kind], *domain.choices]
    ]


def may_be_searched(name: str, value: Any) -> bool:
    parameter = ValuesParameter(type="values", values=(value,))
    return MlpTask.parameters[name].problem(parameter) is None


def is_trained(**settings: Any) -> bool:
    try:
        RunConfig(**{**LEAST, **settings})
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(("name", "value"), probes())
def test_what_may_be_searched_may_be_a_default_and_is_trained(name: str, value: Any) -> None:
    allowed = may_be_searched(name, value)
    if name != "epochs":
        try:
            MlpDefaults(**{name: value})
        except ValidationError:
            assert not allowed
        else:
            assert allowed
    domain = MlpTask.parameters[name]
    if domain.kind in ("float", "int") and value > domain.high:
        return  # of large numbers the engine leaves the limit to the service
    assert is_trained(**{name: value}) == allowed


@pytest.mark.parametrize("name", [n for n, d in MlpTask.parameters.items() if d.kind == "choice"])
def test_all_choices_are_offered(name: str) -> None:
    default = MlpDefaults.model_fields[name].annotation
    assert get_origin(default) is Literal
    assert get_args(default) == MlpTask.parameters[name].choices
    assert all(is_trained(**{name: choice}) for choice in get_args(default))


def test_activations_are_those_of_the_engine() -> None:
    offered = get_args(MlpSettings.model_fields["activation"].annotation)
    assert offered == get_args(Activation)


@pytest.mark.parametrize("name", Penalty.model_fields)
def test_conventions_of_penalties_are_those_of_the_engine(name: str) -> None:
    choices = get_args(Penalty.model_fields[name].annotation)
    assert choices
    assert all(is_trained(**{name: choice}) for choice in choices)
    assert not is_trained(**{name: "other"})


@pytest.mark.parametrize(("metric", "direction"), MlpTask.metrics.items())
def test_metrics_are_those_of_the_engine(metric: str, direction: str) -> None:
    objective = Objective.model_validate({"metric": metric, "direction": direction})
    assert is_trained(monitor=objective.metric, direction=objective.direction)
    assert not is_trained(monitor="test_accuracy", direction=direction)
