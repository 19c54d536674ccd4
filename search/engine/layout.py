"""Where each parameter lies in a slot's row of numbers.

All parameters of a slot lie in one row of a `[K, P]` buffer, so an optimizer step is one
elementwise pass over it, whatever the number of layers.  Weight matrices come first: what a penalty
acts on is then a slice, not a mask.  Every parameter starts on a 64-byte line (for float32; more
for float64), and P is a multiple of that: the same kernels then run for every slot, to the bit.

# K slots, P numbers a slot, H units out, D units in
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from search.engine import rng
from search.engine.config import ModelShape
from search.engine.spec import round_up


@dataclass(frozen=True)
class _Segment:
    shape: tuple[int, ...]
    offset: int

    @property
    def span(self) -> slice:
        return slice(self.offset, self.offset + math.prod(self.shape))


class Layout:
    """Named tensors within one row; the gaps between them hold zeros."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        offset = 0
        self._segments: dict[str, _Segment] = {}
        for name, shape in shapes.items():
            self._segments[name] = _Segment(shape, offset)
            offset = round_up(offset + math.prod(shape))
        self.row_size = offset

    def views(self, rows_KP: Tensor) -> dict[str, Tensor]:
        """Every tensor as a view [K, *shape] of the rows."""
        return {
            name: rows_KP[:, segment.span].view(-1, *segment.shape)
            for name, segment in self._segments.items()
        }


class ParameterLayout(Layout):
    """The parameters of a model: matrices, then biases, then scales and shifts of batch norms.

    Names are `layers.0.weight` [H, D], `layers.0.bias` [H], `norms.0.weight` [H] and so on, as
    `nn.Linear` and `nn.BatchNorm1d` in two `nn.ModuleList`s would have them.
    """

    def __init__(self, shape: ModelShape) -> None:
        widths = shape.widths
        matrices = {
            f"layers.{i}.weight": (widths[i + 1], widths[i]) for i in range(len(widths) - 1)
        }
        biases = {f"layers.{i}.bias": (widths[i + 1],) for i in range(len(widths) - 1)}
        norms = {
            f"norms.{i}.{kind}": (width,)
            for i, width in enumerate(shape.hidden if shape.batch_norm else ())
            for kind in ("weight", "bias")
        }
        super().__init__({**matrices, **biases, **norms})
        self.shape = shape
        self.num_matrix_entries = sum(math.prod(matrix) for matrix in matrices.values())
        self.matrices_end = self._segments["layers.0.bias"].offset
        self._bounds_P, self._starts_P = torch.zeros(2, self.row_size, dtype=torch.float64)
        for i, width in enumerate(widths[:-1]):
            for kind in ("weight", "bias"):
                self._bounds_P[self._segments[f"layers.{i}.{kind}"].span] = width**-0.5
        for name, segment in self._segments.items():
            if name.startswith("norms.") and name.endswith(".weight"):
                self._starts_P[segment.span] = 1

    def initial_row(self, seed: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Initial parameters, distributed as `nn.Linear` and `nn.BatchNorm1d` draw theirs.

        Weights and biases of a linear layer are uniform in ±1/√(units in) (what
        `kaiming_uniform_(a=√5)` amounts to); scales are 1, shifts 0.

        Returns:
            [P].
        """
        row_P = rng.uniform(seed, rng.Stream.WEIGHTS, 0, self.row_size, device=device, dtype=dtype)
        row_P.mul_(2).sub_(1).mul_(self._bounds_P.to(device, dtype))
        return row_P.add_(self._starts_P.to(device, dtype))


class StatisticsLayout(Layout):
    """The running statistics of a model's batch norms; an empty row where it has none."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__(
            {
                f"norms.{i}.{kind}": (width,)
                for i, width in enumerate(shape.hidden if shape.batch_norm else ())
                for kind in ("running_mean", "running_var")
            }
        )

    def initial_row(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Means of 0 and variances of 1, [Q]."""
        row_Q = torch.zeros(self.row_size, device=device, dtype=dtype)
        for name, view in self.views(row_Q[None]).items():
            if name.endswith(".running_var"):
                view.fill_(1)
        return row_Q


@lru_cache(maxsize=64)
def layouts(shape: ModelShape) -> tuple[ParameterLayout, StatisticsLayout]:
    """Both layouts of a model; remembered, since widths and evaluations ask for them often."""
    return ParameterLayout(shape), StatisticsLayout(shape)
