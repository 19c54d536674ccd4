"""The spec reference, docs/spec.md, has every field with its default, and its examples work."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ridgeline.search.fields import SamplerName
from ridgeline.search.space import Space
from ridgeline.search.spec import StudySpec, parse_spec
from ridgeline.search.tasks.any_settings import SettingsOfInstalled
from ridgeline.search.tasks.registry import BUILT_IN

PAGE = (Path(__file__).parents[2] / "docs" / "spec.md").read_text()
EXAMPLES = re.findall(r"^```yaml\n(name: .*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a field of this type may hold."""
    if get_origin(annotation) in (Annotated, Union, UnionType):
        for part in get_args(annotation):
            yield from _models(part)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        yield prefix + name, field
        if SettingsOfInstalled in field.metadata:
            for task in BUILT_IN:
                # Those of one task alone stand in docs/tasks.md.
                shared = {"name", "dataset", "class_weights", "split", "defaults"}
                yield from (
                    (path, inner)
                    for path, inner in _fields(task.settings, f"{prefix}{name}.")
                    if task.trained_by != "workers" or path.split(".")[1] in shared
                )
        for inner in _models(field.annotation):
            if inner is Space:
                (_, parameter) = get_args(Space.model_fields["root"].annotation)
                for kind in _models(parameter):
                    yield from _fields(kind, "space.*.")
            else:
                yield from _fields(inner, f"{prefix}{name}.")


def test_the_fields_are_found() -> None:
    paths = {path for path, _ in _fields(StudySpec)}
    assert paths >= {
        "name",
        "budget.max_parallel",
        "early_stopping.patience",
        "task.description",
        "task.defaults.l2",
        "pruner.startup",
        "pruner.eta",
        "space.*.zero",
        "space.*.values",
    }


@pytest.mark.parametrize(("path", "field"), list(_fields(StudySpec)))
def test_every_field_is_described_with_its_default(path: str, field: FieldInfo) -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| `{path}` |")]
    assert len(rows) == 1, f"docs/spec.md has {len(rows)} rows for {path}"
    (row,) = rows
    if field.is_required():
        assert "| needed |" in row
    elif isinstance(field.default, BaseModel):
        assert "| see below |" in row
    else:
        # Where kinds have different ones, the cell tells all of them.
        told = rf"\| (`[^|]*; of [^|]*)?`{re.escape(json.dumps(field.default))}`(; of [^|]*)? \|"
        assert re.search(told, row)


def test_every_row_is_a_field() -> None:
    described = re.findall(
        r"^\| `((?:space|task|budget|sampler|pruner|penalty)[^`]*)` \|", PAGE, re.M
    )
    assert set(described) <= {path for path, _ in _fields(StudySpec)}


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: text.splitlines()[0])
def test_the_examples_are_specs(text: str) -> None:
    parse_spec(yaml.safe_load(text))


def test_there_is_an_example_of_each_sampler() -> None:
    samplers = {parse_spec(yaml.safe_load(text)).sampler.name for text in EXAMPLES}
    assert samplers == set(get_args(SamplerName))


def test_the_grid_of_the_example_is_as_told() -> None:
    grid = parse_spec(yaml.safe_load(EXAMPLES[0]))
    assert grid.num_trials == 60
    penalty = grid.space["l2"]
    assert [penalty.grid_value(i) for i in range(5)] == [0, 0.00001, 0.0001, 0.001, 0.01]
