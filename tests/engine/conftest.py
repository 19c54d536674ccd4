from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ridgeline.search.engine import native, open_pack
from ridgeline.search.engine.native import Kernels
from tests.parallel import locked


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tensors this small gain nothing from a second thread, and lose much on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def kernels_folder(shared_folder: Path) -> Path:
    """A folder with the native kernels."""
    folder = shared_folder / "kernels"
    folder.mkdir(exist_ok=True)
    with locked(shared_folder / "kernels.lock"):
        assert native.kernels(folder) is not None, "the tests need a C++ compiler"
    return folder


@pytest.fixture(scope="session")
def kernels(kernels_folder: Path) -> Kernels:
    found = native.kernels(kernels_folder)
    assert found is not None
    return found


@pytest.fixture(params=["eager", "native"])
def program(request: pytest.FixtureRequest, kernels: Kernels) -> dict[str, Any]:
    """What a pack is told of its form; natively it has whole steps of some models, or updates."""
    return {"kernels": kernels} if request.param == "native" else {}


@pytest.fixture
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack goes on to the end of an epoch, and lanes take turns, however slow the machine is."""
    ticking = SimpleNamespace(perf_counter=itertools.count().__next__)
    monkeypatch.setattr(open_pack, "time", ticking)
    monkeypatch.setattr(open_pack, "ADVANCE_SECONDS", 1e9)
