"""`ridgeline compare`, on a service that refuses, and the metric that its table shows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from ridgeline.search.comparing import mean_of
from ridgeline.search.comparison import studies_of
from ridgeline.search.spec import StudySpec, parse_spec
from ridgeline.search.tasks.domain import Domain
from ridgeline.search.tasks.function import FunctionTask
from ridgeline.service.cli import tables
from ridgeline.service.cli.compare import metric_on_test
from ridgeline.service.cli.study_file import load_comparison
from ridgeline.service.client import ApiError, Client
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


@pytest.mark.parametrize(
    ("arm", "field", "line", "named"),
    [
        ("none", "task.dataset", 4, "base.task.dataset"),
        ("none", "objective.metric", 3, "base.objective.metric"),
        ("l2", "space.l2", 12, "arms.l2.space.l2"),
    ],
)
def test_what_the_service_refuses_is_told_with_its_line(
    arm: str,
    field: str,
    line: int,
    named: str,
    ridgeline: Ridgeline,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def create_study(client: Client, spec: StudySpec) -> SimpleNamespace:
        if spec.name.endswith(arm):
            raise ApiError(422, "no", "no", [(field, "does not fit")])
        return SimpleNamespace(spec=spec)

    def study(client: Client, name: str) -> None:
        raise ApiError(404, "no", "no")

    monkeypatch.setattr(Client, "create_study", create_study)
    monkeypatch.setattr(Client, "study", study)
    (tmp_path / "small.yaml").write_text(COMPARISON)
    refused = ridgeline("compare", "small.yaml")
    assert refused.exit_code == 2
    assert refused.stderr == f"ridgeline: small.yaml:{line}: {named}: does not fit\n"


@pytest.mark.parametrize("appears", [False, True])
def test_a_study_that_is_there_is_not_posted(
    appears: bool, ridgeline: Ridgeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a token that only reads, a result can be seen; nor do two commands at once collide."""
    (tmp_path / "small.yaml").write_text(COMPARISON)
    specs = {s.name: s for s in studies_of(load_comparison(tmp_path / "small.yaml").spec).values()}
    posted: set[str] = set()

    def create_study(client: Client, spec: StudySpec) -> None:
        posted.add(spec.name)
        raise ApiError(409 if appears else 403, "no", "no")

    def study(client: Client, name: str) -> SimpleNamespace:
        if appears and name not in posted:
            raise ApiError(404, "no", "no")
        return SimpleNamespace(spec=specs[name], name=name, state="CANCELLED", reason=None)

    def follow(client: Client, names: list[str], console: Console) -> dict[str, SimpleNamespace]:
        return {name: study(client, name) for name in names}

    monkeypatch.setattr(Client, "create_study", create_study)
    monkeypatch.setattr(Client, "study", study)
    monkeypatch.setattr("ridgeline.service.cli.compare.follow", follow)
    assert "small-search.none is CANCELLED" in ridgeline("compare", "small.yaml").stderr
    assert posted == (set(specs) if appears else set())


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
