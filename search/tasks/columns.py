"""Features of a table that are more than numbers: categories, and numbers that may be missing.

# N rows, D features
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Three = tuple[Array, Array, Array]
"""Of the training, the validation and the test rows."""


@dataclass(frozen=True)
class Columns:
    """Which features of a row are flags, 0 or 1, that stay as they are.

    A category is a flag, and so is that a number is missing.

    Attributes:
        flags: ascending.
        missing: each number that may be missing, with the flag that is 1 where it is.  The number
            is 0 there and means nothing.
    """

    flags: tuple[int, ...]
    missing: tuple[tuple[int, int], ...] = ()

    def filled(self, parts: Three) -> Three:
        """Parts whose missing numbers are the median of those in the first, float64 [N, D].

        What no row of the first has is not known of the others either: a flag that is 0 in all of
        its rows is 0 everywhere, and a number that all of them lack is 0 everywhere.
        """
        train_ND = parts[0]
        first, second, third = (part_ND.astype(np.float64) for part_ND in parts)
        filled = first, second, third
        for number, flag in self.missing:
            known_N = train_ND[train_ND[:, flag] == 0, number]
            median = np.median(known_N) if len(known_N) else None
            for part_ND in filled:
                if median is None:
                    part_ND[:, number] = 0
                else:
                    part_ND[part_ND[:, flag] == 1, number] = median
        flags = np.array(self.flags, np.int64)
        unknown = flags[~train_ND[:, flags].any(axis=0)]
        for part_ND in filled:
            part_ND[:, unknown] = 0
        return filled
