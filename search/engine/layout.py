"""Where each parameter lies in a slot's row of numbers, and the rows of many slots in memory.

What is penalised comes first in a row, so what a penalty acts on is a stretch of it, not a mask.
Every parameter starts on a 64-byte line (for float32; more for float64), and P is a multiple of
that: the same kernels then run for every slot, to the bit.

# K slots, P parameters a slot, Q statistics a slot, R numbers of a stretch
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from ridgeline.search.engine import rng
from ridgeline.search.engine.alignment import round_up
from ridgeline.search.engine.models.base import Model


@dataclass(frozen=True)
class _Segment:
    shape: tuple[int, ...]
    offset: int

    def span(self, start: int = 0) -> slice:
        """Its place in a row, or in a part of one that starts at `start`."""
        return slice(self.offset - start, self.offset - start + math.prod(self.shape))


class Layout:
    """Named tensors within one row; the gaps between them hold zeros.

    Args:
        alone: those that are a stretch of their own in `Stacks`; they come before all others.

    Attributes:
        row_size: P.
        stretches: the parts of a row that `Stacks` keeps apart, in order.
    """

    def __init__(
        self, shapes: dict[str, tuple[int, ...]], alone: Container[str] = frozenset()
    ) -> None:
        offset = 0
        starts = []
        self._segments: dict[str, _Segment] = {}
        for name, shape in shapes.items():
            self._segments[name] = _Segment(shape, offset)
            offset = round_up(offset + math.prod(shape))
            if name in alone:
                starts.append(offset)
        self.row_size = offset
        self.stretches = [slice(*ends) for ends in pairwise([0, *starts, offset])]

    def views(self, rows_KP: Tensor) -> dict[str, Tensor]:
        """Every tensor as a view [K, *shape] of the rows."""
        return self.views_within(slice(0, self.row_size), rows_KP)

    def view(self, name: str, rows_KP: Tensor) -> Tensor:
        """One tensor as a view [K, *shape] of the rows."""
        segment = self._segments[name]
        return rows_KP[:, segment.span()].view(-1, *segment.shape)

    def views_of_one(self, row_P: Tensor) -> dict[str, Tensor]:
        """Every tensor as a view of one row, [*shape]."""
        return {name: row_P[s.span()].view(s.shape) for name, s in self._segments.items()}

    def views_within(self, part: slice, rows_KR: Tensor) -> dict[str, Tensor]:
        """The tensors in a part of the row as views of that part of the rows."""
        return {
            name: rows_KR[:, segment.span(part.start)].view(-1, *segment.shape)
            for name, segment in self._segments.items()
            if part.start <= segment.offset < part.stop
        }


class ParameterLayout(Layout):
    """The parameters of a model: those that are penalised, each a stretch of its own, then others.

    Attributes:
        penalised: the names of the first.
        sizes: of each of them, how many numbers it has.
        num_penalised: the numbers in all of them.
        filling: those of them that have no gap behind them: they fill their stretch.
        input_dimensions: as of `Parameter`, of those of them that have one.
        units: of each of them, how many `Parameter.num_units`, and the incoming weights of one.
    """

    def __init__(self, model: Model) -> None:
        self._model, parameters = model, model.parameters()
        ordered = sorted(parameters, key=lambda name: not parameters[name].is_penalised)
        self.penalised = [name for name in ordered if parameters[name].is_penalised]
        super().__init__({name: parameters[name].shape for name in ordered}, alone=self.penalised)
        self.sizes = {name: math.prod(parameters[name].shape) for name in self.penalised}
        self.filling = [name for name, size in self.sizes.items() if size == round_up(size)]
        self.units = [
            (parameters[name].num_units, math.prod(parameters[name].shape[1:]))
            for name in self.penalised
        ]
        dimensions = {name: parameters[name].input_dimension for name in self.penalised}
        self.input_dimensions = {name: d for name, d in dimensions.items() if d is not None}
        self.num_penalised = sum(self.sizes.values())

    def initial_rows(
        self, seeds: Sequence[int], device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        """Initial parameters of runs.

        Returns:
            [K, P] for K seeds.
        """
        own_KP = _own_rows(self, self._model, seeds, device, dtype)
        if own_KP is not None:
            return own_KP
        rows_KP = rng.uniform(
            seeds, rng.Stream.WEIGHTS, 0, self.row_size, device=device, dtype=dtype
        )
        bounds_P, starts_P = self._bounds_and_starts
        rows_KP.mul_(2).sub_(1).mul_(bounds_P.to(device, dtype))
        return rows_KP.add_(starts_P.to(device, dtype))

    @cached_property
    def _bounds_and_starts(self) -> Tensor:
        """[2, P].  Made when needed: a layout tells how much memory a slot would take."""
        both_P = torch.zeros(2, self.row_size, dtype=torch.float64)
        parameters = self._model.parameters()
        for name, segment in self._segments.items():
            both_P[0, segment.span()] = parameters[name].bound
            both_P[1, segment.span()] = parameters[name].start
        return both_P


class StatisticsLayout(Layout):
    """The statistics of a model; an empty row where it has none."""

    def __init__(self, model: Model) -> None:
        self._model, statistics = model, model.statistics()
        super().__init__({name: statistic.shape for name, statistic in statistics.items()})
        self._starts_Q = torch.zeros(self.row_size, dtype=torch.float64)
        for name, segment in self._segments.items():
            self._starts_Q[segment.span()] = statistics[name].start

    def initial_rows(
        self, seeds: Sequence[int], device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        """Initial statistics of runs, [K, Q] for K seeds."""
        own_KQ = _own_rows(self, self._model, seeds, device, dtype)
        if own_KQ is not None:
            return own_KQ
        return self._starts_Q.to(device, dtype).repeat(len(seeds), 1)


def _own_rows(
    layout: Layout, model: Model, seeds: Sequence[int], device: torch.device, dtype: torch.dtype
) -> Tensor | None:
    """Rows of what the model itself begins with; None where it leaves that to its layout."""
    by_run = model.initial(seeds) if layout.row_size > 0 else None
    if by_run is None:
        return None
    rows_KP = torch.zeros(len(seeds), layout.row_size, dtype=dtype)
    views = layout.views(rows_KP)
    for name, view in views.items():
        view.copy_(torch.stack([tensors[name] for tensors in by_run]))
    return rows_KP.to(device)


class Stacks:
    """The rows of K slots, zeros at first: each stretch of them is one block of memory [K, R].

    So the matrices of all slots lie one after the other.  oneDNN copies those that do not before
    it multiplies them, at a tenth of a step's time.
    """

    def __init__(
        self, layout: Layout, num_slots: int, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._layout = layout
        self.row_size = layout.row_size
        self.stretches_KR = [
            torch.zeros(num_slots, part.stop - part.start, device=device, dtype=dtype)
            for part in layout.stretches
        ]

    def row(self, slot: int) -> Tensor:
        """A copy of the slot's row [P]."""
        return torch.cat([stretch_KR[slot] for stretch_KR in self.stretches_KR])

    def set_row(self, slot: int, row_P: Tensor) -> None:
        """Write the slot's row."""
        for stretch_KR, part in zip(self.stretches_KR, self._layout.stretches, strict=True):
            stretch_KR[slot] = row_P[part]

    def set_first_rows(self, rows_GP: Tensor) -> None:
        """Write the rows of the first slots."""
        for stretch_KR, part in zip(self.stretches_KR, self._layout.stretches, strict=True):
            stretch_KR[: len(rows_GP)] = rows_GP[:, part]

    def put_rows(self, slots_G: Tensor, rows_GP: Tensor) -> None:
        """Write the rows of some slots; one row [P] is written to all of them."""
        for stretch_KR, part in zip(self.stretches_KR, self._layout.stretches, strict=True):
            stretch_KR[slots_G] = rows_GP[..., part]

    def clear_rows(self, slots_G: Tensor) -> None:
        """Write zeros to the rows of some slots."""
        for stretch_KR in self.stretches_KR:
            stretch_KR.index_fill_(0, slots_G, 0)

    def set_rows(self, other: Stacks, slots_G: Tensor) -> None:
        """Write those of another's slots into the first ones of this."""
        for stretch_KR, its in zip(self.stretches_KR, other.stretches_KR, strict=True):
            torch.index_select(its, 0, slots_G, out=stretch_KR[: len(slots_G)])

    def views(self) -> dict[str, Tensor]:
        """Every tensor of the layout, [K, *shape]."""
        views: dict[str, Tensor] = {}
        for stretch_KR, part in zip(self.stretches_KR, self._layout.stretches, strict=True):
            views |= self._layout.views_within(part, stretch_KR)
        return views


@lru_cache(maxsize=64)
def layouts(model: Model) -> tuple[ParameterLayout, StatisticsLayout]:
    """Both layouts of a model; remembered, since widths and evaluations ask for them often."""
    return ParameterLayout(model), StatisticsLayout(model)
