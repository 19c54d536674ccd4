"""How threads compute on a CPU, and the crew of them that trains packs side by side.

A pack of small steps trains on one thread, and several such packs side by side.  One pack on
several threads would wait at the end of each operation for its slowest thread: where something
else needs a core for a moment, an epoch then takes 10 to 80 times as long.

Numbers below 1e-38 (denormals) cost a processor some hundred cycles each, and Adam's moments get
there where l2 is large.  Threads here flush them to 0.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")

_SMALLEST_NORMAL = sys.float_info.min

BUSY_FLOPS = 1e9
"""Of the products of one run's step, past which it keeps several threads busy: some 10 ms on one
core, against which the wait for the slowest thread is short."""


def threads_for_step(flops: float, device: torch.device, num_threads: int) -> int:
    """On how many of a device's threads a pack is to train; 0 for a device that is no CPU.

    Args:
        flops: of the products of one run's step.
        num_threads: of the device.
    """
    if device.type != "cpu":
        return 0
    return num_threads if flops >= BUSY_FLOPS else 1


def can_flush_denormals(device: torch.device) -> bool:
    """Whether `computing` flushes denormals to 0 on this device."""
    if device.type != "cpu":
        return False
    was_flushing = is_flushing()
    can = torch.set_flush_denormal(True)
    torch.set_flush_denormal(was_flushing)
    return can


@contextmanager
def computing(num_threads: int) -> Iterator[None]:
    """The calling thread computes on so many threads meanwhile and flushes denormals.

    The threads that it starts inherit that; those it has started before do not, so a step that
    takes several needs a thread of a `Crew`.

    On a GPU cuDNN takes meanwhile none of its kernels that add up in an order that varies.

    Args:
        num_threads: 0 for a device that is no CPU.
    """
    if num_threads == 0:
        with _deterministic():
            yield
        return
    threads_before, was_flushing = torch.get_num_threads(), is_flushing()
    _set(num_threads, flush=True)
    try:
        yield
    finally:
        _set(threads_before, flush=was_flushing)


@contextmanager
def _deterministic() -> Iterator[None]:
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark  # which times kernels, and takes the fastest
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


def _set(num_threads: int, *, flush: bool) -> None:
    torch.set_flush_denormal(flush)
    if torch.get_num_threads() != num_threads:  # setting it empties oneDNN's cache
        torch.set_num_threads(num_threads)


def is_flushing() -> bool:
    """Whether the calling thread flushes denormals to 0."""
    return _SMALLEST_NORMAL * 0.5 == 0  # by the processor, which the setting is one of


class Crew:
    """Threads that each do one job at a time.

    Args:
        size: how many.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._pool = ThreadPoolExecutor(size, "training", initializer=lambda: _set(1, flush=True))

    def start(self, job: Callable[[], T]) -> Future[T]:
        """Have a job done."""
        return self._pool.submit(job)

    @staticmethod
    def first_done(jobs: set[Future[T]]) -> set[Future[T]]:
        """Those of the jobs that are done; waits for one where none is."""
        return wait(jobs, return_when=FIRST_COMPLETED).done
