"""How large the weights are that each way to train leads to, as a figure and a table."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ridgeline.search.measures import GREATEST_EXPONENT, LEAST_EXPONENT, WeightHistogram
from ridgeline.search.ranges import Value
from ridgeline.service.comparison_resources import ComparisonResult
from ridgeline.service.measures_in_words import percent
from ridgeline.service.reports import figures
from ridgeline.service.reports.axes import Axis
from ridgeline.service.reports.document import Figure, Table
from ridgeline.service.reports.figures import Histogram
from ridgeline.service.reports.wording import number

_MOST_ARMS = 12
_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


def weights_figure(result: ComparisonResult) -> Figure | None:
    """The weights of each arm's runs with fresh seeds; None where none were counted."""
    known = {
        arm.arm: arm.weight_histogram
        for arm in result.arms
        if arm.weight_histogram is not None and arm.weight_histogram.num_weights
    }
    if not known:
        return None
    shown = dict(list(known.items())[:_MOST_ARMS])
    axis = _axis(shown)
    rows = [
        Histogram(name, f"{percent(_zeros(its), 1)} are 0", _zeros(its), _bars(its))
        for name, its in shown.items()
    ]
    told = "; ".join(
        f"{name}: {percent(_zeros(its), 1)} are 0, half of all are at or below {_number(its, 0.5)}"
        for name, its in shown.items()
    )
    left_out = len(known) - len(shown)
    return Figure(
        "How large the weights are",
        figures.histograms(axis, rows),
        f"Share of the weights by their magnitude, in bins of a factor of 2. {told}.",
        "The weights of all layers and all fresh seeds of an arm; all arms have the same axes. "
        "A bar for 0 that is higher than all others ends at their height."
        + (f" Of {len(known)} arms the first {len(shown)} are shown." if left_out else ""),
        Table(
            "Magnitudes that a share of the weights is at or below, to less than a factor of 2",
            ("arm", "0", *(percent(share) for share in _QUANTILES)),
            [
                (name, percent(_zeros(its), 1), *(_number(its, share) for share in _QUANTILES))
                for name, its in known.items()
            ],
            frozenset(range(1, 2 + len(_QUANTILES))),
        ),
    )


def _zeros(histogram: WeightHistogram) -> float:
    return histogram.num_zero / histogram.num_weights


def _number(histogram: WeightHistogram, share: float) -> str:
    value = histogram.quantile(share)
    if value == 2.0**LEAST_EXPONENT:
        return f"< {number(value)}"
    return f"> {number(value)}" if value == 2.0**GREATEST_EXPONENT else f"{value:.2g}"


def _bars(histogram: WeightHistogram) -> list[tuple[float, float, float]]:
    """The ends of the bins are exponents; what lies beyond the edges has a bin of its own width."""
    return [
        (exponent, exponent + 1, count / histogram.num_weights)
        for exponent, count in enumerate(histogram.counts, start=LEAST_EXPONENT - 1)
    ]


def _axis(histograms: Mapping[str, WeightHistogram]) -> Axis:
    """Of exponents of 2, from the least bin that an arm has weights in to the greatest."""
    filled = [exponent for its in histograms.values() for exponent, _, share in _bars(its) if share]
    low, high = min(filled, default=LEAST_EXPONENT), max(filled, default=GREATEST_EXPONENT) + 1

    def place(value: Value) -> float:
        return min(max((float(value) - low) / (high - low), 0.0), 1.0)

    decades = range(math.ceil(low * math.log10(2)), math.floor(high * math.log10(2)) + 1)
    ticks = tuple((place(decade / math.log10(2)), number(10.0**decade)) for decade in decades)
    return Axis("|w|", ticks, place)
