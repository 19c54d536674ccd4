"""The data set port: rows of features with their targets, and a fingerprint of both.

Whatever the rows come from, files or a library, ends as a `Dataset`, made by `Dataset.of`.

# N rows
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ridgeline.search.events import NeverTrains
from ridgeline.search.tasks.columns import Columns
from ridgeline.search.tasks.kinds import (
    Classes,
    ColumnUse,
    Features,
    FilesKind,
    Targets,
    Tokens,
)

Array = npt.NDArray[Any]

_MAX_SHOWN = 200
"""Characters."""

_WHOLE = re.compile("[+-]?[0-9]+")


def called(name: str) -> str:
    """The name of a class as messages have it: in quotes, if it is no whole number."""
    return name if _WHOLE.fullmatch(name) else repr(name)


def shown(name: str) -> str | None:
    """The name of a class as a card has it: on one line, and not too long; None of an empty one."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return line[:_MAX_SHOWN] or None


class DatasetError(ValueError):
    """A data set that cannot be used; the text tells a person why."""


class UnfitDataset(DatasetError, NeverTrains):
    """Data that cannot be trained on as the study asks for it, whoever tries."""


@dataclass(frozen=True)
class ColumnCard:
    """What is known of a column of a table before a study names it."""

    name: str
    uses: tuple[ColumnUse, ...]
    """What it can be."""
    num_values: int | None
    """Different ones, of the train part; None: many."""
    smallest_class: int | None = None
    """Rows of the rarest class, as of `DatasetCard`, were it learned; None: not known, or none."""
    rarest_class: str | None = None
    """Its name."""


@dataclass(frozen=True)
class DatasetCard:
    """What a worker says about a data set it has."""

    name: str
    fingerprint: str
    num_rows: int
    """Rows of the train and the test part together."""
    num_features: int
    """Of files that tell too little, what stands in a row: columns, or one picture."""
    num_classes: int | None
    """None where targets are numbers."""
    has_test_part: bool
    smallest_class: int | None
    """Rows of the rarest class, without those of a test part of its own; None of numbers."""
    features: Features | None
    targets: Targets | None
    """Both are None of files that tell too little."""
    needs: str | None = None
    """Why a study has to say how the files are read, as they tell too little; None: it need not."""
    rarest_class: str | None = None
    """The name of the class of `smallest_class`."""
    files: FilesKind | None = None
    """None: not known."""
    columns: tuple[ColumnCard, ...] | None = None
    """Of a table, in its order; None: not known, or none."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """N rows of features and their targets, in arrays that cannot be written to.

    `x` is [N, …], each row with as many elements as `features.shape` has, of any number type.  `y`
    is int64 [N] of classes, or float64 [N, count] of numbers.  `test_x` and `test_y` are the same
    for the test part, and None where the data set has none of its own.  `columns` is None where no
    feature is a flag.  `key` is what splits go by, float64 [N], None where a study names no column
    for it.  `named_as` is the fingerprint of the data set as its files say by themselves what is
    learned, which studies are tied to; None: that is `fingerprint`.  `class_names` are those of the
    files, in the order of the classes; None where there are none, or they are the numbers.
    """

    name: str
    x: Array
    y: Array
    test_x: Array | None
    test_y: Array | None
    features: Features
    targets: Targets
    fingerprint: str
    columns: Columns | None = None
    key: Array | None = None
    named_as: str | None = None
    class_names: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls,
        name: str,
        x: Array,
        y: Array,
        test_x: Array | None = None,
        test_y: Array | None = None,
        *,
        features: Features,
        targets: Targets,
        columns: Columns | None = None,
        key: Array | None = None,
        class_names: Sequence[str] | None = None,
    ) -> Dataset:
        """The data set of these arrays, which nobody may write to from now on.

        Raises:
            DatasetError: a number is not finite.
        """
        for part in (x, test_x):
            assert part is None or math.prod(part.shape[1:]) == math.prod(features.shape)
        for array in (x, y, test_x, test_y, key):
            if array is not None:
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    raise DatasetError(f"data set {name}: it contains NaN or infinity")
                array.flags.writeable = False
        digest = _fingerprint(features, columns, x, y, test_x, test_y, key)
        return cls(
            name,
            x,
            y,
            test_x,
            test_y,
            features,
            targets,
            digest,
            columns,
            key,
            class_names=None if class_names is None else tuple(class_names),
        )

    @property
    def has_test_part(self) -> bool:
        """Whether the test rows are apart from those that a split divides."""
        return self.test_x is not None

    def class_named(self, number: int) -> str:
        """The name of a class in the files."""
        return str(number) if self.class_names is None else self.class_names[number]

    def class_called(self, number: int) -> str:
        """A class as messages call it."""
        return called(self.class_named(number))

    @property
    def card(self) -> DatasetCard:
        """The data set without its rows."""
        classes = self.targets if isinstance(self.targets, Classes) else None
        num_rows_of = None if classes is None else np.bincount(self.y)
        rarest = None if num_rows_of is None else self.class_named(int(num_rows_of.argmin()))
        rarest = None if rarest is None else shown(rarest)
        return DatasetCard(
            name=self.name,
            fingerprint=self.fingerprint,
            num_rows=len(self.x) + (0 if self.test_x is None else len(self.test_x)),
            num_features=math.prod(self.features.shape),
            num_classes=None if classes is None else classes.count,
            has_test_part=self.has_test_part,
            smallest_class=None if num_rows_of is None else int(num_rows_of.min()),
            features=self.features,
            targets=self.targets,
            rarest_class=rarest,
        )


def _fingerprint(
    features: Features,
    columns: Columns | None,
    x: Array,
    y: Array,
    test_x: Array | None,
    test_y: Array | None,
    key: Array | None,
) -> str:
    """SHA-256 of the arrays: name, number type, shape and little-endian content of each.

    The same numbers train otherwise where they are tokens or flags, so those say that they are.
    """
    digest = hashlib.sha256()
    if isinstance(features, Tokens):
        digest.update(f"tokens {features.vocabulary_size}\n".encode())
    if columns is not None:
        digest.update(f"flags {columns.flags} {columns.missing}\n".encode())
    parts = {"x": x, "y": y, "test_x": test_x, "test_y": test_y, "key": key}
    for part, array in parts.items():
        if array is not None:
            content = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            digest.update(f"{part} {content.dtype.str} {content.shape}\n".encode())
            digest.update(content.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
