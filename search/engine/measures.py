"""What can be seen of the weights and units of a run, by which regularisers are understood.

Looked at once, at a run's end, on the weights that it keeps; of one slot's rows alone, so that it
cannot depend on the pack.

# P, Q numbers of a slot, B rows of a chunk, H units of a layer
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ridgeline.search.engine.config import Direction
from ridgeline.search.engine.evaluation import EVALUATION_ROWS, NEAR_ZERO
from ridgeline.search.engine.layout import ParameterLayout, layouts
from ridgeline.search.engine.models.base import HiddenUnits, Model

_Array = npt.NDArray[Any]


LEAST_EXPONENT, GREATEST_EXPONENT = -20, 4
"""A histogram's bins have powers of two as their edges, from 2^LEAST_EXPONENT, which is a millionth
nearly, to 2^GREATEST_EXPONENT; there is a bin for what is below, and one for the rest."""

NUM_BINS = GREATEST_EXPONENT - LEAST_EXPONENT + 2


@dataclass(frozen=True)
class InputMeasures:
    """How many inputs there are, and how many are kept: with a weight of at least NEAR_ZERO."""

    num_inputs: int
    num_kept: int


@dataclass(frozen=True)
class LayerMeasures:
    """Of a parameter that the model penalises.

    Attributes:
        weight_norm: √Σw².
        zero_share: the share of its numbers that are 0.
        near_zero_share: the share of those with |w| < NEAR_ZERO.
    """

    num_weights: int
    weight_norm: float
    zero_share: float
    near_zero_share: float


@dataclass(frozen=True)
class UnitMeasures:
    """Of the hidden units of a layer, by what they give for the validation rows in evaluation mode.

    Attributes:
        num_dead: of units with relu, those that give 0 for every row, and of a convolution's at
            every place; None of others.
        linear_share: of units with tanh or a sigmoid, the share of what they give that is in
            LINEAR_ZONE; None of others.
    """

    num_units: int
    num_dead: int | None
    linear_share: float | None


@dataclass(frozen=True)
class WeightHistogram:
    """How large all numbers are that the model penalises.

    Attributes:
        num_zero: of them, those that are 0.
        counts: of the others, how many have a magnitude in each of NUM_BINS bins, the least first:
            below 2^-20, from there to below 2^-19, and so on, and from 2^4 on.
    """

    num_zero: int
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Measures:
    """What can be seen of the weights of a run.

    Attributes:
        generalisation_gap: by metric, see `gaps`.
        inputs: None where the model does not take them one by one.
        layers: by the names of the parameters.
        units: by layer, as far as the model tells of them.
    """

    generalisation_gap: dict[str, float]
    inputs: InputMeasures | None
    layers: dict[str, LayerMeasures]
    units: dict[str, UnitMeasures]
    weight_histogram: WeightHistogram


def gaps(
    directions: Mapping[str, Direction],
    train: Mapping[str, float],
    metrics: Mapping[str, float],
) -> dict[str, float]:
    """By how much training rows are judged better than validation rows, by metric.

    Of both in evaluation mode: where units are dropped or samples augmented, the metrics of
    training itself are worse than those of the same rows without.  What is not finite is left out.

    Args:
        directions: by metric, which values of it are the better ones.
        train: by metric, its value on training rows.
        metrics: with those of the validation rows; what either lacks has no gap.
    """
    found: dict[str, float] = {}
    for name, its in train.items():
        if (validated := metrics.get(f"validation_{name}")) is not None:
            gap = its - validated
            found[name] = gap if directions[name] == "maximize" else -gap
    return {name: gap for name, gap in found.items() if math.isfinite(gap)}


class Seen(NamedTuple):
    """What `Measures` has of the weights alone."""

    inputs: InputMeasures | None
    layers: dict[str, LayerMeasures]
    units: dict[str, UnitMeasures]
    weight_histogram: WeightHistogram


def looked_at(model: Model, parameters_GP: Tensor, statistics_GQ: Tensor, x: Tensor) -> list[Seen]:
    """What is seen of the weights of each of G slots; the host waits for the device.

    Of all slots in one go: a call of numpy takes longer than what it does for one small layer, and
    a GPU is waited for once.  The caller chooses the library that multiplies, see `products`.

    Args:
        x: the validation rows.
    """
    layout, _ = layouts(model)
    units = _units(model, parameters_GP, statistics_GQ, x)
    # On the host: numpy's calls take a third of the time of torch's, and most layers are small.
    magnitudes_GP = np.abs(parameters_GP.cpu().numpy())
    layers, histograms = _weights(layout, magnitudes_GP)
    inputs = _inputs(layout, magnitudes_GP)
    return [Seen(*its) for its in zip(inputs, layers, units, histograms, strict=True)]


def _inputs(layout: ParameterLayout, magnitudes_GP: _Array) -> Sequence[InputMeasures | None]:
    for name, dimension in layout.input_dimensions.items():
        its = layout.view(name, torch.from_numpy(magnitudes_GP)).numpy()
        others = tuple(i for i in range(1, its.ndim) if i != dimension + 1)
        largest_GD = its.max(axis=others)
        kept_G = (largest_GD >= NEAR_ZERO).sum(axis=1).tolist()
        return [InputMeasures(largest_GD.shape[1], kept) for kept in kept_G]
    return [None] * len(magnitudes_GP)


def _weights(
    layout: ParameterLayout, magnitudes_GP: _Array
) -> tuple[list[dict[str, LayerMeasures]], list[WeightHistogram]]:
    """Of all layers at once, which are the first stretches of a row: L of them, R numbers."""
    if not layout.penalised:
        histogram = WeightHistogram(0, (0,) * NUM_BINS)
        return [{} for _ in magnitudes_GP], [histogram for _ in magnitudes_GP]
    parts = layout.stretches[: len(layout.penalised)]
    its_GR = magnitudes_GP[:, : parts[-1].stop]
    starts, sizes = [part.start for part in parts], [*layout.sizes.values()]
    gaps_L = [part.stop - part.start - size for part, size in zip(parts, sizes, strict=True)]
    # In float64: squares of float32 overflow long before the weights do.
    squares_GL = np.add.reduceat(np.square(its_GR, dtype=np.float64), starts, axis=1)
    zero_GL = np.add.reduceat(its_GR == 0, starts, axis=1, dtype=np.int64) - gaps_L
    near_GL = np.add.reduceat(its_GR < NEAR_ZERO, starts, axis=1, dtype=np.int64) - gaps_L
    layers = [
        {
            name: LayerMeasures(size, math.sqrt(squares), zero / size, near / size)
            for (name, size), squares, zero, near in zip(layout.sizes.items(), *of_one, strict=True)
        }
        for of_one in zip(squares_GL.tolist(), zero_GL.tolist(), near_GL.tolist(), strict=True)
    ]
    return layers, _histograms(its_GR, zero_GL.sum(axis=1).tolist(), sum(gaps_L))


def _histograms(its_GR: _Array, num_zero: Sequence[int], num_gaps: int) -> list[WeightHistogram]:
    num_slots = len(its_GR)
    # A number is m·2^e, with m from 1/2 to below 1; 0 has the exponent 0.
    bins_GR = np.frexp(its_GR)[1]
    bins_GR -= LEAST_EXPONENT
    np.clip(bins_GR, 0, NUM_BINS - 1, out=bins_GR)
    bins_GR += np.arange(0, num_slots * NUM_BINS, NUM_BINS, dtype=bins_GR.dtype)[:, None]
    counts_GB = np.bincount(bins_GR.reshape(-1), minlength=num_slots * NUM_BINS)
    counts_GB = counts_GB.reshape(num_slots, NUM_BINS)
    counts_GB[:, -LEAST_EXPONENT] -= np.add(num_zero, num_gaps)
    return [
        WeightHistogram(zero, tuple(counts))
        for zero, counts in zip(num_zero, counts_GB.tolist(), strict=True)
    ]


def _units(
    model: Model, parameters_GP: Tensor, statistics_GQ: Tensor, x: Tensor
) -> list[dict[str, UnitMeasures]]:
    """Of each slot by its rows alone, so that it cannot depend on the others."""
    layout, statistics_layout = layouts(model)
    chunks = torch.split(x, EVALUATION_ROWS)
    seen: list[dict[str, list[HiddenUnits]]] = []
    for rows in zip(parameters_GP, statistics_GQ, strict=True):
        parameters = layout.views_of_one(rows[0])
        statistics = statistics_layout.views_of_one(rows[1])
        of_chunks = defaultdict(list)
        for x_B in chunks:
            for name, units in model.hidden_of_one(parameters, statistics, x_B).items():
                of_chunks[name].append(units)
        seen.append({name: its for name, its in of_chunks.items() if len(its) == len(chunks)})
    arrays = _on_host([one.seen_H for slot in seen for its in slot.values() for one in its])
    return [
        {name: _of_layer(its, [next(arrays) for _ in its]) for name, its in slot.items()}
        for slot in seen
    ]


def _on_host(tensors: Sequence[Tensor]) -> Iterator[_Array]:
    """Vectors as arrays, for which the host waits once."""
    if not tensors or tensors[0].device.type == "cpu":
        return (one.numpy() for one in tensors)
    numbers = torch.cat([one.double() for one in tensors]).cpu()
    return (one.numpy() for one in torch.split(numbers, [len(one) for one in tensors]))


def _of_layer(of_chunks: Sequence[HiddenUnits], seen_H: Sequence[_Array]) -> UnitMeasures:
    """From what was seen of each chunk."""
    num_units = len(seen_H[0])
    if of_chunks[0].activation == "relu":
        num_alive = int(np.count_nonzero(np.maximum.reduce(seen_H) > 0))
        return UnitMeasures(num_units, num_units - num_alive, None)
    num_values = sum(one.num_values for one in of_chunks)
    num_linear = sum(int(one.sum()) for one in seen_H)
    return UnitMeasures(num_units, None, num_linear / (num_units * num_values))
