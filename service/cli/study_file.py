"""Study files: specs from YAML, and errors that name file and line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from ridgeline.search.comparison import ComparisonSpec, parse_comparison
from ridgeline.search.space import Config
from ridgeline.search.spec import InvalidSpec, StudyName, StudySpec, parse_spec
from ridgeline.service.cli.problems import Problem, input_problems
from ridgeline.service.cli.yaml_file import parse_yaml, read_yaml, refused
from ridgeline.service.client import ApiError, Client
from ridgeline.service.resources import Study

_NAME = TypeAdapter[str](StudyName)


def load_study(path: Path) -> StudySpec:
    """The study that a YAML (or JSON) file describes.

    Raises:
        Problem: the file cannot be read, is no YAML, or is no study; one line for each problem,
            beginning with the file's name and the line it is about.
    """
    return _load(path)[0]


@dataclass(frozen=True)
class ComparisonFile:
    """A comparison, and the file that it is from."""

    spec: ComparisonSpec
    path: Path
    root: yaml.Node | None

    def refused(self, problems: Iterable[tuple[str, str]]) -> Problem:
        """What the service has against the comparison, in the words of `load_comparison`."""
        return refused(self.path, self.root, problems)


def load_comparison(path: Path) -> ComparisonFile:
    """The comparison that a YAML (or JSON) file describes.

    Raises:
        Problem: as of `load_study`.
    """
    root, data = _mapping(path, "a comparison")
    try:
        return ComparisonFile(parse_comparison(data), path, root)
    except InvalidSpec as exc:
        raise refused(path, root, exc.problems) from exc


def post_study(client: Client, path: Path, *, name: str | None = None) -> Study:
    """Post the study that a file describes, under another name where one is given.

    Raises:
        Problem: as `load_study`, and in the same words where it is the service that refuses it;
            the name cannot be one, or is taken.
        ClientError: the service cannot take it for another reason.
    """
    spec, root = _load(path)
    if name is not None:
        with input_problems(lambda _field: "--name"):
            spec = spec.model_copy(update={"name": _NAME.validate_python(name)})
    try:
        return client.create_study(spec)
    except ApiError as exc:
        if exc.status == HTTPStatus.CONFLICT:
            raise Problem(
                f"there is a study named {spec.name} already: give this one another name with "
                f"--name, or delete that one with `ridgeline delete {spec.name}`"
            ) from exc
        if exc.status != HTTPStatus.UNPROCESSABLE_ENTITY or not exc.problems:
            raise
        raise refused(path, root, exc.problems) from exc


def load_configs(path: Path) -> list[Config]:
    """The configurations that a YAML (or JSON) file lists.

    Raises:
        Problem: the file cannot be read, or has no list of mappings.
    """
    _, data = read_yaml(path)
    if not isinstance(data, list) or not all(isinstance(config, dict) for config in data):
        line = f"{path}: must be a list of mappings, such as - {{learning_rate: 0.01}}"
        raise Problem(line, exit_code=2)
    return data


def parse_changes(texts: Iterable[str]) -> dict[str, Any]:
    """Changes of a spec from texts such as `budget.trials=50`, whose values are YAML.

    Raises:
        Problem: one of them is no such text, or sets a field once more.
    """
    changes: dict[str, Any] = {}
    wholes: set[str] = set()
    for text in texts:
        field, equals, value = text.partition("=")
        *parts, last = field.split(".")
        if not equals or not all((*parts, last)):
            raise Problem(f"--set {text}: must be like budget.trials=50", exit_code=2)
        inner = changes
        for depth, part in enumerate(parts, start=1):
            if ".".join(parts[:depth]) in wholes:
                raise Problem(f"--set {text}: {part} is set as a whole already", exit_code=2)
            inner = inner.setdefault(part, {})
        if last in inner:
            raise Problem(f"--set {text}: {field} is set already", exit_code=2)
        inner[last] = _value(text, value)
        wholes.add(field)
    return changes


def parse_config(texts: Iterable[str]) -> Config:
    """Values of parameters from texts such as `learning_rate=0.01`, whose values are YAML.

    Raises:
        Problem: one of them is no such text, or names a parameter once more.
    """
    config: Config = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise Problem(f"--set {text}: must be like learning_rate=0.01", exit_code=2)
        if name in config:
            raise Problem(f"--set {text}: {name} is set already", exit_code=2)
        config[name] = _value(text, value)
    return config


def _value(text: str, value: str) -> Any:
    """What a value given with --set means, as YAML; `text` is all of what was given."""
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise Problem(f"--set {text}: must be text in UTF-8", exit_code=2) from exc
    return parse_yaml(value.encode(), Path("--set"))[1]


def _load(path: Path) -> tuple[StudySpec, yaml.Node | None]:
    root, data = _mapping(path, "a study")
    try:
        return parse_spec(data), root
    except InvalidSpec as exc:
        raise refused(path, root, exc.problems) from exc


def _mapping(path: Path, what: str) -> tuple[yaml.Node | None, dict[str, Any]]:
    """What a file holds, with its places in the file."""
    root, data = read_yaml(path)
    if not isinstance(data, dict):
        raise Problem(f"{path}:1: {what} is a mapping that begins with name:", exit_code=2)
    return root, data
