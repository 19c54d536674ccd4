"""docs/tasks.md names everything a spec can say about the task mlp, with its true default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ridgeline.search.tasks.datasets import BUILT_IN
from ridgeline.search.tasks.mlp import MlpDefaults, MlpSettings, MlpTask
from ridgeline.search.tasks.model_task import METRICS
from ridgeline.search.tasks.settings import Split

PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()
DEFAULTS = dict(re.findall(r"^\| `(\w+)` \| `?([^|`]+)`? \|", PAGE, re.MULTILINE))


def spoken(value: object) -> str:
    """As YAML has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize("name", MlpTask.parameters)
def test_parameters(name: str) -> None:
    default = MlpDefaults().model_dump().get(name, "budget.epochs")
    assert DEFAULTS[name] == spoken(default)


@pytest.mark.parametrize("name", sorted({*MlpSettings.model_fields} - {"name"}))
def test_settings(name: str) -> None:
    default = {"dataset": "needed", "split": "see below", "defaults": "see below"}
    field = MlpSettings.model_fields[name].default
    told = spoken(list(field) if isinstance(field, tuple) else field)
    assert DEFAULTS[name] == default.get(name, told)


@pytest.mark.parametrize(("name", "default"), Split().model_dump().items())
def test_split(name: str, default: float) -> None:
    assert DEFAULTS[name] == str(default)


@pytest.mark.parametrize("name", BUILT_IN)
def test_data_sets(name: str) -> None:
    assert f"| `{name}` |" in PAGE


def test_metrics() -> None:
    rows = re.findall(r"^\|[^|]*\| `(validation_\w+)` \| `(\w+)` \|", PAGE, re.MULTILINE)
    assert set(rows) == {pair for metrics in METRICS.values() for pair in metrics.items()}
