"""`ridgeline compare`, on a service that refuses, and the metric that its table shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from ridgeline.search.bounds import Bounds
from ridgeline.search.comparison import ComparisonSpec, bounds_of, metric_on_test
from ridgeline.search.means import INTERVAL
from ridgeline.search.spec import StudySpec, parse_spec
from ridgeline.search.tasks.domain import Domain
from ridgeline.search.tasks.function import FunctionTask
from ridgeline.search.tasks.model_task import METRICS
from ridgeline.service.api import comparison_examples
from ridgeline.service.cli import tables
from ridgeline.service.cli.study_file import load_comparison
from ridgeline.service.client import ApiError, Client
from ridgeline.service.comparison_resources import ArmResult, Comparison, ComparisonResult
from ridgeline.service.resources import Interval
from tests.cli.conftest import Ridgeline

COMPARISON = """
name: small
base:
  task: {name: mlp, dataset: digits}
  space: {learning_rate: {type: float, low: 0.001, high: 0.02}}
  sampler: {name: random}
  budget: {trials: 2}
arms:
  none: {}
  l2:
    space:
      l2: {type: float, low: 0.0, high: 1.0}
"""


Posted = Callable[[Client, ComparisonSpec], Comparison]


def refuse(status: int, *problems: tuple[str, str], detail: str = "no") -> Posted:
    def create_comparison(client: Client, spec: ComparisonSpec) -> Comparison:
        raise ApiError(status, "no", detail, problems)

    return create_comparison


def nobody_has_it(client: Client, name: str) -> Comparison:
    raise ApiError(404, "no", "no")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(COMPARISON)
    return tmp_path / "small.yaml"


@pytest.mark.parametrize(
    ("line", "field"),
    [(4, "base.task.dataset"), (3, "base.objective.metric"), (12, "arms.l2.space.l2")],
)
def test_what_the_service_refuses_is_told_with_its_line(
    line: int, field: str, file: Path, ridgeline: Ridgeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Client, "create_comparison", refuse(422, (field, "does not fit")))
    monkeypatch.setattr(Client, "comparison", nobody_has_it)
    refused = ridgeline("compare", "small.yaml")
    assert refused.exit_code == 2
    assert refused.stderr == f"ridgeline: small.yaml:{line}: {field}: does not fit\n"


def test_a_study_that_is_in_the_way_is_told(
    file: Path, ridgeline: Ridgeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_the_way = "there is another study named small-search.none already"
    monkeypatch.setattr(Client, "create_comparison", refuse(409, detail=in_the_way))
    monkeypatch.setattr(Client, "comparison", nobody_has_it)
    assert ridgeline("compare", "small.yaml").stderr == f"ridgeline: {in_the_way}\n"


@pytest.mark.parametrize("appears", [False, True])
def test_a_comparison_that_is_there_is_not_posted(
    appears: bool, file: Path, ridgeline: Ridgeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a token that only reads, a result can be seen; nor do two commands at once collide."""
    there = Comparison.model_validate(
        {
            **comparison_examples.ANSWERS["cancel_comparison"],
            "name": "small",
            "spec": load_comparison(file).spec,
        }
    )
    posted: list[str] = []

    def create_comparison(client: Client, spec: ComparisonSpec) -> Comparison:
        posted.append(spec.name)
        raise ApiError(409 if appears else 403, "no", "no")

    def comparison(client: Client, name: str) -> Comparison:
        if appears and not posted:
            raise ApiError(404, "no", "no")
        return there

    monkeypatch.setattr(Client, "create_comparison", create_comparison)
    monkeypatch.setattr(Client, "comparison", comparison)
    assert ridgeline("compare", "small.yaml").stderr == "ridgeline: small is CANCELLED\n"
    assert posted == (["small"] if appears else [])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (("replicates: 4", "replicates: 5"), "4 replicates"),
        (("high: 1.0", "high: 2.0"), "another space in the arm l2"),
        (("replicates: 4", "replicates: 4\ntrain_on: train+validation"), "train_on train"),
    ],
)
def test_another_comparison_of_that_name_is_told(
    change: tuple[str, str],
    what: str,
    file: Path,
    ridgeline: Ridgeline,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file.write_text(COMPARISON + "replicates: 4\n")
    there = Comparison.model_validate(
        {**comparison_examples.ANSWERS["get_comparison"], "spec": load_comparison(file).spec}
    )
    monkeypatch.setattr(Client, "comparison", lambda client, name: there)
    file.write_text(file.read_text().replace(*change))
    assert ridgeline("compare", "small.yaml").stderr == (
        "ridgeline: there is another comparison named small already: give this one another name, "
        f"or delete that one with `ridgeline comparison delete small`; it has {what}\n"
    )


@pytest.mark.parametrize(
    ("metric", "direction", "expected"),
    [
        ("validation_accuracy", "maximize", "test_accuracy"),
        ("validation_rmse", "minimize", "test_rmse"),
        ("validation_macro_f1", "maximize", "test_macro_f1"),
    ],
)
def test_arms_are_compared_on_test_data(metric: str, direction: str, expected: str) -> None:
    spec = study("mlp", metric, direction)
    assert metric_on_test(spec) == expected


@pytest.mark.parametrize(
    ("metric", "direction", "bounds"),
    [
        ("validation_roc_auc", "maximize", Bounds(0, 1)),
        ("validation_rmse", "minimize", Bounds(low=0)),
        ("validation_r2", "maximize", Bounds(high=1)),
    ],
)
def test_metrics_have_bounds(metric: str, direction: str, bounds: Bounds) -> None:
    assert bounds_of(study("mlp", metric, direction)) == bounds


def test_all_metrics_of_the_engine_have_bounds() -> None:
    for metrics in METRICS.values():
        for metric, direction in metrics.items():
            assert bounds_of(study("mlp", metric, direction)) != Bounds(), metric


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
    assert bounds_of(spec) == Bounds(), "its accuracy may be in percent"
    result = ComparisonResult(
        metric=metric,
        test_metric=metric,
        direction="maximize",
        arms=(
            ArmResult(
                arm="none",
                in_search=0.875,
                again=0.5,
                mean=0.5,
                interval=Interval(low=0.25, high=0.75),
                scores=(0.5, 0.25, 0.75, None),
                measures={},
            ),
        ),
        differences=(),
    )
    table = tables.arms_table(result)
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    assert capture.get().count(f"{metric}, fresh seeds") == 1
    assert "3 (1 failed)" in capture.get()


def test_values_of_rows_that_were_trained_on_are_not_shown(
    file: Path, ridgeline: Ridgeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = comparison_examples.ANSWERS["get_comparison"]
    file.write_text(COMPARISON + "train_on: train+validation\n")
    there = Comparison.model_validate(
        {
            **answer,
            "spec": load_comparison(file).spec,
            "result": {**answer["result"], "train_on": "train+validation"},
        }
    )
    monkeypatch.setattr(Client, "comparison", lambda client, name: there)
    said = ridgeline("comparison", "show", "small").stdout
    assert f"test_accuracy, fresh seeds   {INTERVAL}" in said
    assert "Winners were trained again on training and validation rows." in said
    assert "test_accuracy, fresh seeds" in said
    assert "validation_accuracy, fresh seeds" not in said


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
