"""Experiments of Katib as specs: what is taken over, and what is told instead."""

from __future__ import annotations

from typing import Any

import pytest

from ridgeline.search.foreign.draft import Refused
from ridgeline.search.foreign.katib import is_katib, of_katib
from ridgeline.search.spec import parse_spec

OBJECTIVE = {"type": "maximize", "objectiveMetricName": "Validation-accuracy"}
SPEC: dict[str, Any] = {
    "objective": OBJECTIVE,
    "algorithm": {
        "algorithmName": "tpe",
        "algorithmSettings": [{"name": "random_state", "value": "7"}],
    },
    "earlyStopping": {
        "algorithmName": "medianstop",
        "algorithmSettings": [
            {"name": "min_trials_required", "value": "4"},
            {"name": "start_step", "value": "5"},
        ],
    },
    "parallelTrialCount": 3,
    "maxTrialCount": 12,
    "parameters": [
        {
            "name": "lr",
            "parameterType": "double",
            "feasibleSpace": {"min": "1e-5", "max": "0.1", "distribution": "logUniform"},
        },
        {
            "name": "momentum",
            "parameterType": "double",
            "feasibleSpace": {"min": "0.5", "max": "0.9", "step": "0.1"},
        },
        {
            "name": "layers",
            "parameterType": "int",
            "feasibleSpace": {"min": "2", "max": "10", "step": "2"},
        },
        {
            "name": "batch",
            "parameterType": "discrete",
            "feasibleSpace": {"list": ["128", "32", "64"]},
        },
        {
            "name": "optimizer",
            "parameterType": "categorical",
            "feasibleSpace": {"list": ["sgd", "adam"]},
        },
    ],
}


def experiment(**changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "kubeflow.org/v1beta1",
        "kind": "Experiment",
        "metadata": {"name": "mnist-tpe"},
        "spec": {**SPEC, **changes},
    }


def with_space(kind: str, **space: Any) -> dict[str, Any]:
    return experiment(parameters=[{"name": "x", "parameterType": kind, "feasibleSpace": space}])


def algorithm(name: Any, **settings: Any) -> dict[str, Any]:
    pairs = [{"name": key, "value": value} for key, value in settings.items()]
    return {"algorithmName": name, "algorithmSettings": pairs}


def test_an_experiment_is_taken_over() -> None:
    assert is_katib(experiment())
    draft = of_katib(experiment(), "e")
    parse_spec(draft.spec())
    assert draft.notes == []
    assert draft.spec() == {
        "name": "mnist-tpe",
        "task": {"name": "external"},
        "space": {
            "lr": {"type": "float", "low": 1e-5, "high": 0.1, "log": True},
            "momentum": {"type": "float", "low": 0.5, "high": 0.9, "step": 0.1},
            "layers": {"type": "int", "low": 2, "high": 10, "step": 2},
            "batch": {"type": "values", "values": [128, 32, 64]},
            "optimizer": {"type": "values", "values": ["sgd", "adam"]},
        },
        "sampler": {"name": "tpe", "seed": 7},
        "objective": {"metric": "Validation-accuracy", "direction": "maximize"},
        "budget": {"trials": 12, "max_parallel": 3},
        "pruner": {"name": "median", "startup": 4, "warmup_epochs": 4},
    }


@pytest.mark.parametrize(
    ("name", "sampler"),
    [
        ("grid", "grid"),
        ("random", "random"),
        ("tpe", "tpe"),
        ("multivariate-tpe", "tpe"),
        ("bayesianoptimization", "auto"),
    ],
)
def test_an_algorithm_is_a_sampler(name: str, sampler: str) -> None:
    draft = of_katib(experiment(algorithm=algorithm(name), parameters=SPEC["parameters"][1:]), "e")
    assert parse_spec(draft.spec()).sampler.name == sampler
    assert draft.notes == []


def test_hyperband_is_random_with_halving() -> None:
    given = experiment(algorithm=algorithm("hyperband", eta="4", r_l="64"), earlyStopping=None)
    draft = of_katib(given, "e")
    spec = parse_spec(draft.spec())
    assert spec.sampler.name == "random"
    assert spec.pruner is not None
    assert spec.pruner.model_dump() == {"name": "halving", "eta": 4, "min_epochs": 1}
    assert [at for at, _ in draft.notes] == [
        "spec.algorithm.algorithmName",
        "spec.algorithm.algorithmSettings.1.value",
    ]


@pytest.mark.parametrize(
    ("data", "field", "part"),
    [
        ({**experiment(), "status": {}}, "status", "no counterpart"),
        ({**experiment(), "metadata": {"namespace": "k"}}, "metadata.namespace", "no counterpart"),
        (experiment(trialTemplate={}), "spec.trialTemplate", "your own program trains"),
        (experiment(metricsCollectorSpec={}), "spec.metricsCollectorSpec", "reports its metrics"),
        (experiment(maxFailedTrialCount=3), "spec.maxFailedTrialCount", "end no study"),
        (experiment(resumePolicy="Never"), "spec.resumePolicy", "extend"),
        (experiment(nasConfig={}), "spec.nasConfig", "architectures"),
        (experiment(maxTrialCount=10**6), "spec.maxTrialCount", "100000 trials at most"),
        (experiment(parallelTrialCount=10**6), "spec.parallelTrialCount", "10000"),
        (experiment(objective={**OBJECTIVE, "goal": 0.99}), "spec.objective.goal", "stop"),
        (
            experiment(objective={**OBJECTIVE, "additionalMetricNames": ["a"]}),
            "spec.objective.additionalMetricNames",
            "any metric",
        ),
        (
            experiment(objective={**OBJECTIVE, "metricStrategies": []}),
            "spec.objective.metricStrategies",
            "ends it with",
        ),
        (
            experiment(algorithm=algorithm("cmaes")),
            "spec.algorithm.algorithmName",
            "the sampler is auto",
        ),
        (
            experiment(algorithm=algorithm("bayesianoptimization", base_estimator="GP")),
            "spec.algorithm.algorithmSettings.0.value",
            "base_estimator has no counterpart",
        ),
        (
            experiment(earlyStopping=algorithm("other")),
            "spec.earlyStopping.algorithmName",
            "only medianstop",
        ),
        (experiment(algorithm=algorithm("hyperband")), "spec.earlyStopping", "one pruner"),
        (
            with_space("double", min="1", max="9", step="0.5", distribution="logUniform"),
            "spec.parameters.0.feasibleSpace.step",
            "has no step on a log range here; the step is left out",
        ),
        (
            with_space("double", min="0", max="1", distribution="normal"),
            "spec.parameters.0.feasibleSpace.distribution",
            "it is uniform",
        ),
        (
            with_space("int", min="0", max="9", list=["1"]),
            "spec.parameters.0.feasibleSpace.list",
            "no counterpart",
        ),
    ],
)
def test_what_has_no_counterpart_is_told(data: Any, field: str, part: str) -> None:
    draft = of_katib(data, "e")
    parse_spec(draft.spec())
    assert any(part in what for at, what in draft.notes if at == field), draft.notes


SPACE = "spec.parameters.0.feasibleSpace"


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ([], ""),
        ({**experiment(), "kind": "Trial"}, "kind"),
        ({**experiment(), "apiVersion": "kubeflow.org/v1alpha3"}, "apiVersion"),
        ({**experiment(), "metadata": "x"}, "metadata"),
        ({**experiment(), "spec": None}, "spec"),
        (experiment(objective=None), "spec.objective"),
        (experiment(objective={"type": "maximize"}), "spec.objective.objectiveMetricName"),
        (experiment(objective={**OBJECTIVE, "type": "max"}), "spec.objective.type"),
        (experiment(algorithm={}), "spec.algorithm.algorithmName"),
        (experiment(algorithm=algorithm("darts")), "spec.algorithm.algorithmName"),
        (
            experiment(algorithm=algorithm("random", random_state="x")),
            "spec.algorithm.algorithmSettings.0.value",
        ),
        (
            experiment(earlyStopping=algorithm("medianstop", start_step="0")),
            "spec.earlyStopping.algorithmSettings.0.value",
        ),
        (experiment(maxTrialCount="many"), "spec.maxTrialCount"),
        (experiment(maxTrialCount=-1), "spec.maxTrialCount"),
        (experiment(parameters=None), "spec.parameters"),
        (experiment(parameters=[]), ""),
        (experiment(parameters=["x"]), "spec.parameters.0"),
        (experiment(parameters=[{"name": 5}]), "spec.parameters.0.name"),
        (with_space("bool"), "spec.parameters.0.parameterType"),
        (with_space("int", min="a", max="5"), f"{SPACE}.min"),
        (with_space("int", min="0.5", max="5"), f"{SPACE}.min"),
        (with_space("double", min="0", max="inf"), f"{SPACE}.max"),
        (with_space("double", min="0"), f"{SPACE}.max"),
        (with_space("double", min="0", max="1", step="0"), f"{SPACE}.step"),
        (with_space("double", min="1", max="0"), SPACE),
        (with_space("double", min="0", max="1", distribution="beta"), f"{SPACE}.distribution"),
        (with_space("discrete", list=["1", "two"]), f"{SPACE}.list.1"),
        (with_space("categorical"), f"{SPACE}.list"),
    ],
)
def test_what_is_no_experiment_is_refused_by_its_field(data: Any, field: str) -> None:
    with pytest.raises(Refused) as caught:
        of_katib(data, "e").spec()
    assert [at for at, _ in caught.value.problems] == [field]
