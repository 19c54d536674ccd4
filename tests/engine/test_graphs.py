"""Recording of calls as CUDA graphs, as far as it shows without a GPU; see `test_gpu` too."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from ridgeline.search.engine import graphs


class Graph:
    """Stands in for a CUDA graph: counts how often it is replayed."""

    def __init__(self) -> None:
        self.num_replayed = 0

    def replay(self) -> None:
        self.num_replayed += 1


@pytest.mark.parametrize("fails", [False, True])
def test_no_garbage_is_collected_while_a_graph_is_recorded(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """A pack that has ended is garbage with its graphs, and destroying one ends the recording."""
    seen: list[bool] = []

    @contextmanager
    def recording(_: Graph, **__: Any) -> Iterator[None]:
        seen.append(gc.isenabled())
        yield
        if fails:
            raise RuntimeError("out of memory")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    num_called = 0

    def call() -> None:
        nonlocal num_called
        num_called += 1
        seen.append(gc.isenabled())

    recorded = graphs.Recorded(call)
    for _ in range(graphs._NUM_CALLED):
        recorded()
    assert seen == [True] * graphs._NUM_CALLED
    seen.clear()
    recorded()
    recorded()
    assert seen == [False, False] + [True, True] * fails
    assert gc.isenabled()
    assert num_called == graphs._NUM_CALLED + (3 if fails else 1)
