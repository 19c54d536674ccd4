"""What can be seen of the weights and units of a run, by which regularisers are understood.

Looked at once, at a run's end, on the weights that it keeps; of one slot's rows alone, so that it
cannot depend on the pack.

# P, Q numbers of a slot, B rows of a chunk, H units of a layer
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ridgeline.search.engine.config import Direction
from ridgeline.search.engine.evaluation import EVALUATION_ROWS, NEAR_ZERO
from ridgeline.search.engine.layout import layouts
from ridgeline.search.engine.models.base import HiddenActivation, Model

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


def looked_at(
    model: Model, parameters_P: Tensor, statistics_Q: Tensor, x: Tensor
) -> tuple[
    InputMeasures | None, dict[str, LayerMeasures], dict[str, UnitMeasures], WeightHistogram
]:
    """The inputs, layers, hidden units and weights of one slot; the host waits for the device.

    The caller chooses the library that multiplies, see `products`.

    Args:
        x: the validation rows.
    """
    layout, statistics_layout = layouts(model)
    parameters = layout.views_of_one(parameters_P)
    statistics = statistics_layout.views_of_one(statistics_Q)
    units = _units(model, parameters, statistics, x)
    # On the host: numpy's calls take a third of the time of torch's, and most layers are small.
    weights = {name: parameters[name].cpu().numpy() for name in layout.penalised}
    magnitudes = {name: np.abs(its) for name, its in weights.items()}
    layers = {name: _layer(its, magnitudes[name]) for name, its in weights.items()}
    inputs = _inputs(layout.input_dimensions, magnitudes)
    return inputs, layers, units, _histogram(magnitudes.values())


def _inputs(
    dimensions: Mapping[str, int], magnitudes: Mapping[str, _Array]
) -> InputMeasures | None:
    for name, dimension in dimensions.items():
        others = tuple(i for i in range(magnitudes[name].ndim) if i != dimension)
        largest = magnitudes[name].max(axis=others)
        return InputMeasures(len(largest), int(np.count_nonzero(largest >= NEAR_ZERO)))
    return None


def _layer(weights: _Array, magnitudes: _Array) -> LayerMeasures:
    size = weights.size
    return LayerMeasures(
        num_weights=size,
        # In float64: squares of float32 overflow long before the weights do.
        weight_norm=math.sqrt(np.square(weights, dtype=np.float64).sum()),
        zero_share=(size - int(np.count_nonzero(weights))) / size,
        near_zero_share=int(np.count_nonzero(magnitudes < NEAR_ZERO)) / size,
    )


def _histogram(magnitudes: Iterable[_Array]) -> WeightHistogram:
    counts, num_zero = np.zeros(NUM_BINS, np.int64), 0
    for its in magnitudes:
        num_zero += its.size - int(np.count_nonzero(its))
        # A number is m·2^e, with m from 1/2 to below 1; 0 has the exponent 0.
        exponents = np.frexp(its)[1].reshape(-1) - LEAST_EXPONENT
        counts += np.bincount(exponents.clip(0, NUM_BINS - 1), minlength=NUM_BINS)
    counts[-LEAST_EXPONENT] -= num_zero
    return WeightHistogram(num_zero, tuple(counts.tolist()))


def _units(
    model: Model, parameters: Mapping[str, Tensor], statistics: Mapping[str, Tensor], x: Tensor
) -> dict[str, UnitMeasures]:
    activations: dict[str, HiddenActivation] = {}
    num_values: dict[str, int] = defaultdict(int)
    of_chunks: dict[str, list[_Array]] = defaultdict(list)
    chunks = torch.split(x, EVALUATION_ROWS)
    for x_B in chunks:
        for name, units in model.hidden_of_one(parameters, statistics, x_B).items():
            activations[name] = units.activation
            num_values[name] += units.num_values
            of_chunks[name].append(units.seen_H.cpu().numpy())
    return {
        name: _of_layer(activations[name], np.stack(seen_H), num_values[name])
        for name, seen_H in of_chunks.items()
        if len(seen_H) == len(chunks)
    }


def _of_layer(activation: HiddenActivation, seen_NH: _Array, num_values: int) -> UnitMeasures:
    """From what was seen of N chunks, with so many values of each unit."""
    num_units = seen_NH.shape[1]
    if activation == "relu":
        num_alive = int(np.count_nonzero(seen_NH.max(axis=0) > 0))
        return UnitMeasures(num_units, num_units - num_alive, None)
    return UnitMeasures(num_units, None, int(seen_NH.sum()) / (num_units * num_values))
