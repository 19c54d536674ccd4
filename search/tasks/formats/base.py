"""What every format gives: the arrays of a data set, as they stand in its files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy.typing as npt

from ridgeline.search.tasks.columns import Columns
from ridgeline.search.tasks.kinds import Features, TargetsKind

Array = npt.NDArray[Any]


class FormatError(ValueError):
    """Files that are not what they should be; the text names the file, never its folder."""


def not_installed(file: str, package: str) -> FormatError:
    """The error where a file needs a package that is optional."""
    return FormatError(
        f'{file} needs {package}, which is not installed; pip install "ridgeline[data]" brings it'
    )


class TellsTooLittle(FormatError):
    """Files that are sound, but can be read only where a study says more of them."""


class RawParts(NamedTuple):
    """N rows of features, of any shape and number type, and their N targets.

    Targets are labels of classes, [N], whole numbers or texts; or numbers, [N] or [N, count].
    `test_x` and `test_y` are None where the files have no test part.  Numbers are finite.
    `features` is None where the shape of a row says what it is, `columns` where all of its numbers
    are there and have scales.  `key` is what splits go by, float64 [N]: groups or times.
    `class_names` are those of labels that are numbers from 0 on, where these stand for names.
    """

    x: Array
    y: Array
    test_x: Array | None
    test_y: Array | None
    targets: TargetsKind = "classes"
    features: Features | None = None
    columns: Columns | None = None
    key: Array | None = None
    class_names: Sequence[str] | None = None


class Summary(NamedTuple):
    """What can be said of files that tell too little.

    Attributes:
        fingerprint: SHA-256 of all that they hold.
        num_rows: of all parts.
        num_features: what stands in a row: columns, or one image.
    """

    fingerprint: str
    num_rows: int
    num_features: int
    has_test_part: bool
