"""docs/tasks.md names everything a spec can say about a built-in task, with its true default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ridgeline.search.tasks.any_settings import settings_of
from ridgeline.search.tasks.base import Task
from ridgeline.search.tasks.built_in import BUILT_IN as DATASETS
from ridgeline.search.tasks.model_task import METRICS
from ridgeline.search.tasks.registry import BUILT_IN
from ridgeline.search.tasks.settings import Bag, Split

PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()
TASKS = [task for task in BUILT_IN if task.trained_by == "workers"]
SHARED = {
    "dataset": "needed",
    "class_weights": "null",
    "split": "see below",
    "defaults": "see below",
}


def defaults_in(heading: str) -> dict[str, str]:
    """The second column of a section's tables, by the first."""
    section = re.split(r"^#+ ", PAGE.partition(f"{heading}\n")[2], flags=re.MULTILINE)[0]
    return dict(re.findall(r"^\| `(\w+)` \| `?([^|`]+)`? \|", section, re.MULTILINE))


def spoken(value: object) -> str:
    """As YAML has it."""
    if value is None:
        return "null"
    if isinstance(value, tuple):
        return str(list(value))
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_parameters(task: Task[Any]) -> None:
    told = defaults_in("## Parameters")
    defaults = task.defaults(None)
    assert task.parameters is not None
    for name in task.parameters:
        assert told[name] == spoken(defaults.get(name, "budget.epochs")), name


def test_settings_that_tasks_share() -> None:
    for task in TASKS:
        assert set(SHARED) < task.settings.model_fields.keys()
    assert defaults_in("# Tasks and data sets") == SHARED


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_settings(task: Task[Any]) -> None:
    fields = task.settings.model_fields
    own = {
        name: spoken(field.default)
        for name, field in fields.items()
        if name != "name" and name not in SHARED
    }
    assert defaults_in(f"## The task `{task.name}`") == own
    assert f"[`{task.name}`](#the-task-{task.name})" in PAGE


def test_the_examples_are_settings() -> None:
    examples = re.findall(r"^```yaml\n(task:.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert examples
    for text in examples:
        settings_of(yaml.safe_load(text)["task"])


@pytest.mark.parametrize(("name", "default"), Split().model_dump().items())
def test_split(name: str, default: object) -> None:
    assert defaults_in("### Splits")[name] == spoken(default)


@pytest.mark.parametrize(("name", "default"), Bag().model_dump().items())
def test_bag(name: str, default: object) -> None:
    assert defaults_in("#### Bags")[name] == str(default)


@pytest.mark.parametrize("name", DATASETS)
def test_data_sets(name: str) -> None:
    assert f"| `{name}` |" in PAGE


def test_metrics() -> None:
    rows = re.findall(r"^\|[^|]*\| `(validation_\w+)` \| `(\w+)` \|", PAGE, re.MULTILINE)
    assert set(rows) == {pair for metrics in METRICS.values() for pair in metrics.items()}
