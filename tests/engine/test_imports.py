"""What the engine needs: torch and numpy, and of what only describes not even torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from ridgeline.search import engine
from ridgeline.search.engine import sources

WITHOUT_TORCH = (
    "config",
    "models.registry",
    "pruning",
    "rates",
    "spec",
    "stopping",
)


@pytest.mark.parametrize("module", ["", *(f".{name}" for name in WITHOUT_TORCH)])
def test_what_describes_needs_no_torch(module: str) -> None:
    code = (
        f"import sys, ridgeline.search.engine{module}\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_name_of_the_package_is_there() -> None:
    assert sorted(engine._PLACE_OF) == sorted(engine.__all__)
    for name in engine.__all__:
        assert getattr(engine, name) is not None
    with pytest.raises(AttributeError, match="no attribute ModelShape"):
        _ = engine.ModelShape  # type: ignore[attr-defined]


def test_no_module_but_those_of_the_models_knows_one() -> None:
    """A new model is to touch `models` alone."""
    folder = Path(sources.__file__).parent
    for path in folder.glob("*.py"):
        imported = "\n".join(sources._imports(ast.parse(path.read_text())))
        assert "models.mlp" not in imported, path.name
