"""What runs have reported by epoch: which metrics belong together, and means over runs."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from ridgeline.search.means import mean

_SIDE = re.compile(r"^(train|training|val|valid|validation)[_/.:-](.+)$", re.IGNORECASE)

RunCurve = Sequence[tuple[int, Mapping[str, float]]]
"""(epoch, metrics) in the order of the epochs."""

Sides = Mapping[str, str]
"""The metric's name on `train` and on `validation`, or on one of them."""

SIDES_IN_WORDS = {"train": "training", "validation": "validation"}

Means = Sequence[tuple[int, float, float, float]]
"""(epoch, mean, lowest, highest) over the runs of a trial."""


def metric_groups(
    metrics: Iterable[str], objective: str, *, trains_on_validation: bool = False
) -> list[Sides]:
    """Metrics that are the same on training and on validation data, the objective's first.

    A metric that names neither is in a group of its own, as one of validation, and only where it is
    the objective: programs of other people report many.

    Args:
        trains_on_validation: then no group has a side of validation, whose curve would look like
            one of rows that were not trained on.
    """
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    for name in sorted(metrics):
        found = _SIDE.match(name)
        if found is not None:
            side = "train" if found[1].lower().startswith("train") else "validation"
            groups[found[2]].setdefault(side, name)
        elif name == objective:
            groups[name]["validation"] = name
    ordered = sorted(
        groups.values(), key=lambda sides: (objective not in sides.values(), -len(sides))
    )
    if trains_on_validation:
        return [{"train": sides["train"]} for sides in ordered if "train" in sides]
    return list(ordered)


def mean_curve(runs: Sequence[RunCurve], metric: str) -> Means:
    """The mean over those runs that reported the metric, epoch by epoch."""
    reported: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        for epoch, metrics in run:
            value = metrics.get(metric)
            if value is not None and math.isfinite(value):
                reported[epoch].append(value)
    return [
        (epoch, mean(values), min(values), max(values))
        for epoch, values in sorted(reported.items())
    ]
