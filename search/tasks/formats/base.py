"""What every format gives: the arrays of a data set, as they stand in its files."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy.typing as npt

from ridgeline.search.tasks.columns import Columns
from ridgeline.search.tasks.kinds import Features, TargetsKind

Array = npt.NDArray[Any]


class FormatError(ValueError):
    """Files that are not what they should be; the text names the file, never its folder."""


class NeedsRoles(FormatError):
    """A table that can be read only as a study that names columns asks for it."""


class RawParts(NamedTuple):
    """N rows of features, of any shape and number type, and their N targets.

    Targets are labels of classes, [N], whole numbers or texts; or numbers, [N] or [N, count].
    `test_x` and `test_y` are None where the files have no test part.  Numbers are finite.
    `features` is None where the shape of a row says what it is, `columns` where all of its numbers
    are there and have scales.  `key` is what splits go by, float64 [N]: groups or times.
    """

    x: Array
    y: Array
    test_x: Array | None
    test_y: Array | None
    targets: TargetsKind = "classes"
    features: Features | None = None
    columns: Columns | None = None
    key: Array | None = None
