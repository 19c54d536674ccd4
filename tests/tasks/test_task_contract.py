"""What every installed task is, built in or brought by a package."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ridgeline.search.engine import DeviceData, TrainingRun
from ridgeline.search.engine.losses import LOSSES
from ridgeline.search.objective import Objective, Penalty
from ridgeline.search.space import ValuesParameter
from ridgeline.search.spec import StudySpec, parse_spec
from ridgeline.search.tasks.any_settings import settings_of
from ridgeline.search.tasks.base import EngineTask, RunInput, Task
from ridgeline.search.tasks.domain import Domain
from ridgeline.search.tasks.function import FunctionTask
from ridgeline.search.tasks.kinds import (
    Classes,
    Features,
    Image,
    Numbers,
    Targets,
    Tokens,
    Vector,
)
from ridgeline.search.tasks.registry import BUILT_IN, installed
from tests.search.specs import problems_of

ROOT = Path(__file__).parents[2]
TASKS = list(installed().tasks.values())
SEARCHED = [task for task in TASKS if task.parameters is not None]
JUDGED = [task for task in TASKS if task.metrics is not None]
FEATURES: list[Features] = [Vector(8), Image(2, 6, 5), Tokens(8, 100)]
TARGETS: list[Targets] = [Classes(3), Numbers(1)]
TRAINED = [task for task in TASKS if isinstance(task, EngineTask)]


def data_of(features: Features, targets: Targets) -> DeviceData:
    """Random rows of such data, on the CPU."""
    generator = np.random.default_rng(0)
    is_of_tokens = isinstance(features, Tokens)

    def part(num_rows: int) -> tuple[Any, Any]:
        size = (num_rows, math.prod(features.shape))
        x = (
            generator.integers(0, features.vocabulary_size, size)
            if isinstance(features, Tokens)
            else generator.normal(size=size)
        )
        if isinstance(targets, Classes):
            return x, generator.permutation(num_rows) % targets.count  # of each at least one
        return x, generator.normal(size=(num_rows, targets.count))

    return DeviceData.from_arrays(
        part(40),
        part(17),
        part(9),
        num_classes=targets.count if isinstance(targets, Classes) else None,
        device=torch.device("cpu"),
        are_ids=is_of_tokens,
    )


def named(task: Task[Any]) -> str:
    return task.name


def spec_of(task: Task[Any], /, **changes: Any) -> dict[str, Any]:
    """A spec of the task's example, which searches one of its parameters, or all it has to."""
    metric, direction = next(iter((task.metrics or {"error": "minimize"}).items()))
    searched = dict(list(task.defaults(None).items())[:1])
    if task.parameters is None:
        searched = {"depth": 3}
    if isinstance(task, FunctionTask):
        searched |= {name: value_in(task.parameters[name]) for name in task.needed}
    return {
        "name": "one",
        "task": dict(task.example),
        "space": {name: {"type": "values", "values": [v]} for name, v in searched.items()},
        "sampler": {"name": "random"},
        "objective": {"metric": metric, "direction": direction},
        "budget": {"trials": 10, "epochs": 7},
        **changes,
    }


def run_of(task: EngineTask[Any], targets: Targets, metric: str | None = None) -> RunInput[Any]:
    """Judged by that metric, or else by the first."""
    spec, metrics = parse_spec(spec_of(task)), task.metrics_of(targets)
    metric = metric or next(iter(metrics))
    objective = Objective(metric=metric, direction=metrics[metric])
    return RunInput(spec.task, spec.run_config({}), 3, objective, None, Penalty(), None)


def fitting(task: EngineTask[Any]) -> Iterator[tuple[Features, Targets]]:
    """All kinds of data that a task can be trained on."""
    for x, y in product(FEATURES, TARGETS):
        if x.kind in task.features and y.kind in task.targets:
            yield x, y


def value_in(domain: Domain) -> Any:
    """A value that the domain has."""
    if domain.kind == "choice":
        return domain.choices[0]
    if domain.kind == "flag":
        return True
    ends = [min(max(end, -10.0), 10.0) for end in (domain.low, domain.high)]
    return round(ends[1]) if domain.kind == "int" else sum(ends) / 2


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
    assert f"`{task.name}`" in pages or task not in BUILT_IN
    schema = task.settings.model_json_schema()
    assert schema["properties"]["name"]["const"] == task.name


@pytest.mark.parametrize("task", SEARCHED, ids=named)
def test_its_parameters_have_domains_and_defaults_in_them(task: Task[Any]) -> None:
    assert task.parameters is not None
    defaults = task.defaults(None)
    epochs = {"epochs": 7} if "epochs" in task.parameters else {}
    if isinstance(task, EngineTask):
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
    assert config == {**task.defaults(settings_of(task.example)), **epochs}


@pytest.mark.parametrize("task", SEARCHED, ids=named)
def test_parameters_that_it_has_not_are_refused_by_name(task: Task[Any]) -> None:
    found = problems_of(
        spec_of(task, space={"lerning_rate": {"type": "float", "low": 0.1, "high": 1}})
    )
    field, reason = found[0]
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
    settings = settings_of(task.example)
    fits = list(fitting(task))
    for x, y in product(FEATURES, TARGETS):
        reason = task.misfit(settings, x, y)
        if (x, y) in fits:
            assert reason is None
        else:
            assert reason is not None
            assert task.name in reason
    assert len(fits) == len(task.features) * len(task.targets) > 0


@pytest.mark.parametrize("task", TRAINED, ids=named)
def test_its_models_are_for_the_data(task: EngineTask[Any]) -> None:
    for x, y in fitting(task):
        config, model = task.prepare(run_of(task, y), x, y)
        data = data_of(x, y).shaped(model.sample_shape)
        data.check(model, LOSSES[config.loss])
        assert LOSSES[config.loss].targets == y.kind


@pytest.mark.parametrize("task", TRAINED, ids=named)
def test_its_runs_learn_to_the_end_and_tell_its_metrics(task: EngineTask[Any]) -> None:
    """By the engine itself, on tiny data of each kind."""
    for (x, y), metric in (
        (fit, metric) for fit in fitting(task) for metric in task.metrics_of(fit[1])
    ):
        run = run_of(task, y, metric)
        config, model = task.prepare(
            replace(run, config={**run.config, "epochs": 2, "batch_size": 16}), x, y
        )
        data = data_of(x, y).shaped(model.sample_shape)
        training = TrainingRun(config, model, data)
        reports = list(training.epochs())
        assert len(reports) == 2
        outcome = training.outcome()
        assert outcome.state == "complete"
        assert outcome.value == outcome.metrics[metric] == reports[-1].metrics[metric]
        assert metric.replace("validation", "test") in outcome.metrics


@pytest.mark.parametrize("task", TRAINED, ids=named)
def test_studies_are_judged_by_metrics_of_their_targets(task: EngineTask[Any]) -> None:
    settings = settings_of(task.example)
    of_all: set[str] = set()
    for x, y in fitting(task):
        metrics = task.metrics_of(y)
        of_all |= set(metrics)
        assert metrics.items() <= task.metrics.items()
        for metric in task.metrics:
            problem = task.unfit(settings, metric, x, y)
            if metric in metrics:
                assert problem is None
            else:
                assert problem is not None
                assert problem[0] == "objective.metric"
                assert all(name in problem[1] for name in metrics)
    assert of_all == set(task.metrics)


@pytest.mark.parametrize("task", TRAINED, ids=named)
def test_it_makes_runs_of_complete_configurations_alone(task: EngineTask[Any]) -> None:
    x, y = next(fitting(task))
    run = run_of(task, y)
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
    # "text" is a word of other things too.
    names = "|".join(task.name for task in BUILT_IN if task.name != "text")
    classes = "|".join(
        name for task in BUILT_IN for name in (type(task).__name__, task.settings.__name__)
    )
    naming = re.compile(rf"""["']({names})["']|\b({classes}|\w+Defaults)\b|tasks\.({names})\b""")
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


@pytest.mark.parametrize("task", TASKS, ids=named)
def test_it_needs_a_process_for_each_run_if_it_is_a_function(task: Task[Any]) -> None:
    assert task.needs_process == isinstance(task, FunctionTask)
    if not isinstance(task, FunctionTask):
        return
    spec = parse_spec(spec_of(task))
    assert task.metrics == {task.metric: spec.objective.direction}
    found = {name: value_in(task.parameters[name]) for name in task.needed}
    params = task.params(spec.run_config(found), 3)
    assert params.keys() == {*task.parameters, "seed"}
    problems = problems_of(spec_of(task, early_stopping={"patience": 1}))
    assert problems == [("early_stopping", "a function decides itself when it ends")]
