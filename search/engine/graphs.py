"""Calls on a GPU as CUDA graphs: the same kernels in the same order, launched at once.

The host takes longer to call the operations of a small step one by one than the GPU to compute
them.  A replayed call changes the same memory in the same way, so no bit of a result.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ridgeline.search.engine.evaluation import TracedEvaluation
from ridgeline.search.engine.losses import LOSSES
from ridgeline.search.engine.spec import StepSpec
from ridgeline.search.engine.step import Step, Terms

_NUM_CALLED = 3
"""Calls before one is recorded: the first ones make what cannot be recorded, such as the trace of a
module or a library's handle, and recording takes as long as so many."""

_log = logging.getLogger(__name__)


def records(spec: StepSpec, device: torch.device) -> bool:
    """Whether steps and evaluations are recorded.

    A module that cannot be traced may wait for the device, or do other things than compute.
    """
    return device.type == "cuda" and spec.model.compiles


class Recorded:
    """What is called some times, recorded, and replayed from then on.

    Args:
        call: changes nothing but tensors of the GPU, at the same places each time, and never waits
            for it.
        pool: of memory that recordings share which are replayed one at a time.
    """

    def __init__(self, call: Callable[[], None], pool: Any = None) -> None:
        self._call, self._pool = call, pool
        self._num_called = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._is_recordable = True

    def __call__(self) -> None:
        if self._graph is None and self._is_recordable and self._num_called >= _NUM_CALLED:
            self._graph = self._record()
        if self._graph is not None:
            self._graph.replay()
        else:
            self._num_called += 1
            self._call()

    def _record(self) -> torch.cuda.CUDAGraph | None:
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may use the GPU meanwhile.
            with (
                _no_garbage_collected(),
                torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"),
            ):
                self._call()
        except RuntimeError as exc:  # out of memory, too
            self._is_recordable = False
            reason = str(exc).partition("\n")[0]
            _log.warning("a step is called operation by operation, not recorded: %s", reason)
            return None
        return graph


@contextmanager
def _no_garbage_collected() -> Iterator[None]:
    """Packs that have ended are garbage with their graphs; destroying one ends a recording."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class RecordedSteps:
    """Steps of a pack, recorded for each set of terms."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._pool = torch.cuda.graph_pool_handle()
        self._recorded: dict[Terms, Recorded] = {}

    def __call__(self, terms: Terms, count: int) -> None:
        if terms not in self._recorded:
            self._recorded[terms] = Recorded(lambda: self._step(terms), self._pool)
        for _ in range(count):
            self._recorded[terms]()


def recorded_evaluation(
    spec: StepSpec, chunks: Sequence[Mapping[str, Tensor]]
) -> Callable[[int], None]:
    """As `evaluation.BindEvaluation` has it, but for always evaluating all slots."""
    evaluation = TracedEvaluation(spec.model, LOSSES[spec.loss])

    def evaluate() -> None:
        for chunk in chunks:
            evaluation(dict(chunk))

    recorded = Recorded(evaluate)
    return lambda num_slots: recorded()
