"""Which library takes the matrix products of a CPU, and what their bits depend on.

torch gives those of float32 to MKL, which uses vectors of 256 bits on processors that are not
Intel's: 205 of the 510 Gflop/s of two Zen 5 cores.  oneDNN, which torch brings along as well, uses
the 512 that there are, and comes to 450.  torch hands it such a product only with leave to round
its factors to bfloat16 (`torch.backends.mkldnn.matmul.fp32_precision`).  Without AMX, which these
processors do not have, oneDNN has no use for that leave and computes in float32; this is not taken
on trust but tried, once a process.

A pack multiplies the matrices of all its slots in one call.  Where a slot's product is the same
bits however many slots the call has, a pack may leave out those without a run.  It is so in both
libraries but for a few small shapes; this is tried as well, for each shape.

# K slots, B rows of a batch, D units in, H units out
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from threading import Lock
from typing import Any, ClassVar

import torch
from torch import Tensor

from ridgeline.search.engine import processor
from ridgeline.search.engine.alignment import round_up

_LEAST_FLOPS = 2e7
"""Of the products of a step, past which oneDNN is faster: calling it costs 12 µs, and MKL 3."""

_matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]


def has_choice(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products are for one library or the other by their size."""
    return device.type == "cpu" and dtype == torch.float32 and _has_wider_onednn()


def multiplies_with_onednn(flops: float, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products of so many flop in all are for oneDNN; on a processor always the same."""
    return flops >= _LEAST_FLOPS and has_choice(device, dtype)


def products(
    flops: float, device: torch.device, dtype: torch.dtype
) -> AbstractContextManager[None]:
    """In which the faster library takes products of so many flop in all; can be entered again.

    The setting is the process's: threads that are within at the same time must want the same
    library, where there is a choice.
    """
    if not has_choice(device, dtype):
        return nullcontext()
    return _Library(with_onednn=multiplies_with_onednn(flops, device, dtype))


class _Library(AbstractContextManager[None]):
    _lock = Lock()
    _users: ClassVar[list[bool]] = []
    """What each of those within wants."""
    _before: ClassVar[Any] = None

    def __init__(self, *, with_onednn: bool) -> None:
        self._with_onednn = with_onednn

    def __enter__(self) -> None:
        with self._lock:
            if self._users:
                assert self._users[0] == self._with_onednn, "another thread wants the other library"
            elif self._with_onednn:
                _Library._before = _matmul.fp32_precision
                _matmul.fp32_precision = "bf16"
            self._users.append(self._with_onednn)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users.pop()
            if self._with_onednn and not self._users:
                _matmul.fp32_precision = _Library._before


@cache
def _has_wider_onednn() -> bool:
    """Whether oneDNN uses wider vectors than MKL here, and still computes in float32."""
    is_others = processor.maker() not in ("GenuineIntel", "")
    if not is_others or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    # Numbers that a bfloat16 cannot hold, which a product with 1 is to leave as they are.
    fine = (1 + torch.arange(2.0**14) * 2.0**-23).view(2, 64, 128)
    before, _matmul.fp32_precision = _matmul.fp32_precision, "bf16"
    try:
        return torch.equal(torch.bmm(fine, torch.eye(128).expand(2, -1, -1)), fine)
    finally:
        _matmul.fp32_precision = before


def counts_show(left_KMN: Tensor, right_KNO: Tensor) -> bool:
    """Whether bits of a slot's product depend on how many slots are multiplied at once.

    The caller computes on one thread of a CPU, and has chosen the library.
    """
    num_slots = len(left_KMN)
    all_KMO = _product(left_KMN, right_KNO)
    # A few, since packs open often: a single one is a case of its own to both libraries, and what
    # they choose by the size of the call changes once.
    return not all(
        torch.equal(_product(left_KMN[:count], right_KNO[:count]), all_KMO[:count])
        for count in (2**i for i in range((num_slots - 1).bit_length()))
    )


def _product(left_KMN: Tensor, right_KNO: Tensor) -> Tensor:
    shape = len(left_KMN), left_KMN.shape[1], right_KNO.shape[2]
    return torch.bmm(left_KMN, right_KNO, out=_stack(*shape, left_KMN.dtype))


def random_stack(num_slots: int, num_rows: int, num_columns: int, dtype: torch.dtype) -> Tensor:
    """A factor to try: the same numbers in each slot, since it is their number that matters."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(num_rows, num_columns, generator=generator, dtype=dtype)
    return _stack(num_slots, num_rows, num_columns, dtype).copy_(numbers)


def _stack(num_slots: int, num_rows: int, num_columns: int, dtype: torch.dtype) -> Tensor:
    """A matrix a slot, each on a 64-byte line, as `layout.Stacks` has them."""
    size = num_rows * num_columns
    numbers = torch.empty(num_slots, round_up(size), dtype=dtype)
    return numbers[:, :size].view(num_slots, num_rows, num_columns)
