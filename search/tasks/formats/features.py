"""The features in a table's columns: numbers, or else names of categories; a value may be missing.

A category becomes a feature that is 1 in its rows and 0 in others.  A number that may be missing
has a feature that is 1 where it is.

# N rows, C columns, D features
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ridgeline.search.tasks.columns import Columns
from ridgeline.search.tasks.formats.base import Array, FormatError, TellsTooLittle
from ridgeline.search.tasks.formats.rows import (
    MAX_LABEL,
    any_number,
    finite,
    number,
    shortened,
)
from ridgeline.search.tasks.formats.sheet import Place

MAX_CATEGORIES = 1_000
"""Of one column.  What has more is most often a name or an identifier, and no category."""

MAX_CELLS = 2**27
"""Rows by features of a part, where features are more than columns: 1 GiB in memory."""


class Column:
    """A column of features, in the train part and then in the test part.

    Its first value in the train part decides whether its values are numbers or categories.

    Attributes:
        name: in the first line of the file.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._kind: str | None = None
        self._first = ""
        self._code_of: dict[str, int] = {}

    def value(self, text: str, place: Place, row: int) -> float:
        """A value of the train part: a number, or the number of a category; NaN where it is empty.

        Raises:
            FormatError: it is not like the first one, no finite number, or a category too many.
        """
        text = text.strip()
        if not text:
            return math.nan
        if self._kind is None:
            self._kind = "categories" if any_number(text) is None else "numbers"
            self._first = place(row)
        if self._kind == "numbers":
            return self._number(text, place, row)
        self._check_category(text, place, row)
        code = self._code_of.setdefault(text, len(self._code_of))
        if code >= MAX_CATEGORIES:
            raise TellsTooLittle(
                f"{self._where(place, row)}: it has more than {MAX_CATEGORIES} categories; leave "
                "it out if it is a name"
            )
        return code

    def value_of_test(self, text: str, place: Place, row: int) -> float:
        """A value of the test part, as `value`; NaN for a category that the train part has not."""
        text = text.strip()
        if not text:
            return math.nan
        if self._kind == "numbers":
            return self._number(text, place, row)
        self._check_category(text, place, row)
        return self._code_of.get(text, math.nan)

    def check_known(self, file: str) -> None:
        """Check that a whole train part has at least one value.

        Raises:
            FormatError: it has none.
        """
        if self._kind is None:
            raise FormatError(f"{file}, column {self.name}: all its values are empty")

    def positions(self) -> Array | None:
        """Where the category of each number stands among all, by code point; None without any."""
        if self._kind != "categories":
            return None
        at = {name: position for position, name in enumerate(sorted(self._code_of))}
        return np.array([at[name] for name in self._code_of], np.int64)

    def _where(self, place: Place, row: int) -> str:
        return f"{place(row)}, column {self.name}"

    def _number(self, text: str, place: Place, row: int) -> float:
        value = finite(text)  # whose place is told where it is none: that takes time
        return number(text, self._where(place, row)) if value is None else value

    def _check_category(self, text: str, place: Place, row: int) -> None:
        if any_number(text) is not None:
            raise FormatError(
                f"{self._where(place, row)}: {shortened(text)!r} is a number, but the column has "
                f"categories, as in {self._first}"
            )
        if len(text) > MAX_LABEL:
            raise FormatError(
                f"{self._where(place, row)}: the category has more than {MAX_LABEL} characters"
            )


def features_of(
    columns: Sequence[Column], parts: Sequence[tuple[str, Array]]
) -> tuple[list[Array], Columns | None]:
    """Features of parts, each the name of its file and the values of its columns, [N, C].

    Float64 [N, D] of each part.  Where all columns are numbers and none is missing, they are the
    values as they came, and there are no `Columns`.

    Raises:
        FormatError: a part would take too much memory.
    """
    lacks_C = np.any([np.isnan(values_NC).any(axis=0) for _, values_NC in parts], axis=0)
    positions_C = [column.positions() for column in columns]
    if not lacks_C.any() and all(positions is None for positions in positions_C):
        return [values_NC for _, values_NC in parts], None
    starts: list[int] = []
    flags: list[int] = []
    missing: list[tuple[int, int]] = []
    num_features = 0
    for positions, lacks in zip(positions_C, lacks_C, strict=True):
        starts.append(num_features)
        if positions is not None:
            flags += range(num_features, num_features + len(positions))
            num_features += len(positions)
        elif lacks:
            flags.append(num_features + 1)
            missing.append((num_features, num_features + 1))
            num_features += 2
        else:
            num_features += 1
    found = []
    for file, values_NC in parts:
        if len(values_NC) * num_features > MAX_CELLS:
            raise FormatError(
                f"{file} is too large: {len(values_NC)} rows of {num_features} features"
            )
        x_ND = np.zeros((len(values_NC), num_features))
        for positions, start, values_N, lacks in zip(
            positions_C, starts, values_NC.T, lacks_C, strict=True
        ):
            rows = np.flatnonzero(~np.isnan(values_N))
            if positions is not None:
                x_ND[rows, start + positions[values_N[rows].astype(np.int64)]] = 1
                continue
            x_ND[rows, start] = values_N[rows]
            if lacks:
                x_ND[:, start + 1] = np.isnan(values_N)
        found.append(x_ND)
    return found, Columns(tuple(flags), tuple(missing))
