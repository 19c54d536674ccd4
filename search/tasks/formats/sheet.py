"""A table as its file has it: named columns, and rows of texts with where they stand."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ridgeline.search.tasks.formats.base import FormatError, Summary
from ridgeline.search.tasks.formats.rows import csv_rows

Place = Callable[[int], str]
"""Where a row of a file is, for people, by its number."""


@dataclass(frozen=True, eq=False)
class Sheet:
    """One file of a table.

    Attributes:
        names: of the columns, each once.
        rows: once, each with its number and as many texts as there are columns; a text is empty
            where a value is missing.
    """

    file: str
    names: list[str]
    rows: Iterator[tuple[int, list[str]]]
    place: Place

    @classmethod
    def of_csv(cls, path: Path) -> Sheet:
        """A file of comma-separated values, whose first line has the names.

        Raises:
            FormatError: here or at one of the rows, it is malformed.
        """
        lines = csv_rows(path)
        names = [name.strip() for name in next(lines, (0, []))[1]]
        check_names(path.name, names)

        def place(line: int) -> str:
            return f"{path.name}, line {line}"

        def rows() -> Iterator[tuple[int, list[str]]]:
            for line, row in lines:
                if len(row) != len(names):
                    raise FormatError(f"{place(line)}: {len(row)} values for {len(names)} columns")
                yield line, row

        return cls(path.name, names, rows(), place)


def check_names(file: str, names: Sequence[str]) -> None:
    """Check that no two columns of a file have one name.

    Raises:
        FormatError: two have.
    """
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise FormatError(f"{file} has several columns {twice[0]!r}")


def summary_of(sheets: Sequence[Sheet]) -> Summary:
    """Of the files of a table: the same where these have the same names and values.

    Raises:
        FormatError: a file is malformed, or has no rows.
    """
    digest, num_rows = hashlib.sha256(), 0
    for sheet in sheets:
        digest.update(json.dumps(sheet.names).encode())
        before = num_rows
        for _, row in sheet.rows:
            digest.update(json.dumps(row).encode())
            num_rows += 1
        if num_rows == before:
            raise FormatError(f"{sheet.file} has no rows")
        digest.update(b"\n")
    return Summary(digest.hexdigest(), num_rows, len(sheets[0].names), len(sheets) > 1)
