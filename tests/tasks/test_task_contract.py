"""What every installed task is, built in or brought by a package."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from ridgeline.search.objective import Objective, Penalty
from ridgeline.search.space import ValuesParameter
from ridgeline.search.spec import StudySpec, parse_spec
from ridgeline.search.tasks.any_settings import settings_of
from ridgeline.search.tasks.base import EngineTask, RunInput, Task
from ridgeline.search.tasks.kinds import (
    Classes,
    Features,
    Image,
    Numbers,
    Targets,
    Tokens,
    Vector,
)
from ridgeline.search.tasks.registry import installed
from tests.search.specs import problems_of

ROOT = Path(__file__).parents[2]
TASKS = list(installed().tasks.values())
SEARCHED = [task for task in TASKS if task.parameters is not None]
JUDGED = [task for task in TASKS if task.metrics is not None]
FEATURES: list[Features] = [Vector(8), Image(1, 4, 2), Tokens(8, 100)]
TARGETS: list[Targets] = [Classes(3), Numbers(1)]
TRAINED = [task for task in TASKS if isinstance(task, EngineTask)]


def named(task: Task[Any]) -> str:
    return task.name


def spec_of(task: Task[Any], /, **changes: Any) -> dict[str, Any]:
    """A spec of the task's example, which searches one of its parameters."""
    metric, direction = next(iter((task.metrics or {"error": "minimize"}).items()))
    name, value = next(iter(task.defaults(None).items()), ("depth", 3))
    return {
        "name": "one",
        "task": dict(task.example),
        "space": {name: {"type": "values", "values": [value]}},
        "sampler": {"name": "random"},
        "objective": {"metric": metric, "direction": direction},
        "budget": {"trials": 10, "epochs": 7},
        **changes,
    }


def run_of(task: EngineTask[Any]) -> RunInput[Any]:
    spec = parse_spec(spec_of(task))
    return RunInput(spec.task, spec.run_config({}), 3, Objective(), None, Penalty(), None)


@pytest.mark.parametrize("task", TASKS, ids=named)
def test_its_example_is_settings_that_stay_as_they_are(task: Task[Any]) -> None:
    settings = settings_of(task.example)
    assert type(settings) is task.settings
    assert settings_of(settings.model_dump(mode="json")) == settings
    spec = parse_spec(spec_of(task))
    assert spec.task == settings
    assert StudySpec.model_validate_json(spec.model_dump_json()) == spec
    assert StudySpec.model_validate(spec.model_dump()) == spec
    assert settings.model_dump().items() >= {"name": task.name}.items()
    assert spec.definition is task


@pytest.mark.parametrize("task", TASKS, ids=named)
def test_its_settings_have_no_other_fields_and_say_which(task: Task[Any]) -> None:
    for field in ("lerning_rate", "float", "values"):  # the latter two are tags of unions elsewhere
        data = spec_of(task, task={**task.example, field: 1})
        assert problems_of(data) == [(f"task.{field}", "is not a field here")]
    assert problems_of(spec_of(task, task={**task.example, "name": "other"})) == [
        ("task.name", f"'other' is not one of {', '.join(repr(t.name) for t in TASKS)}")
    ]


@pytest.mark.parametrize("task", TASKS, ids=named)
def test_it_is_described(task: Task[Any]) -> None:
    assert len(task.description) > 20
    pages = "".join((ROOT / "docs" / name).read_text() for name in ("tasks.md", "spec.md"))
    assert f"`{task.name}`" in pages
    schema = task.settings.model_json_schema()
    assert schema["properties"]["name"]["const"] == task.name


@pytest.mark.parametrize("task", SEARCHED, ids=named)
def test_its_parameters_have_domains_and_defaults_in_them(task: Task[Any]) -> None:
    assert task.parameters is not None
    defaults = task.defaults(None)
    assert {*defaults, "epochs"} == set(task.parameters)
    assert task.defaults(settings_of(task.example)).keys() == defaults.keys()
    for name, domain in task.parameters.items():
        assert domain.description, name
        assert bool(domain.choices) == (domain.kind == "choice"), name
        assert domain.low <= domain.high, name
        if name in defaults:
            value = ValuesParameter(type="values", values=(defaults[name],))
            assert domain.problem(value) is None, name
    config = parse_spec(spec_of(task)).run_config({})
    assert config == {**task.defaults(settings_of(task.example)), "epochs": 7}


@pytest.mark.parametrize("task", SEARCHED, ids=named)
def test_parameters_that_it_has_not_are_refused_by_name(task: Task[Any]) -> None:
    found = problems_of(
        spec_of(task, space={"lerning_rate": {"type": "float", "low": 0.1, "high": 1}})
    )
    ((field, reason),) = found
    assert field == "space.lerning_rate"
    assert f"is not a parameter of the task {task.name}" in reason


@pytest.mark.parametrize("task", JUDGED, ids=named)
def test_its_metrics_have_directions(task: Task[Any]) -> None:
    assert task.metrics
    for metric, direction in task.metrics.items():
        opposite = {"maximize": "minimize", "minimize": "maximize"}[direction]
        objective = {"metric": metric, "direction": direction}
        assert parse_spec(spec_of(task, objective=objective)).objective.metric == metric
        ((field, _),) = problems_of(spec_of(task, objective={**objective, "direction": opposite}))
        assert field == "objective.direction"
    ((field, _),) = problems_of(spec_of(task, objective={"metric": "luck"}))
    assert field == "objective.metric"


@pytest.mark.parametrize("task", TASKS, ids=named)
def test_it_says_by_whom_it_is_trained_and_on_what(task: Task[Any]) -> None:
    settings = settings_of(task.example)
    choice = task.data(settings)
    spec = parse_spec(spec_of(task))
    assert spec.external == (task.trained_by == "program")
    assert spec.dataset == (None if choice is None else choice.dataset)
    if choice is not None:  # the database counts by this setting
        assert settings.model_dump()["dataset"] == choice.dataset
    if isinstance(task, EngineTask):
        assert choice is not None
        assert task.trained_by == "workers"


@pytest.mark.parametrize("task", TRAINED, ids=named)
def test_it_takes_the_data_of_its_kinds_alone(task: EngineTask[Any]) -> None:
    assert task.features <= {one.kind for one in FEATURES}
    assert task.targets <= {one.kind for one in TARGETS}
    fits = 0
    for x, y in product(FEATURES, TARGETS):
        reason = task.misfit(x, y)
        if x.kind in task.features and y.kind in task.targets:
            assert reason is None
            task.prepare(run_of(task), x, y)
            fits += 1
        else:
            assert reason is not None
            assert task.name in reason
    assert fits == len(task.features) * len(task.targets) > 0


@pytest.mark.parametrize("task", TRAINED, ids=named)
def test_it_makes_runs_of_complete_configurations_alone(task: EngineTask[Any]) -> None:
    x = next(one for one in FEATURES if one.kind in task.features)
    y = next(one for one in TARGETS if one.kind in task.targets)
    run = run_of(task)
    config, shape = task.prepare(run, x, y)
    assert (config, shape) == task.prepare(run, x, y)
    assert config.seed == 3
    assert config.as_dict().items() >= run.config.items()
    for name in task.parameters:
        without = {key: value for key, value in run.config.items() if key != name}
        with pytest.raises(ValueError, match=rf"lacks {name}"):
            task.prepare(RunInput(**{**vars(run), "config": without}), x, y)
    more = {**run.config, "temperature": 1.0}
    with pytest.raises(ValueError, match="must not have temperature"):
        task.prepare(RunInput(**{**vars(run), "config": more}), x, y)


@pytest.mark.parametrize("task", TASKS, ids=named)
def test_specs_of_it_are_read_without_torch_and_numpy(task: Task[Any]) -> None:
    program = (
        "import sys\n"
        "from ridgeline.search.spec import parse_spec\n"
        f"spec = parse_spec({spec_of(task)!r})\n"
        "spec.run_config({}), spec.dataset, spec.definition.settings.model_json_schema()\n"
        "print({'torch', 'sklearn', 'numpy'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_nothing_outside_of_the_tasks_names_one() -> None:
    names = "|".join(installed().tasks)
    classes = "|".join(
        name for task in TASKS for name in (type(task).__name__, task.settings.__name__)
    )
    naming = re.compile(rf"""["']({names})["']|\b({classes}|MlpDefaults)\b|tasks\.({names})\b""")
    found = [
        f"{file.relative_to(ROOT)}: {line.strip()}"
        for folder in ("search", "service")
        for file in sorted((ROOT / folder).rglob("*.py"))
        if not file.is_relative_to(ROOT / "search" / "tasks")
        if not file.is_relative_to(ROOT / "search" / "engine" / "models")  # have names of their own
        for line in file.read_text().splitlines()
        if naming.search(line)
    ]
    assert found == []
