"""Study files: YAML 1.2 scalars, no duplicate keys, and errors that name file and line.

PyYAML speaks YAML 1.1, where `1e-4` is a text, `off` is a boolean and `1:30` is 90.  The resolvers
here are those of the YAML 1.2 core schema (https://yaml.org/spec/1.2.2/#103-core-schema).
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from ridgeline.search.comparison import ComparisonSpec, parse_comparison
from ridgeline.search.fields import MAX_INT
from ridgeline.search.space import Config
from ridgeline.search.spec import InvalidSpec, StudyName, StudySpec, parse_spec
from ridgeline.service.cli.problems import Problem, file_problems, input_problems
from ridgeline.service.client import ApiError, Client
from ridgeline.service.resources import Study

MAX_FILE_BYTES = 2**20

_NAME = TypeAdapter[str](StudyName)

_CORE_SCHEMA = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "float": r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}


class _Loader(yaml.SafeLoader):
    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = self.construct_scalar(node)
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        try:
            return int(text, base)
        except ValueError as exc:  # more digits than Python converts
            raise yaml.constructor.ConstructorError(
                None, None, "this number is too long", node.start_mark
            ) from exc

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        number: float = super().construct_yaml_float(node)
        # As the API reads JSON, whose numbers have one type.
        return int(number) if number.is_integer() and abs(number) <= MAX_INT else number

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if (reason := _key_problem(key, seen)) is not None:
                raise yaml.constructor.ConstructorError(None, None, reason, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _key_problem(key: object, seen: set[object]) -> str | None:
    if not isinstance(key, str):
        hint = "; if it is the rest of a number, write the comma as a point"
        return f"the key {key} is not a text{hint if isinstance(key, int | float) else ''}"
    if key == "<<":
        return "YAML 1.2 has no merge key <<; write the fields out"
    return f"the key {key} stands here twice" if key in seen else None


_Loader.yaml_implicit_resolvers = {
    None: [
        (f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})\Z"))
        for tag, pattern in _CORE_SCHEMA.items()
    ]
}
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


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
        return _refused(self.path, self.root, problems)


def load_comparison(path: Path) -> ComparisonFile:
    """The comparison that a YAML (or JSON) file describes.

    Raises:
        Problem: as of `load_study`.
    """
    root, data = _mapping(path, "a comparison")
    try:
        return ComparisonFile(parse_comparison(data), path, root)
    except InvalidSpec as exc:
        raise _refused(path, root, exc.problems) from exc


def read_yaml(path: Path) -> tuple[yaml.Node | None, Any]:
    """What a YAML (or JSON) file holds, with its places in the file.

    Raises:
        Problem: the file cannot be read or is no YAML.
    """
    with file_problems(f"read {path}", exit_code=2), path.open("rb") as file:
        text = file.read(MAX_FILE_BYTES + 1)
    if len(text) > MAX_FILE_BYTES:
        raise Problem(f"{path}: is larger than {MAX_FILE_BYTES} bytes", exit_code=2)
    return _parse(text, path)


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
        raise _refused(path, root, exc.problems) from exc


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
    return _parse(value.encode(), Path("--set"))[1]


def _load(path: Path) -> tuple[StudySpec, yaml.Node | None]:
    root, data = _mapping(path, "a study")
    try:
        return parse_spec(data), root
    except InvalidSpec as exc:
        raise _refused(path, root, exc.problems) from exc


def _mapping(path: Path, what: str) -> tuple[yaml.Node | None, dict[str, Any]]:
    """What a file holds, with its places in the file."""
    root, data = read_yaml(path)
    if not isinstance(data, dict):
        raise Problem(f"{path}:1: {what} is a mapping that begins with name:", exit_code=2)
    return root, data


def _refused(path: Path, root: yaml.Node | None, problems: Iterable[tuple[str, str]]) -> Problem:
    lines = [
        f"{path}:{_line_of(field, root)}: {field}: {reason}" if field else f"{path}: {reason}"
        for field, reason in problems
    ]
    return Problem(*lines, exit_code=2)


def _parse(text: bytes, path: Path) -> tuple[yaml.Node | None, Any]:
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            return root, None if root is None else loader.construct_document(root)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        line = "" if mark is None else f":{mark.line + 1}"
        reason = ", ".join(part for part in (exc.context, exc.problem) if part)
        raise Problem(f"{path}{line}: {reason}", exit_code=2) from exc
    except yaml.YAMLError as exc:
        raise Problem(f"{path}: {str(exc).splitlines()[0]}", exit_code=2) from exc
    except RecursionError as exc:
        raise Problem(f"{path}: is nested too deeply", exit_code=2) from exc


def _line_of(field: str, root: yaml.Node | None) -> int:
    """The line, counted from 1, of the field or of the nearest part around it that is there."""
    node, line = root, 1
    while field and node is not None:
        found = next(
            (
                (key, value)
                for name, key, value in _children(node)
                if field == name or field.startswith(f"{name}.")
            ),
            None,
        )
        if found is None:
            break
        key, node = found
        line = key.start_mark.line + 1
        field = field[len(str(key.value)) + 1 :] if key is not node else field.partition(".")[2]
    return line


def _children(node: yaml.Node) -> list[tuple[str, yaml.Node, yaml.Node]]:
    """(name, the node that names it, its value) of what a mapping or a list holds."""
    if isinstance(node, yaml.MappingNode):
        return [(str(key.value), key, value) for key, value in node.value]
    if isinstance(node, yaml.SequenceNode):
        return [(str(index), item, item) for index, item in enumerate(node.value)]
    return []
