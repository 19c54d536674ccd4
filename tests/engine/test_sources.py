"""What a digest of a package's sources follows from."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from ridgeline.search.engine import sources
from ridgeline.search.engine.sources import package_digest


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def digest(module: str) -> str:
    """As a new process would work it out."""
    sources._digest_of.cache_clear()
    importlib.invalidate_caches()
    return package_digest(module)


def test_every_file_of_a_package_counts(tmp_path: Path) -> None:
    (tmp_path / "rl_nets" / "deep").mkdir(parents=True)
    for name in ("__init__.py", "deep/__init__.py", "deep/blocks.py"):
        (tmp_path / "rl_nets" / name).touch()
    first = digest("rl_nets.deep.blocks")
    assert len(first) == 12
    assert digest("rl_nets") == first
    (tmp_path / "rl_nets" / "data.bin").write_bytes(b"not a source")
    assert digest("rl_nets") == first
    (tmp_path / "rl_nets" / "deep" / "blocks.py").write_text("# another network\n")
    second = digest("rl_nets.deep")
    assert second != first
    (tmp_path / "rl_nets" / "deep" / "blocks.py").rename(tmp_path / "rl_nets" / "blocks.py")
    assert digest("rl_nets") not in {first, second}


def test_a_module_by_itself_is_its_file(tmp_path: Path) -> None:
    file = tmp_path / "rl_net.py"
    file.write_text("WIDTH = 8\n")
    first = digest("rl_net")
    file.write_text("WIDTH = 9\n")
    assert first
    assert digest("rl_net") not in {"", first}


@pytest.mark.parametrize("module", ["ridgeline.search.engine", "torch.nn", "nowhere", "sys"])
def test_others_have_none(module: str) -> None:
    assert digest(module) == ""
