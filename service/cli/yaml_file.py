"""YAML of people's files: YAML 1.2 scalars, no duplicate keys, errors that name file and line.

PyYAML speaks YAML 1.1, where `1e-4` is a text, `off` is a boolean and `1:30` is 90.  The resolvers
here are those of the YAML 1.2 core schema (https://yaml.org/spec/1.2.2/#103-core-schema).
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import yaml

from ridgeline.search.fields import MAX_INT
from ridgeline.service.cli.problems import Problem, file_problems

MAX_FILE_BYTES = 2**20

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


class _FloatLoader(_Loader):
    """Tells 1.0 from 1, as other tools do that take the one for a real number."""

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        return yaml.SafeLoader.construct_yaml_float(self, node)


_Loader.yaml_implicit_resolvers = _FloatLoader.yaml_implicit_resolvers = {
    None: [
        (f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})\Z"))
        for tag, pattern in _CORE_SCHEMA.items()
    ]
}
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)
_FloatLoader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_FloatLoader.add_constructor("tag:yaml.org,2002:float", _FloatLoader.construct_yaml_float)


class _Dumper(yaml.SafeDumper):
    """Writes in quotes what is a text in YAML 1.1 alone, such as 1e-4, and no anchors."""

    def represent_text(self, text: str) -> yaml.Node:
        is_other = any(re.fullmatch(pattern, text) for pattern in _CORE_SCHEMA.values())
        return self.represent_scalar("tag:yaml.org,2002:str", text, style='"' if is_other else None)

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(str, _Dumper.represent_text)


def read_yaml(path: Path, *, keeps_floats: bool = False) -> tuple[yaml.Node | None, Any]:
    """What a YAML (or JSON) file holds, with its places in the file.

    Args:
        keeps_floats: whether 1.0 stays a float; else it is the whole number 1.

    Raises:
        Problem: the file cannot be read or is no YAML.
    """
    with file_problems(f"read {path}", exit_code=2), path.open("rb") as file:
        text = file.read(MAX_FILE_BYTES + 1)
    if len(text) > MAX_FILE_BYTES:
        raise Problem(f"{path}: is larger than {MAX_FILE_BYTES} bytes", exit_code=2)
    return parse_yaml(text, path, _FloatLoader if keeps_floats else _Loader)


def yaml_text(data: Any) -> str:
    """Plain data as YAML that `read_yaml` and readers of YAML 1.1 take for the same."""
    text: str = yaml.dump(
        data,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None,
        width=100,
    )
    return text


def refused(path: Path, root: yaml.Node | None, problems: Iterable[tuple[str, str]]) -> Problem:
    """(field, reason) pairs about what a file holds, as lines with the file and the line in it."""
    lines = [
        f"{path}:{_line_of(field, root)}: {field}: {reason}" if field else f"{path}: {reason}"
        for field, reason in problems
    ]
    return Problem(*lines, exit_code=2)


def parse_yaml(
    text: bytes, path: Path, loader_class: type[_Loader] = _Loader
) -> tuple[yaml.Node | None, Any]:
    """What a text holds, with its places in the text.

    Args:
        path: the name that errors give it.

    Raises:
        Problem: it is no YAML.
    """
    try:
        loader = loader_class(text)
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
