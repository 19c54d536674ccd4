"""The sources that a module is made of: its own, and those of all that it imports from here.

Found by reading the imports, those within functions too: what a program was compiled from needs no
list that somebody would have to keep.  Of other packages, the sources of the whole package.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

_PACKAGE = "ridgeline"
_KNOWN = {_PACKAGE, "torch"}
"""Whose version a program's identity names."""

_ROOT = Path(__file__).parents[2]
"""The folder of the package."""


def reachable(modules: Iterable[str]) -> dict[str, Path]:
    """The files of these modules and all that they import within the package, by module name.

    Imports for type checkers alone do not count.
    """
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        path = _path(module)
        if path is not None and module not in found:
            found[module] = path
            waiting += _imports(ast.parse(path.read_bytes()))
    return dict(sorted(found.items()))


def _imports(node: ast.AST) -> Iterator[str]:
    """Names that may be modules: what is imported from one may be one too."""
    if isinstance(node, ast.If) and _is_for_type_checkers(node.test):
        yield from chain.from_iterable(map(_imports, node.orelse))
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _imports(child)


def _is_for_type_checkers(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def _path(module: str) -> Path | None:
    package, *parts = module.split(".")
    if package != _PACKAGE:
        return None
    path = _ROOT.joinpath(*parts)
    candidates = (path / "__init__.py", path.with_suffix(".py"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def package_digest(module: str) -> str:
    """A digest of the Python sources of the package that a module belongs to.

    Of the top-level package with all that lies in it, since a function calls others from anywhere
    in its package.  Worked out once a process, like an import.  Empty for this package and torch,
    whose versions are known otherwise, and for what has no files.
    """
    return _digest_of(module.partition(".")[0])


@cache
def _digest_of(package: str) -> str:
    try:
        spec = None if package in _KNOWN else find_spec(package)
    except (ImportError, ValueError):  # the latter of a script that was started as it stands
        return ""
    if spec is None:
        return ""
    files = [
        (str(path.relative_to(folder)), path)
        for folder in spec.submodule_search_locations or []
        for path in sorted(Path(folder).rglob("*.py"))
    ]
    if spec.has_location and spec.submodule_search_locations is None:
        files.append((package, Path(str(spec.origin))))
    digest = hashlib.sha256()
    for name, path in files:
        digest.update(f"{name}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12] if files else ""
