"""Which library takes the matrix products of a CPU.

torch gives those of float32 to MKL, which uses vectors of 256 bits on processors that are not
Intel's: 205 of the 510 Gflop/s of two Zen 5 cores.  oneDNN, which torch brings along as well, uses
the 512 that there are, and comes to 450.  torch hands it such a product only with leave to round
its factors to bfloat16 (`torch.backends.mkldnn.matmul.fp32_precision`).  Without AMX, which these
processors do not have, oneDNN has no use for that leave and computes in float32; this is not taken
on trust but tried, once a process.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from itertools import pairwise

import torch

from search.engine import processor
from search.engine.config import ModelShape

_LEAST_FLOPS = 2e7
"""Of the products of a step, past which oneDNN is faster: calling it costs 12 µs, and MKL 3."""

_matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]


def forward_flops(shape: ModelShape, num_rows: int) -> int:
    """Of the products that one model's logits of so many rows take."""
    return sum(2 * num_rows * d * h for d, h in pairwise(shape.widths))


def step_flops(shape: ModelShape, num_rows: int) -> int:
    """Of the products of one model's step; the first layer's input needs no gradient."""
    first = 2 * num_rows * shape.widths[0] * shape.widths[1]
    return 3 * forward_flops(shape, num_rows) - first


def multiplies_with_onednn(flops: float, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether products of so many flop in all are for oneDNN; on a processor always the same."""
    is_float32 = device.type == "cpu" and dtype == torch.float32
    return is_float32 and flops >= _LEAST_FLOPS and _has_wider_onednn()


def products(
    flops: float, device: torch.device, dtype: torch.dtype
) -> AbstractContextManager[None]:
    """In which the faster library takes products of so many flop in all; can be entered again.

    The setting is the process's: it holds for its other threads meanwhile.
    """
    return _OneDnn() if multiplies_with_onednn(flops, device, dtype) else nullcontext()


class _OneDnn(AbstractContextManager[None]):
    def __enter__(self) -> None:
        self._before = _matmul.fp32_precision
        _matmul.fp32_precision = "bf16"

    def __exit__(self, *error: object) -> None:
        _matmul.fp32_precision = self._before


@cache
def _has_wider_onednn() -> bool:
    """Whether oneDNN uses wider vectors than MKL here, and still computes in float32."""
    is_others = processor.maker() not in ("GenuineIntel", "")
    if not is_others or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    # Numbers that a bfloat16 cannot hold, which a product with 1 is to leave as they are.
    fine = (1 + torch.arange(2.0**14) * 2.0**-23).view(2, 64, 128)
    with _OneDnn():
        return torch.equal(torch.bmm(fine, torch.eye(128).expand(2, -1, -1)), fine)
