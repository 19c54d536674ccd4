"""What a study may search, what it may set as a default, and what the engine takes, are one."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from pydantic import ValidationError

from ridgeline.search.engine.config import RunConfig
from ridgeline.search.engine.losses import LOSSES, epoch_metrics
from ridgeline.search.engine.models.base import Activation
from ridgeline.search.fields import SpecPart
from ridgeline.search.objective import Objective, Penalty
from ridgeline.search.space import ValuesParameter
from ridgeline.search.tasks.domain import Domain
from ridgeline.search.tasks.kinds import Classes, Numbers
from ridgeline.search.tasks.mlp import MlpSettings
from ridgeline.search.tasks.model_task import LOSS, METRICS, ModelTask
from ridgeline.search.tasks.parameters import Stepping, parameters_of
from ridgeline.search.tasks.registry import BUILT_IN

TASKS: dict[str, ModelTask[Any]] = {
    task.name: task for task in BUILT_IN if isinstance(task, ModelTask)
}
PROBES: dict[str, list[Any]] = {
    "float": [-1.0, -1e-9, 0.0, 1e-9, 0.5, 1 - 1e-9, 1.0, 2.0, 1e12, 1.001e12],
    "int": [-1, 0, 1, 2, 65_536, 65_537, 100_000, 100_001],
    "flag": [True, False],
    "choice": ["no such thing"],
}
LEAST: dict[str, Any] = {"seed": 0, "learning_rate": 0.1, "batch_size": 1, "epochs": 1}


def defaults_of(task: ModelTask[Any]) -> type[SpecPart]:
    found = task.settings.model_fields["defaults"].annotation
    assert isinstance(found, type)
    assert issubclass(found, SpecPart)
    return found


def probes() -> list[tuple[str, str, Any]]:
    return [
        (task.name, name, value)
        for task in TASKS.values()
        for name, domain in task.parameters.items()
        for value in [*PROBES[domain.kind], *domain.choices]
    ]


def is_trained(**settings: Any) -> bool:
    try:
        RunConfig(**{**LEAST, **settings})
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(("task", "name", "value"), probes())
def test_what_may_be_searched_may_be_a_default_and_is_trained(
    task: str, name: str, value: Any
) -> None:
    domain = TASKS[task].parameters[name]
    allowed = domain.problem(ValuesParameter(type="values", values=(value,))) is None
    if name != "epochs":
        try:
            defaults_of(TASKS[task])(**{name: value})
        except ValidationError:
            assert not allowed
        else:
            assert allowed
    if domain.kind in ("float", "int") and value > domain.high:
        return  # of large numbers the engine leaves the limit to the service
    assert is_trained(**{name: value}) == allowed


@pytest.mark.parametrize("task", TASKS)
def test_all_choices_are_offered(task: str) -> None:
    choices = {name: d for name, d in TASKS[task].parameters.items() if d.kind == "choice"}
    assert choices
    for name, domain in choices.items():
        default = defaults_of(TASKS[task]).model_fields[name].annotation
        assert get_origin(default) is Literal
        assert get_args(default) == domain.choices
        assert all(is_trained(**{name: choice}) for choice in domain.choices)


@pytest.mark.parametrize("task", TASKS)
def test_parameters_are_those_of_the_defaults(task: str) -> None:
    defaults = defaults_of(TASKS[task])
    assert list(TASKS[task].parameters) == [*defaults.model_fields, "epochs"]
    assert TASKS[task].defaults(None) == defaults().model_dump()


def test_a_group_of_parameters_can_be_added() -> None:
    class Smoothing(SpecPart):
        label_smoothing: Annotated[
            float,
            Domain("float", "share", low=0, high=1, open_high=True, targets=frozenset({"classes"})),
        ] = 0.0
        mode: Annotated[Literal["even", "prior"], Domain("choice", "how")] = "even"

    class Defaults(Smoothing, Stepping):
        pass

    parameters = parameters_of(Defaults)
    assert list(parameters) == ["learning_rate", "batch_size", "label_smoothing", "mode", "epochs"]
    assert parameters["mode"].choices == ("even", "prior")
    with pytest.raises(ValidationError):
        Defaults(label_smoothing=1.0)
    assert parameters["label_smoothing"].misfit(Classes(3)) is None
    assert parameters["learning_rate"].misfit(Numbers(1)) is None
    reason = parameters["label_smoothing"].misfit(Numbers(1))
    assert reason == "is for classes, but the targets are numbers"


def test_activations_are_those_of_the_engine() -> None:
    offered = get_args(MlpSettings.model_fields["activation"].annotation)
    assert offered == get_args(Activation)


@pytest.mark.parametrize("name", Penalty.model_fields)
def test_conventions_of_penalties_are_those_of_the_engine(name: str) -> None:
    choices = get_args(Penalty.model_fields[name].annotation)
    assert choices
    assert all(is_trained(**{name: choice}) for choice in choices)
    assert not is_trained(**{name: "other"})


@pytest.mark.parametrize("kind", METRICS)
def test_metrics_are_those_of_the_engine(kind: Any) -> None:
    loss = LOSSES[LOSS[kind]]
    assert loss.targets == kind
    told = {f"validation_{name}": direction for name, direction in loss.metrics}
    asked = {f"validation_{metric.name}": metric.direction for metric in loss.output_metrics}
    assert told | asked == METRICS[kind]
    assert set(told) < set(epoch_metrics(loss))
    assert set(asked).isdisjoint(epoch_metrics(loss))
    for metric, direction in METRICS[kind].items():
        objective = Objective.model_validate({"metric": metric, "direction": direction})
        assert is_trained(monitor=objective.metric, direction=objective.direction)
        assert not is_trained(monitor=metric.replace("validation", "test"), direction=direction)
