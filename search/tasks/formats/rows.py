"""Rows of texts in a file, such as those of a table, and the classes that texts name.

Files come from anywhere, so nothing is believed: memory is taken for what was read, and no field
may be longer than `MAX_FIELD` characters.
"""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np

from ridgeline.search.tasks.formats.base import Array, FormatError
from ridgeline.search.tasks.formats.files import regular

MAX_FIELD = 131_072
"""Characters; the limit of Python's reader of CSV too."""

MAX_LABEL = 200
"""Characters of the name of a class."""

MAX_QUOTED = 40
"""Characters of a value, in a message."""


@contextmanager
def opened(path: Path, *, newline: str | None) -> Iterator[TextIO]:
    """A file of UTF-8, whose lines end as `open` has it.

    Raises:
        FormatError: within the block too, it cannot be read or is not UTF-8.
    """
    try:
        with open(path, encoding="utf-8-sig", newline=newline, opener=regular) as file:
            yield file
    except UnicodeDecodeError as exc:
        raise FormatError(f"{path.name} is not UTF-8: {exc.reason}") from exc
    except OSError as exc:
        raise FormatError(f"{path.name} cannot be read: {exc.strerror}") from exc


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a file of comma-separated values in UTF-8 (RFC 4180), each with its line.

    Lines without anything are passed over.

    Raises:
        FormatError: the file cannot be read, or is not of this form.
    """
    with opened(path, newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            for row in reader:
                if row:
                    yield reader.line_num, row
        except csv.Error as exc:
            raise FormatError(f"{path.name}, line {reader.line_num}: {exc}") from exc


def number(text: str, where: str) -> float:
    """A finite number as programs write it.

    Raises:
        FormatError: it is none.
    """
    if (value := finite(text)) is None:
        raise FormatError(f"{where}: {shortened(text)!r} is not a finite number")
    return value


def finite(text: str) -> float | None:
    """A finite number as programs write it; None where it is none."""
    value = any_number(text)
    return value if value is not None and math.isfinite(value) else None


def any_number(text: str) -> float | None:
    """The same, or NaN or an infinity."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def shortened(text: str) -> str:
    """A value of a file as messages quote it."""
    return text if len(text) <= MAX_QUOTED else text[:MAX_QUOTED] + "…"


def name_in(text: str, what: str, where: str) -> str:
    """The name that a cell holds, such as that of a class.

    Raises:
        FormatError: it is empty or too long.
    """
    name = text.strip()
    if not 0 < len(name) <= MAX_LABEL:
        state = "is empty" if not name else f"has more than {MAX_LABEL} characters"
        raise FormatError(f"{where}: the {what} {state}")
    return name


class Labels:
    """The names of classes that rows have; in memory each name is there once.

    Args:
        what: they are called where something is wrong with them.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._known: dict[str, int] = {}
        self._found = array("q")

    def __len__(self) -> int:
        """Rows so far."""
        return len(self._found)

    def add(self, label: str, where: str) -> None:
        """The label of the next row.

        Raises:
            FormatError: it is empty or too long.
        """
        label = name_in(label, self._what, where)
        self._found.append(self._known.setdefault(label, len(self._known)))

    def classes(self) -> list[str]:
        """In order: by their values where all are whole numbers, or else by code point.

        Raises:
            FormatError: there is but one.
        """
        if len(self._known) == 1:
            raise FormatError(f"all rows have the {self._what} {next(iter(self._known))!r}")
        try:
            return sorted(self._known, key=int)
        except ValueError:
            return sorted(self._known)

    def numbers(self, classes: Sequence[str]) -> Array:
        """For each row the number of its class, int64 [N].

        Raises:
            FormatError: a label is none of the classes.
        """
        number_of = {label: number for number, label in enumerate(classes)}
        for label in self._known:
            if label not in number_of:
                raise FormatError(
                    f"the test {self._what} {label!r} is out of range: no row of the train part "
                    "has it"
                )
        numbers = np.array([number_of[label] for label in self._known], np.int64)
        return numbers[np.frombuffer(self._found, np.int64)]
