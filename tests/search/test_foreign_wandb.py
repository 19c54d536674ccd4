"""Sweeps of Weights & Biases as specs: what is taken over, and what is told instead."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ridgeline.search.foreign.draft import Refused
from ridgeline.search.foreign.wandb import of_wandb
from ridgeline.search.ranges import FloatParameter
from ridgeline.search.spec import parse_spec

SWEEP: dict[str, Any] = {
    "name": "cifar-resnet",
    "description": "learning rate and regularisation of a ResNet",
    "method": "bayes",
    "metric": {"name": "val/loss", "goal": "minimize"},
    "run_cap": 60,
    "early_terminate": {"type": "hyperband", "max_iter": 27, "s": 2, "eta": 3},
    "parameters": {
        "learning_rate": {"distribution": "log_uniform_values", "min": 1e-5, "max": 0.1},
        "weight_decay": {"distribution": "log_uniform", "min": -11.5, "max": -2.5},
        "batch_size": {"values": [32, 64, 128]},
        "dropout": {"min": 0.0, "max": 1.0},
        "depth": {"min": 2, "max": 8},
        "width": {"distribution": "q_uniform", "min": 32, "max": 256, "q": 32},
        "units": {"distribution": "q_log_uniform_values", "min": 4, "max": 512, "q": 1},
        "epochs": {"value": 27},
    },
}
"""Nothing in it lacks a counterpart."""


def with_parameter(**parameter: Any) -> dict[str, Any]:
    return {**SWEEP, "parameters": {"x": parameter}}


def refusal(data: Any) -> tuple[str, str]:
    with pytest.raises(Refused) as caught:
        of_wandb(data, "sweep").spec()
    ((field, reason),) = caught.value.problems
    return field, reason


def test_a_sweep_is_taken_over() -> None:
    draft = of_wandb(SWEEP, "sweep")
    spec = parse_spec(draft.spec())
    assert draft.notes == []
    assert draft.spec() == {
        "name": "cifar-resnet",
        "task": {
            "name": "external",
            "description": "learning rate and regularisation of a ResNet",
        },
        "space": {
            "learning_rate": {"type": "float", "low": 1e-5, "high": 0.1, "log": True},
            "weight_decay": {
                "type": "float",
                "low": pytest.approx(math.exp(-11.5)),
                "high": pytest.approx(math.exp(-2.5)),
                "log": True,
            },
            "batch_size": {"type": "values", "values": [32, 64, 128]},
            "dropout": {"type": "float", "low": 0.0, "high": 1.0},
            "depth": {"type": "int", "low": 2, "high": 8},
            "width": {"type": "int", "low": 32, "high": 256, "step": 32},
            "units": {"type": "int", "low": 4, "high": 512, "log": True},
            "epochs": {"type": "values", "values": [27]},
        },
        "sampler": {"name": "auto"},
        "objective": {"metric": "val/loss", "direction": "minimize"},
        "budget": {"trials": 60},
        "pruner": {"name": "halving", "eta": 3, "min_epochs": 3},
    }
    assert isinstance(spec.space["dropout"], FloatParameter)


@pytest.mark.parametrize(
    ("method", "sampler"), [("grid", "grid"), ("random", "random"), ("bayes", "auto")]
)
def test_a_method_is_a_sampler(method: str, sampler: str) -> None:
    spec = parse_spec(of_wandb({**with_parameter(values=[1, 2]), "method": method}, "s").spec())
    assert spec.sampler.name == sampler
    assert spec.budget.trials == (None if method == "grid" else 60)


NOTES: list[tuple[dict[str, Any], str, str]] = [
    ({"program": "train.py"}, "program", "your own program trains"),
    ({"command": ["python"]}, "command", "your own program trains"),
    ({"project": "p"}, "project", "in no project"),
    ({"entity": "e"}, "entity", "belong to no team"),
    ({"controller": {"type": "local"}}, "controller", "no counterpart"),
    ({"name": "a b"}, "name", "a-b"),
    ({"run_cap": 10**6}, "run_cap", "100000 trials at most"),
    ({"metric": {"name": "l", "target": 0.1}}, "metric.target", "no study ends at a value"),
    ({"metric": None}, "metric", "is missing"),
    ({"early_terminate": {"type": "other"}}, "early_terminate.type", "only hyperband"),
    (
        {"early_terminate": {"type": "hyperband", "min_iter": 2, "max_iter": 9}},
        "early_terminate.max_iter",
        "rungs begin at min_iter",
    ),
    (
        {"early_terminate": {"type": "hyperband", "min_iter": 2, "strict": True}},
        "early_terminate.strict",
        "halving",
    ),
    (
        with_parameter(distribution="q_log_uniform_values", min=1e-4, max=0.1, q=1e-4),
        "parameters.x.distribution q_log_uniform_values",
        "has no step on a log range here; the step is left out",
    ),
    (
        with_parameter(distribution="q_uniform", min=0, max=1, q=1e-9),
        "parameters.x.distribution q_uniform",
        "step is too small",
    ),
    (
        with_parameter(distribution="q_uniform", min=0, max=1, q=5e-324),
        "parameters.x.distribution q_uniform",
        "step is too small",
    ),
    (
        with_parameter(distribution="normal", mu=1, sigma=0.5),
        "parameters.x.distribution normal",
        "it is uniform within 2 sigma of mu",
    ),
    (
        with_parameter(distribution="q_log_normal", mu=0, sigma=1, q=0.5),
        "parameters.x.distribution q_log_normal",
        "it is log-uniform within 2 sigma of mu",
    ),
    (
        with_parameter(values=["a", "b"], probabilities=[0.9, 0.1]),
        "parameters.x.probabilities",
        "equally likely",
    ),
    (with_parameter(values=[[64], [64, 64]]), "parameters.x.values.1", "is the text [64, 64]"),
    (with_parameter(values=[1, None]), "parameters.x.values.1", "is the text null"),
    (with_parameter(values=[1, True]), "parameters.x.values.1", "stands there before"),
    (with_parameter(min=0, max=1, extra=1), "parameters.x.extra", "no counterpart"),
    ({"parameters": {"o": {"parameters": {"lr": {"value": 1}}}}}, "parameters.o.parameters", "o."),
    ({"parameters": {"--lr": {"min": 0, "max": 2}}}, "parameters.--lr.distribution", "it is lr"),
    (
        {**with_parameter(min=0.0, max=0.5), "method": "grid"},
        "space.x.points",
        "a grid needs points",
    ),
]


@pytest.mark.parametrize(("changes", "field", "part"), NOTES)
def test_what_has_no_counterpart_is_told(changes: dict[str, Any], field: str, part: str) -> None:
    draft = of_wandb({**SWEEP, **changes}, "sweep")
    parse_spec(draft.spec())
    told = [what for at, what in draft.notes if at.startswith(field)]
    assert any(part in what for what in told), draft.notes


def test_a_sweep_without_an_end_gets_one() -> None:
    sweep = {key: value for key, value in SWEEP.items() if key != "run_cap"}
    draft = of_wandb(sweep, "sweep")
    assert draft.spec()["budget"] == {"trials": 100}
    assert [at for at, _ in draft.notes] == ["budget.trials"]


def test_a_large_grid_is_cut_off() -> None:
    parameters = {f"p{n}": {"values": list(range(100))} for n in range(3)}
    sweep = {"method": "grid", "metric": SWEEP["metric"], "parameters": parameters}
    draft = of_wandb(sweep, "sweep")
    assert parse_spec(draft.spec()).budget.trials == 100_000
    assert [at for at, _ in draft.notes] == ["budget.trials"]


def test_names_that_come_to_the_same_are_kept_apart() -> None:
    parameters = {"a b": {"value": 1}, "a/b": {"value": 2}, "1": {"value": 3}}
    assert list(of_wandb({**SWEEP, "parameters": parameters}, "s").space) == ["a_b", "a_b_2", "p"]


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ([], ""),
        ({**SWEEP, "method": "tpe"}, "method"),
        ({**SWEEP, "method": ["grid"]}, "method"),
        ({**SWEEP, "name": 5}, "name"),
        ({**SWEEP, "description": "\ud800"}, "description"),
        ({**SWEEP, "description": "x" * 2_001}, "description"),
        ({**SWEEP, "metric": "loss"}, "metric"),
        ({**SWEEP, "metric": {"name": ""}}, "metric.name"),
        ({**SWEEP, "metric": {"name": "a", "goal": []}}, "metric.goal"),
        ({**SWEEP, "run_cap": "many"}, "run_cap"),
        ({**SWEEP, "run_cap": 0}, "run_cap"),
        ({**SWEEP, "run_cap": 1.5}, "run_cap"),
        ({**SWEEP, "run_cap": math.inf}, "run_cap"),
        ({**SWEEP, "early_terminate": {"type": "hyperband"}}, "early_terminate"),
        ({**SWEEP, "early_terminate": {"type": "hyperband", "eta": 1}}, "early_terminate.eta"),
        (
            {**SWEEP, "early_terminate": {"type": "hyperband", "min_iter": 10**6}},
            "early_terminate",
        ),
        ({**SWEEP, "parameters": None}, "parameters"),
        ({**SWEEP, "parameters": {}}, ""),
        ({**SWEEP, "parameters": {"x": 3}}, "parameters.x"),
        (with_parameter(), "parameters.x"),
        (with_parameter(min=1), "parameters.x"),
        (with_parameter(values=3), "parameters.x.values"),
        (with_parameter(values=[]), "parameters.x.values"),
        (with_parameter(values=["x" * 500]), "parameters.x.values.0"),
        (with_parameter(value=math.nan), "parameters.x.value.0"),
        (with_parameter(value=2**70), "parameters.x.value.0"),
        (with_parameter(min="0,1", max=1), "parameters.x.min"),
        (with_parameter(min=True, max=2.0), "parameters.x.min"),
        (with_parameter(min=0, max=2**70), "parameters.x.max"),
        (with_parameter(distribution="beta", a=1), "parameters.x.distribution"),
        (with_parameter(distribution="normal", sigma=0), "parameters.x.sigma"),
        (with_parameter(distribution="q_uniform", min=0, max=1, q=0), "parameters.x.q"),
        (with_parameter(distribution="log_uniform", min=0, max=5_000), "parameters.x.max"),
        (with_parameter(distribution="int_uniform", min=0.5, max=5), "parameters.x.min"),
        (
            with_parameter(distribution="log_uniform_values", min=0, max=5),
            "parameters.x.distribution log_uniform_values",
        ),
        (with_parameter(min=5, max=2), "parameters.x.distribution int_uniform"),
    ],
)
def test_what_is_no_sweep_is_refused_by_its_field(data: Any, field: str) -> None:
    assert refusal(data)[0] == field
