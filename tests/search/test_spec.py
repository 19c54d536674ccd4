"""Specs: what they leave out, what their parts say about each other, and their way through JSON."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline.search.fields import MAX_INT
from ridgeline.search.objective import MAX_TRIALS
from ridgeline.search.space import Config
from ridgeline.search.spec import StudySpec, parse_spec
from tests.search import strategies
from tests.search.specs import ABSENT, BASE, EXTERNAL, FULL, GRID, changed, problems_of


def test_the_least_that_can_be_said() -> None:
    spec = parse_spec(BASE)
    assert spec.num_trials == 10
    assert spec.replicates == 1
    assert spec.max_parallel == 10_000
    assert not spec.external
    config: Config = {"learning_rate": 0.1, "batch_size": 32}
    assert spec.run_config(config) == {
        **config,
        "l1": 0.0,
        "l2": 0.0,
        "weight_decay": 0.0,
        "dropout": 0.0,
        "momentum": 0.9,
        "nesterov": False,
        "optimizer": "adam",
        "schedule": "constant",
        "warmup": 0.0,
        "clip_norm": 0.0,
        "max_norm": 0.0,
        "label_smoothing": 0.0,
        "gradient_noise": 0.0,
        "input_dropout": 0.0,
        "epochs": 20,
    }


@pytest.mark.parametrize("left_out", ["sampler", "sampler.name"])
def test_a_study_that_names_no_sampler_has_the_one_that_was_measured_best(left_out: str) -> None:
    sampler = parse_spec(changed(FULL, left_out, ABSENT)).sampler
    assert sampler.name == "auto"
    assert sampler.learns


def test_a_grid_tries_all_its_cells() -> None:
    assert parse_spec(GRID).num_trials == 3
    assert parse_spec(changed(GRID, "budget.trials", 2)).num_trials == 2


def test_divisions_of_the_rows_are_runs() -> None:
    split = {"folds": 5, "repeats": 2}
    spec = parse_spec(changed(changed(BASE, "task.split", split), "replicates", 3))
    assert (spec.num_divisions, spec.num_runs) == (10, 30)
    assert parse_spec(EXTERNAL).num_runs == 1
    gone = StudySpec.model_validate({**BASE, "task": {"name": "gone", "split": split}})
    assert gone.num_runs == 10, "as when the task was installed"
    odd = StudySpec.model_validate({**BASE, "task": {"name": "gone", "split": "mine"}})
    assert odd.num_runs == 1
    too_many = changed(changed(BASE, "task.split", split), "replicates", 11)
    assert dict(problems_of(too_many))["replicates"].startswith("11 by 10 divisions")


@pytest.mark.parametrize(("trials", "max_parallel"), [(5, 1), (19, 1), (100, 10)])
def test_tpe_has_a_tenth_of_its_trials_in_flight(trials: int, max_parallel: int) -> None:
    data = changed(changed(BASE, "sampler.name", "tpe"), "budget.trials", trials)
    assert parse_spec(data).max_parallel == max_parallel
    assert parse_spec(changed(data, "budget.max_parallel", 7)).max_parallel == 7


# What one part says about another


@pytest.mark.parametrize(
    ("data", "field", "reason"),
    [
        (changed(BASE, "budget.trials", ABSENT), "budget.trials", "is needed"),
        (changed(GRID, "budget.trials", 4), "budget.trials", "only 3 cells"),
        (
            changed(GRID, "space.dropout", {"type": "float", "low": 0, "high": 0.5}),
            "space.dropout.points",
            "a grid needs points",
        ),
        (
            changed(GRID, "space.epochs", {"type": "int", "low": 1, "high": 100_000}),
            "space",
            "300000 cells",
        ),
        (
            changed(BASE, "space.batch_size", {"type": "int", "low": 8, "high": 64}),
            "space.batch_size",
            "finite list",
        ),
        (
            changed(BASE, "space.batch_size", {"type": "values", "values": [32.0]}),
            "space.batch_size",
            "not a whole number",
        ),
        (
            changed(BASE, "space.batch_size", {"type": "values", "values": [True]}),
            "space.batch_size",
            "not a number",
        ),
        (
            changed(BASE, "space.learning_rate", {"type": "values", "values": ["1e-3"]}),
            "space.learning_rate",
            "not a number",
        ),
        (
            changed(BASE, "space.learning_rate", {"type": "float", "low": 0, "high": 1}),
            "space.learning_rate",
            "above 0",
        ),
        (
            changed(BASE, "space.learning_rate.zero", True),
            "space.learning_rate",
            "above 0",
        ),
        (
            changed(BASE, "space.dropout", {"type": "float", "low": 0, "high": 1}),
            "space.dropout",
            "below 1",
        ),
        (
            changed(BASE, "space.epochs", {"type": "float", "low": 1, "high": 9}),
            "space.epochs",
            "whole numbers",
        ),
        (
            changed(BASE, "space.optimizer", {"type": "values", "values": ["adam", "lion"]}),
            "space.optimizer",
            "'lion' is not one of",
        ),
        (
            changed(BASE, "space.momentun", {"type": "float", "low": 0, "high": 0.9}),
            "space.momentun",
            "is not a parameter of the task mlp",
        ),
        (changed(BASE, "objective.metric", "loss"), "objective.metric", "validation_loss"),
        (
            changed(BASE, "objective.metric", "validation_loss"),
            "objective.direction",
            "minimize",
        ),
        (
            changed(changed(BASE, "reproducible", True), "pruner", {"name": "median"}),
            "pruner",
            "reproducible",
        ),
        (
            changed(
                changed(BASE, "budget.epochs", 9), "pruner", {"name": "halving", "min_epochs": 9}
            ),
            "pruner.min_epochs",
            "runs train 9 epochs at most",
        ),
        (changed(EXTERNAL, "replicates", 2), "replicates", "one run a trial"),
        (changed(EXTERNAL, "objective.metric", ABSENT), "objective.metric", "is missing"),
        (changed(EXTERNAL, "objective.direction", ABSENT), "objective.direction", "is missing"),
        (changed(EXTERNAL, "early_stopping", {"patience": 2}), "early_stopping", "your own"),
        (changed(EXTERNAL, "budget.run_seconds", 9), "budget.run_seconds", "your own"),
        (
            changed(
                EXTERNAL,
                "space",
                {
                    "l2": {"type": "float", "low": 1, "high": 2, "zero": True},
                    "l2_zero": {"type": "int", "low": 0, "high": 1},
                },
            ),
            "space.l2_zero",
            "the name is taken",
        ),
    ],
)
def test_parts_must_agree(data: dict[str, Any], field: str, reason: str) -> None:
    ((told_field, told),) = problems_of(data)
    assert told_field == field
    assert reason in told


def test_an_absurd_grid_is_refused_without_counting_to_it() -> None:
    axis = {"type": "values", "values": list(range(100))}
    data = changed(changed(GRID, "task", {"name": "external"}), "objective", EXTERNAL["objective"])
    ((field, reason),) = problems_of(changed(data, "space", {f"p{i}": axis for i in range(20)}))
    assert field == "space"
    assert "over a billion" in reason


def test_external_studies_say_what_is_better() -> None:
    expected = ["objective.metric", "objective.direction"]
    assert [field for field, _ in problems_of(changed(EXTERNAL, "objective", ABSENT))] == expected


@pytest.mark.parametrize("metric", ["val/loss", "f1[macro]", "λ", "1st", "mAP@0.5", "a" * 128])
def test_external_metrics_have_any_name(metric: str) -> None:
    assert parse_spec(changed(EXTERNAL, "objective.metric", metric)).objective.metric == metric


@pytest.mark.parametrize("metric", ["", "a\nb", "a\0", "\x7f", "a" * 129, "\ud800"])
def test_external_metrics_are_printable(metric: str) -> None:
    ((field, _),) = problems_of(changed(EXTERNAL, "objective.metric", metric))
    assert field == "objective.metric"


def test_external_studies_search_anything() -> None:
    space = {"x": {"type": "values", "values": ["a", True, 2, 0.5]}}
    spec = parse_spec(changed(EXTERNAL, "space", space))
    assert spec.external
    assert spec.run_config({"x": True}) == {"x": True}


# There and back


@st.composite
def _specs(draw: st.DrawFn) -> dict[str, Any]:
    data = copy.deepcopy(EXTERNAL)
    spaces = strategies.spaces().filter(strategies.zeros_have_names)
    data["space"] = draw(spaces).model_dump(mode="json")
    data["sampler"] = {
        "name": draw(st.sampled_from(["random", "tpe"])),
        "seed": draw(st.integers(0, MAX_INT)),
    }
    data["budget"] = {
        "trials": draw(st.integers(1, MAX_TRIALS)),
        "seconds": draw(st.none() | st.floats(1e-9, 31_536_000)),
        "max_parallel": draw(st.none() | st.integers(1, 10_000)),
    }
    if data["sampler"]["name"] == "tpe":
        data["warm_start"] = draw(st.sampled_from([[], ["b", "a"]]))
    data["priority"] = draw(st.integers(-1_000, 1_000))
    data["reproducible"] = draw(st.booleans())
    return data


def _again(spec: StudySpec) -> StudySpec:
    return parse_spec(json.loads(json.dumps(spec.model_dump(mode="json"))))


@given(_specs())
def test_specs_survive_json(data: dict[str, Any]) -> None:
    spec = StudySpec.model_validate(data)
    again = _again(spec)
    assert again == spec
    assert repr(again) == repr(spec)  # 1, 1.0 and True are equal, and not the same


@pytest.mark.parametrize("data", [BASE, EXTERNAL, GRID, FULL])
def test_so_do_these(data: dict[str, Any]) -> None:
    spec = parse_spec(data)
    assert repr(_again(spec)) == repr(spec)
    assert list(_again(spec).space.names) == list(data["space"])
