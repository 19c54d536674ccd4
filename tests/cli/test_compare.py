"""The metric that the table of `ridgeline compare` shows."""

from __future__ import annotations

import pytest
from rich.console import Console

from ridgeline.search.comparing import mean_of
from ridgeline.search.spec import StudySpec, parse_spec
from ridgeline.search.tasks.domain import Domain
from ridgeline.search.tasks.function import FunctionTask
from ridgeline.service.cli import tables
from ridgeline.service.cli.compare import metric_on_test


@pytest.mark.parametrize(
    ("metric", "direction", "expected"),
    [
        ("validation_accuracy", "maximize", "test_accuracy"),
        ("validation_rmse", "minimize", "test_rmse"),
    ],
)
def test_arms_are_compared_on_test_data(metric: str, direction: str, expected: str) -> None:
    spec = study("mlp", metric, direction)
    assert metric_on_test(spec) == expected


@pytest.mark.parametrize("metric", ["accuracy", "validation_accuracy", "cross_validation_score"])
def test_a_function_is_compared_by_what_it_returns(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = FunctionTask(
        "sum",
        lambda params, report: 0.0,
        parameters={"learning_rate": Domain("float", "how fast")},
        metric=metric,
        direction="maximize",
    )
    spec = study("mlp", metric, "maximize", check=metric.startswith("validation_a"))
    monkeypatch.setattr(StudySpec, "definition", property(lambda self: task))
    assert metric_on_test(spec) == metric
    means = [mean_of("none", [0.5, 0.25, 0.75])]
    table = tables.arms_table(means, {"none": 0.875}, {"none": 0.5}, metric, metric)
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    assert capture.get().count(f"{metric}, fresh seeds") == 1


def study(task: str, metric: str, direction: str, *, check: bool = True) -> StudySpec:
    data = {
        "name": "x",
        "task": {"name": task, "dataset": "digits"},
        "space": {"learning_rate": {"type": "float", "low": 0.001, "high": 0.02}},
        "sampler": {"name": "random"},
        "objective": {"metric": metric, "direction": direction},
        "budget": {"trials": 2},
    }
    return parse_spec(data) if check else StudySpec.model_validate(data)
