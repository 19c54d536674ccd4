"""Tables of numbers as comma-separated values: train.csv, and test.csv where there is a test part.

The first line names the columns.  One of them is to be learned: `class` or `label`, whose values
are the names of classes, or `target`, whose values are numbers.  All others are features, numbers.
What a column of whole numbers means, nobody but its author knows, so it is not guessed.

A table whose columns are `label` (or `class`) and `text` has texts, see `text`.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ridgeline.search.tasks.formats.base import Array, FormatError, RawParts
from ridgeline.search.tasks.formats.files import Folder
from ridgeline.search.tasks.formats.rows import Labels, csv_rows, number
from ridgeline.search.tasks.formats.text import Line, Texts, tokenised
from ridgeline.search.tasks.kinds import TargetsKind

_TRAIN, _TEST = "train.csv", "test.csv"
_TEXT = "text"
_KINDS: dict[str, TargetsKind] = {"class": "classes", "label": "classes", "target": "numbers"}
"""By the name of the column that is learned."""


def is_there(names: Sequence[str]) -> bool:
    """Whether names of files are those of this format."""
    return _TRAIN in names or _TEST in names


def read_folder(folder: Folder) -> RawParts:
    """The numbers of a folder's tables, float64, and what is to be learned.

    Raises:
        FormatError: a file is missing, outside of the root or malformed, or they disagree.
    """
    train_file, test_file = folder.parts(_TRAIN, _TEST)
    if _TEXT in next(csv_rows(train_file), (0, []))[1]:
        return tokenised(_texts(train_file), None if test_file is None else _texts(test_file))
    train = _Table.read(train_file)
    test = None if test_file is None else _Table.read(test_file)
    if test is not None and test.columns != train.columns:
        raise FormatError(f"{_TEST} has other columns than {_TRAIN}")
    classes = train.classes()
    return RawParts(
        train.x_ND,
        train.y(classes),
        None if test is None else test.x_ND,
        None if test is None else test.y(classes),
        targets="numbers" if classes is None else "classes",
    )


@dataclass(frozen=True, eq=False)
class _Table:
    """Of rows that have targets, or else labels."""

    columns: list[str]
    x_ND: Array
    targets_N: Array
    labels: Labels | None

    def classes(self) -> list[str] | None:
        """Their names, in order; None where numbers are learned."""
        return None if self.labels is None else self.labels.classes()

    def y(self, classes: Sequence[str] | None) -> Array:
        """Numbers of these classes, or the targets, [N]."""
        if self.labels is None or classes is None:
            return self.targets_N
        return self.labels.numbers(classes)

    @classmethod
    def read(cls, path: Path) -> _Table:
        rows = csv_rows(path)
        columns = _header(path.name, rows)
        learned = next(i for i, name in enumerate(columns) if name in _KINDS)
        is_of_classes = _KINDS[columns[learned]] == "classes"
        labels = Labels(columns[learned]) if is_of_classes else None
        features, targets = array("d"), array("d")
        for line, row in rows:
            where = f"{path.name}, line {line}"
            if len(row) != len(columns):
                raise FormatError(f"{where}: {len(row)} values for {len(columns)} columns")
            for index, text in enumerate(row):
                if index != learned:
                    features.append(number(text, f"{where}, column {columns[index]}"))
                elif labels is not None:
                    labels.add(text, where)
                else:
                    targets.append(number(text, f"{where}, column {columns[index]}"))
        if not features:
            raise FormatError(f"{path.name} has no rows")
        x_ND = np.frombuffer(features, np.float64).reshape(-1, len(columns) - 1)
        return cls(columns, x_ND, np.frombuffer(targets, np.float64), labels)


def _texts(path: Path) -> Texts:
    """Those of a table of labels and texts."""
    rows = csv_rows(path)
    columns = next(rows, (0, []))[1]
    label = next((name for name in columns if _KINDS.get(name) == "classes"), "label")
    if sorted(columns) != [label, _TEXT]:
        raise FormatError(f"{path.name} has the columns {', '.join(columns)}, not label and text")

    def lines() -> Iterator[Line]:
        for line, row in rows:
            if len(row) != len(columns):
                raise FormatError(f"{path.name}, line {line}: {len(row)} values for 2 columns")
            of = dict(zip(columns, row, strict=True))
            yield line, of[label], of[_TEXT]

    return Texts(path.name, lines())


def _header(file: str, rows: Iterator[tuple[int, list[str]]]) -> list[str]:
    """The names of the columns, of which one is learned and at least one is a feature."""
    columns = [name.strip() for name in next(rows, (0, []))[1]]
    twice = sorted(name for name, count in Counter(columns).items() if count > 1)
    if twice:
        raise FormatError(f"{file} has several columns {twice[0]!r}")
    learned = [name for name in columns if name in _KINDS]
    if len(learned) != 1:
        state = f"the columns {' and '.join(learned)}" if learned else "no column to learn"
        raise FormatError(
            f"{file} has {state}: one must be called class (or label), where its values name "
            "classes, or target, where they are numbers"
        )
    if len(columns) == 1:
        raise FormatError(f"{file} has no column but {learned[0]}")
    return columns
