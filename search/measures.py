"""What can be seen of the weights that a run keeps, as it is stored and shown, and means of it.

The engine looks at them (`ridgeline.search.engine.measures` says by which formulas).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import accumulate
from typing import Annotated

from pydantic import Field, StringConstraints

from ridgeline.search.fields import MAX_INT, MetricName, Real, SpecPart, Whole
from ridgeline.search.means import mean

MAX_LAYERS = 256

LEAST_EXPONENT, GREATEST_EXPONENT = -20, 4
"""Of the powers of two that are the edges of a histogram's bins."""

_NUM_BINS = GREATEST_EXPONENT - LEAST_EXPONENT + 2

LayerName = Annotated[
    str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")
]
Count = Annotated[Whole, Field(ge=0, le=MAX_INT)]
Size = Annotated[Whole, Field(ge=1, le=MAX_INT)]
Share = Annotated[Real, Field(ge=0, le=1)]


class InputMeasures(SpecPart):
    """The inputs of a model: numbers of a sample, or ids that it may have."""

    num_inputs: Size
    num_kept: Annotated[
        Count, Field(description="with a weight that is not near zero: what L1 has selected")
    ]


class LayerMeasures(SpecPart):
    """The weights of a layer: a parameter that penalties act on."""

    num_weights: Size
    weight_norm: Annotated[Real, Field(ge=0, description="√Σw²")]
    zero_share: Annotated[Share, Field(description="of its weights, those that are 0")]
    near_zero_share: Annotated[Share, Field(description="those with |w| < 0.001")]


class UnitMeasures(SpecPart):
    """The hidden units of a layer, by what they give for the validation rows."""

    num_units: Size
    num_dead: Annotated[
        Count | None,
        Field(
            description="of relu units, those that give 0 for every row; of a convolution's, at "
            "every place"
        ),
    ]
    linear_share: Annotated[
        Share | None,
        Field(
            description="of what tanh units give, the share below 0.46 in magnitude; of sigmoid "
            "units, that from 0.27 to 0.73"
        ),
    ]


class WeightHistogram(SpecPart):
    """How large the weights of all layers are, in bins whose edges are powers of two."""

    num_zero: Annotated[Count, Field(description="weights that are 0")]
    counts: Annotated[
        tuple[Count, ...],
        Field(
            min_length=_NUM_BINS,
            max_length=_NUM_BINS,
            description="of the others by |w|: below 2⁻²⁰, from there to below 2⁻¹⁹, and so on; "
            "the last is from 2⁴ on",
        ),
    ]

    @property
    def num_weights(self) -> int:
        """All that were counted."""
        return self.num_zero + sum(self.counts)

    def quantile(self, share: float) -> float:
        """The magnitude that this share of all weights is at or below.

        Within a bin, weights count as if spread evenly over the exponents, so the result is off by
        less than a factor of 2.  Below the least edge it is that edge, above the greatest that one.

        Args:
            share: above 0, up to 1; there is at least one weight.
        """
        wanted = share * self.num_weights
        if wanted <= self.num_zero:
            return 0.0
        until = accumulate(self.counts, initial=self.num_zero)
        for index, (count, before) in enumerate(zip(self.counts, until, strict=False)):
            if count and wanted <= before + count:
                exponent = LEAST_EXPONENT + index - 1 + (wanted - before) / count
                break
        else:
            raise AssertionError("all weights are in a bin")
        return math.pow(2.0, min(max(exponent, LEAST_EXPONENT), GREATEST_EXPONENT))


class Measures(SpecPart):
    """What can be seen of the weights that a run keeps."""

    generalisation_gap: Annotated[
        dict[MetricName, Real],
        Field(
            max_length=100,
            description="by metric, how much better training rows are judged than validation rows",
        ),
    ]
    inputs: InputMeasures | None = Field(description="null where they are not taken one by one")
    layers: Annotated[
        dict[LayerName, LayerMeasures],
        Field(max_length=MAX_LAYERS, description="by the names of the parameters"),
    ]
    units: Annotated[
        dict[LayerName, UnitMeasures],
        Field(
            max_length=MAX_LAYERS,
            description="by layer, where it is known what units give",
        ),
    ]
    weight_histogram: WeightHistogram | None = Field(
        None, description="null: a worker has looked that had none yet"
    )


def summary(measures: Measures) -> dict[str, float]:
    """The numbers of a run as a whole, by name; those that it has.

    `accuracy_gap` and the like are generalisation gaps.  `zero_share` and `near_zero_share` are of
    all weights, `dead_share` is of all relu units, `linear_share` the mean over all units with tanh
    or a sigmoid; `inputs_kept` is a number of inputs.
    """
    layers, units = measures.layers.values(), measures.units.values()
    found = {f"{metric}_gap": gap for metric, gap in measures.generalisation_gap.items()}
    of_all = {
        "zero_share": _mean((layer.zero_share, layer.num_weights) for layer in layers),
        "near_zero_share": _mean((layer.near_zero_share, layer.num_weights) for layer in layers),
        "inputs_kept": None if measures.inputs is None else measures.inputs.num_kept,
        "dead_share": _mean(
            (one.num_dead / one.num_units, one.num_units)
            for one in units
            if one.num_dead is not None
        ),
        "linear_share": _mean(
            (one.linear_share, one.num_units) for one in units if one.linear_share is not None
        ),
    }
    return found | {name: number for name, number in of_all.items() if number is not None}


def flat(measures: Measures) -> dict[str, float]:
    """All numbers by name: the `summary`, and those of a layer with its name behind a point."""
    found = summary(measures)
    for name, layer in measures.layers.items():
        found[f"weight_norm.{name}"] = layer.weight_norm
        found[f"zero_share.{name}"] = layer.zero_share
        found[f"near_zero_share.{name}"] = layer.near_zero_share
    for name, units in measures.units.items():
        if units.num_dead is not None:
            found[f"dead_share.{name}"] = units.num_dead / units.num_units
        if units.linear_share is not None:
            found[f"linear_share.{name}"] = units.linear_share
    return found


def means(runs: Iterable[Measures]) -> dict[str, float]:
    """Of what every run has in its `summary`, the mean over the runs; empty without runs."""
    summaries = [summary(measures) for measures in runs]
    first = summaries[0] if summaries else {}
    shared = [name for name in first if all(name in one for one in summaries)]
    return {name: mean([one[name] for one in summaries]) for name in shared}


def pooled(runs: Iterable[Measures]) -> WeightHistogram | None:
    """The weights of all runs in one histogram; None without runs, or where one has none."""
    found = [measures.weight_histogram for measures in runs]
    known = [one for one in found if one is not None]
    if not known or len(known) < len(found):
        return None
    num_zero, *counts = (
        min(sum(of_bin), MAX_INT)
        for of_bin in zip(*((one.num_zero, *one.counts) for one in known), strict=True)
    )
    return WeightHistogram(num_zero=num_zero, counts=tuple(counts))


def _mean(weighted: Iterable[tuple[float, int]]) -> float | None:
    """Of values with their weights; None without any."""
    pairs = list(weighted)
    total = sum(weight for _, weight in pairs)
    return sum(value * weight for value, weight in pairs) / total if pairs else None
