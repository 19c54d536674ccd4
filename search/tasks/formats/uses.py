"""What the columns of a table can be: learned, what a split goes by, features.

Told of each data set beforehand, so that a study that cannot be trained is refused when it is
posted.  Each use is checked by what reads columns for it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from ridgeline.search.fields import Text, fits
from ridgeline.search.tasks.data import ColumnCard, shown
from ridgeline.search.tasks.formats.base import FormatError
from ridgeline.search.tasks.formats.features import Column
from ridgeline.search.tasks.formats.keys import Times
from ridgeline.search.tasks.formats.rows import MAX_LABEL, finite
from ridgeline.search.tasks.formats.sheet import Place, Sheet
from ridgeline.search.tasks.kinds import COLUMN_USES, ColumnUse

MAX_COLUMNS = 100
"""Of a table with more of them nothing is told: workers tell of their data in one message."""

MAX_COUNTED = 1_000
"""Values of a column that are counted; of one with more it is not known how many they are."""


_CHUNK_ROWS = 1_024
"""Read at once: enough for what is done column by column, and little memory."""


def columns_of(sheets: Sequence[Sheet]) -> tuple[ColumnCard, ...] | None:
    """The columns of a table; None where they are too many.

    Args:
        sheets: the train part, and the test part where there is one, which has the same columns.

    Raises:
        FormatError: a file is malformed.
    """
    train, *test = sheets
    if len(train.names) > MAX_COLUMNS:
        return None
    columns = [_Values() for _ in train.names]
    for rows in _chunks(train):
        for column, texts in zip(columns, zip(*rows, strict=True), strict=True):
            column.add(texts)
    for sheet in test:
        for rows in _chunks(sheet):
            for column, texts in zip(columns, zip(*rows, strict=True), strict=True):
                column.add_of_test(texts)
    # Others cannot be named by a study.
    named = [pair for pair in zip(train.names, columns, strict=True) if fits(Text, pair[0])]
    return tuple(column.card(name) for name, column in named)


def _chunks(sheet: Sheet) -> Iterator[list[list[str]]]:
    rows = (row for _, row in sheet.rows)
    while chunk := list(islice(rows, _CHUNK_ROWS)):
        yield chunk


class _Values:
    """The values of a column, of the train part and then of the test part."""

    def __init__(self) -> None:
        self._uses = set[ColumnUse](COLUMN_USES)
        self._num_rows_of: Counter[str] | None = Counter()
        self._times, self._features = Times(), Column("")
        self._are_numbers: bool | None = None
        """Whether the first of them is one; None before it."""
        self._latest = -math.inf

    def add(self, texts: Sequence[str]) -> None:
        """The values of the next rows of the train part."""
        texts, known = [text.strip() for text in texts], self._num_rows_of
        new = texts
        if known is not None:
            new = [text for text in dict.fromkeys(texts) if text not in known]
            known.update(texts)
            if len(known) > MAX_COUNTED:
                self._num_rows_of = None
        self._latest = max([self._latest, *self._checked(new, self._features.value)])

    def add_of_test(self, texts: Sequence[str]) -> None:
        """The values of the next rows of the test part."""
        texts, known = [text.strip() for text in texts], self._num_rows_of
        if known is not None:
            if any(text in known for text in texts):
                self._uses.discard("group")
            if any(text not in known for text in texts):
                self._uses.discard("label")
        times = self._checked(texts, self._features.value_of_test)
        if min(times, default=math.inf) <= self._latest:
            self._uses.discard("time")

    def card(self, name: str) -> ColumnCard:
        """What is told of the column."""
        known = self._num_rows_of
        uses = set(self._uses)
        if known is not None and len(known) < 2:  # nothing can be learned of equal ones
            uses -= {"label", "target"}
        if known is not None and not any(known):
            uses.discard("feature")
        rarest = None if known is None or "label" not in uses else min(known, key=known.__getitem__)
        return ColumnCard(
            name,
            tuple(use for use in COLUMN_USES if use in uses),
            num_values=None if known is None else len(known),
            smallest_class=None if known is None or rarest is None else known[rarest],
            rarest_class=None if rarest is None else shown(rarest),
        )

    def _checked(
        self, texts: Sequence[str], as_feature: Callable[[str, Place, int], float]
    ) -> list[float]:
        """Drop the uses that one of some values rules out; gives them as times, if they are."""
        if self._are_numbers and (numbers := _numbers(texts)) is not None:
            return numbers  # which rules out no use
        uses, times = self._uses, []
        for text in texts:
            if self._are_numbers is None and text:
                self._are_numbers = finite(text) is not None
            if not 0 < len(text) <= MAX_LABEL:
                uses -= {"label", "group"}
            if "target" in uses and finite(text) is None:
                uses.discard("target")
            if "feature" in uses:
                try:
                    as_feature(text, _nowhere, 0)
                except FormatError:
                    uses.discard("feature")
            if "time" in uses:
                try:
                    times.append(self._times.value(text, ""))
                except FormatError:
                    uses.discard("time")
        return times


def _numbers(texts: Sequence[str]) -> list[float] | None:
    """Finite numbers, as `finite` has each of them; None where one is none, or long."""
    try:
        numbers = list(map(float, texts))
    except ValueError:
        return None
    are_plain = max(map(len, texts), default=0) <= MAX_LABEL and "_" not in "".join(texts)
    return numbers if are_plain and all(map(math.isfinite, numbers)) else None


def _nowhere(row: int) -> str:
    """Where a row is: nobody is told."""
    return ""
