"""The version of the numerics goes up whenever results may have other bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ridgeline.search.engine import sources
from ridgeline.search.engine.native import Kernels
from ridgeline.search.engine.program import NUMERICS
from tests.engine import numerics

RECORD = numerics.read()
AGAIN = "then write the record anew: python -m tests.engine.numerics"

pytestmark = pytest.mark.skipif(
    str(torch.__version__).partition("+")[0] != RECORD["torch"],
    reason="the record is of another torch",
)


def test_the_record_is_of_this_version() -> None:
    assert RECORD["numerics"] == NUMERICS, f"NUMERICS has changed; {AGAIN}"


def test_what_is_computed_is_what_was_recorded() -> None:
    now = numerics.operations()
    changed = [name for name in now if now[name] != RECORD["operations"].get(name)]
    assert not changed, (
        f"what these forms compute has changed: {', '.join(changed)}. If a run may end with other "
        f"bits than before, raise NUMERICS in search/engine/program.py; {AGAIN}"
    )


def test_results_have_the_bits_that_were_recorded(kernels: Kernels) -> None:
    expected = RECORD["bits"].get(numerics.machine())
    if expected is None:
        pytest.skip("no bits are recorded of this kind of processor")
    now = numerics.bits(kernels)
    changed = [name for name in now if now[name] != expected.get(name)]
    assert not changed, (
        f"results have other bits than before: {', '.join(changed)}. Raise NUMERICS in "
        f"search/engine/program.py; {AGAIN}"
    )


def test_a_change_of_one_operation_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    case = "sgd-norm"
    monkeypatch.setattr(numerics, "MODELS", {case: numerics.MODELS[case]})
    before = numerics.operations()
    monkeypatch.setattr(torch, "rsqrt", lambda x: 1 / x.sqrt())
    after = numerics.operations()
    assert {name for name in before if before[name] != after[name]} == {f"compiled {case}"}


def test_a_program_is_made_of_all_that_its_modules_import() -> None:
    package = "ridgeline.search.engine"
    found = sources.reachable([f"{package}.compiled"])
    traced = ["step", "evaluation", "layout", "losses", "memory", "models.mlp_layers", "optim"]
    assert {f"{package}.{name}" for name in (*traced, "penalty", "rng", "spec")} <= found.keys()
    assert not {f"{package}.pack", f"{package}.lanes"} & found.keys()
    assert all(path.suffix == ".py" for path in found.values())


def test_imports_are_found_wherever_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "import os\n"
        "from ridgeline import b\n"
        "if TYPE_CHECKING:\n    from ridgeline.f import one\nelse:\n    import ridgeline.c\n"
        "def late():\n    from ridgeline.d.e import one\n"
    )
    for name in ("b", "c", "d/__init__", "d/e", "f"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").touch()
    monkeypatch.setattr(sources, "_ROOT", tmp_path)
    found = sources.reachable(["ridgeline.a"])
    assert list(found) == [f"ridgeline.{name}" for name in ("a", "b", "c", "d.e")]
