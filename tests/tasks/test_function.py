"""Tasks that are a function: what their authors may declare, and what studies may ask of them."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ridgeline.search.objective import Budget, EarlyStopping, Objective, Penalty
from ridgeline.search.space import Config, Space
from ridgeline.search.spec import SamplerSpec, StudySpec, cross_problems
from ridgeline.search.tasks import registry
from ridgeline.search.tasks.domain import Domain
from ridgeline.search.tasks.function import FunctionTask

X = Domain("float", "a number", low=0, high=1)
DECLARED: dict[str, Any] = {
    "parameters": {"x": X, "depth": Domain("int", "a depth", low=1), "epochs": Domain("int", "n")},
    "metric": "loss",
    "direction": "minimize",
    "defaults": {"depth": 3},
}


def objective(params: dict[str, Any], report: Callable[[int, float], None]) -> float:
    """The sum of x and the depth."""
    return float(params["x"] + params["depth"])


def one_argument(params: dict[str, Any]) -> float:
    """Knows of no reports."""
    return float(params["x"])


async def awaited(params: dict[str, Any], report: Callable[[int, float], None]) -> float:
    """Would have to be awaited."""
    return float(params["x"])


def yields(params: dict[str, Any], report: Callable[[int, float], None]) -> Iterator[float]:
    """Would have to be iterated over."""
    yield float(params["x"])


class Study:
    """What a task sees of a spec."""

    objective = Objective()
    budget = Budget()
    replicates = 1

    def __init__(self, *searched: str, **changes: Any) -> None:
        values = {"type": "values", "values": [1]}
        self.space = Space.model_validate(dict.fromkeys(searched, values))
        self.early_stopping: EarlyStopping | None = changes.get("early_stopping")
        self.penalty: Penalty = changes.get("penalty", Penalty())


def test_a_function_is_described_by_what_is_declared() -> None:
    task = FunctionTask("sum", objective, **DECLARED)
    assert task.description == "The sum of x and the depth."
    assert task.metrics == {"loss": "minimize"}
    assert task.defaults(None) == {"depth": 3}
    settings = task.settings.model_validate({"name": "sum"})
    assert settings.model_dump() == {"name": "sum"}
    assert task.data(settings) is None
    with pytest.raises(ValueError, match="name"):
        task.settings.model_validate({"name": "other"})
    assert FunctionTask("f", lambda params, report: 0.0, **DECLARED).description != ""


def test_what_is_passed_to_it_is_complete() -> None:
    task = FunctionTask("sum", objective, **DECLARED)
    config: Config = {"x": 0.5, "depth": 2, "epochs": 7}
    assert task.params(config, 2**32 + 5) == {**config, "seed": 5}
    with pytest.raises(ValueError, match="lacks depth"):
        task.params({"x": 0.5, "epochs": 7}, 1)
    with pytest.raises(ValueError, match="must not have width"):
        task.params({**config, "width": 7}, 1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"function": print}, "the function is a builtin_function_or_method, not one made by def"),
        (
            {"function": one_argument},
            "one_argument(params: 'dict[str, Any]') -> 'float' cannot be called with two "
            "arguments, params and report",
        ),
        (
            {"function": awaited},
            "awaited returns no number when it is called: it is async, or yields",
        ),
        (
            {"function": yields},
            "yields returns no number when it is called: it is async, or yields",
        ),
        (
            {"parameters": ["x"], "defaults": {}},
            "the parameters are a list, not a dict of them by name",
        ),
        (
            {"parameters": {"x": Domain("choice", "of none")}, "defaults": {}},
            "the parameter x is a choice that has no choices",
        ),
        ({"max_seconds": "60"}, "max_seconds is '60'; it must be above 0, or None"),
        ({"parameters": {}, "defaults": {}}, "there are no parameters, so nothing to search"),
        ({"parameters": {"seed": X}, "defaults": {}}, "'seed' cannot be the name of a parameter"),
        ({"parameters": {"a b": X}, "defaults": {}}, "'a b' cannot be the name of a parameter"),
        ({"parameters": {"x": (0, 1)}, "defaults": {}}, "the parameter x is a tuple, not a Domain"),
        ({"metric": ""}, "'' cannot be the name of a metric"),
        ({"direction": "up"}, 'the direction is \'up\', not "maximize" or "minimize"'),
        ({"defaults": {"width": 1}}, "there is a default for width, which has none"),
        ({"defaults": {"epochs": 1}}, "there is a default for epochs, which has none"),
        ({"defaults": {"x": 2.0}}, "the default of x: 2 must be at most 1"),
        ({"defaults": {"x": [1]}}, "the default of x: [1] is no value of a parameter"),
        ({"max_seconds": 0}, "max_seconds is 0; it must be above 0, or None"),
        ({"max_seconds": math.nan}, "max_seconds is nan; it must be above 0, or None"),
        ({"max_bytes": -1}, "max_bytes is -1; it must be above 0, or None"),
    ],
)
def test_what_cannot_be_used_is_refused(changes: dict[str, Any], reason: str) -> None:
    declared = {"function": objective, **DECLARED, **changes}
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        FunctionTask("sum", **declared)


def test_what_a_study_cannot_ask_of_it() -> None:
    task = FunctionTask("sum", objective, **DECLARED)
    settings = task.settings.model_validate({"name": "sum"})

    def problems(*searched: str, **changes: Any) -> list[tuple[str, str]]:
        return list(task.problems(settings, Study(*searched, **changes)))

    assert problems("x") == []
    assert problems("x", "depth", "epochs") == []
    assert problems("depth") == [("space.x", "is missing: the task sum has no default for it")]
    assert problems(
        "x", early_stopping=EarlyStopping(patience=1), penalty=Penalty(penalize="all")
    ) == [
        ("early_stopping", "a function decides itself when it ends"),
        ("penalty", "the task sum is a function, which has no penalties"),
    ]


def test_the_program_names_the_file_of_the_function(tmp_path: Path) -> None:
    def program(source: str) -> str:
        (tmp_path / "mine.py").write_text(source)
        asks = (
            "from ridgeline import Domain, FunctionTask\n"
            "from mine import f\n"
            "x = {'x': Domain('float', 'a number')}\n"
            "task = FunctionTask('f', f, parameters=x, metric='m', direction='minimize')\n"
            "print(task.program)"
        )
        done = subprocess.run(
            [sys.executable, "-B", "-c", asks],
            env={"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    first = program("def f(params, report): return 1\n")
    assert first.startswith("function/source=")
    assert first.endswith(f"/python={sys.version_info[0]}.{sys.version_info[1]}")
    assert program("def f(params, report): return 1\n") == first
    assert program("def f(params, report): return 2\n") != first


@pytest.mark.parametrize(
    ("domain", "reason"),
    [
        (Domain("int", "n", low=50, high=100), "20 must be at least 50"),
        (Domain("float", "n", low=0, high=1), "20 must be at most 1"),
        (Domain("choice", "n", choices=("a", "b")), "20 is not one of a, b"),
        (Domain("flag", "n"), "20 is not true or false"),
        (Domain("int", "n", low=1, high=20), None),
        (Domain("float", "n"), None),
    ],
)
def test_the_budget_is_a_value_of_its_parameter_epochs(
    domain: Domain, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = {**DECLARED, "parameters": {"x": X, "epochs": domain}, "defaults": {}}
    task = FunctionTask("sum", objective, **declared)
    known = registry.Installed({**registry.installed().tasks, "sum": task}, {})
    monkeypatch.setattr(registry, "installed", lambda: known)
    study = StudySpec.model_construct(
        name="one",
        task=task.settings.model_validate({"name": "sum"}),
        space=Space.model_validate({"x": {"type": "values", "values": [1]}}),
        sampler=SamplerSpec(name="random"),
        objective=Objective(metric="loss", direction="minimize"),
        budget=Budget(trials=1, epochs=20),
        early_stopping=None,
        penalty=Penalty(),
        pruner=None,
    )
    expected = (
        []
        if reason is None
        else [("budget.epochs", f"is the parameter epochs of the task sum: {reason}")]
    )
    assert list(cross_problems(study)) == expected
    assert study.max_epochs == (20 if domain.kind == "int" else None)
