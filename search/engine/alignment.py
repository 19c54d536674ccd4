"""Where rows and parameters begin: on lines of memory, so that each slot has the same kernels."""

from __future__ import annotations

ALIGNMENT = 16
"""Numbers on a 64-byte line of float32; rows and parameters of every slot begin on one."""


def round_up(size: int) -> int:
    """The next multiple of ALIGNMENT."""
    return -(-size // ALIGNMENT) * ALIGNMENT
