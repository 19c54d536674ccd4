"""What a model is fitted to.

# n trials that have ended, m points, s sources, d axes
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ridgeline.search.samplers.axes import Axes, Floats
from ridgeline.search.samplers.outcomes import Outcomes

Expected = Callable[[Floats], Floats]
"""From points [m, d] to what each source makes expect there [m, s]; smaller is better."""


def nothing_expected(places_md: Floats) -> Floats:
    """What no sources make expect."""
    return np.zeros((len(places_md), 0))


@dataclass(frozen=True)
class Evidence:
    """Trials that have ended, and what the trials of other studies make expect.

    Attributes:
        places_nd: where they are.
        outcomes: what came of them, in the same order.
    """

    axes: Axes
    places_nd: Floats
    outcomes: Outcomes
    expected: Expected = nothing_expected
