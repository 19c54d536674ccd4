"""Tables as comma-separated values: train.csv, and test.csv where there is a test part.

The first line names the columns.  One of them is to be learned: `class` or `label`, whose values
are the names of classes, or `target`, whose values are numbers.  All others are features, see
`features`.  What a column of whole numbers means, nobody but its author knows, so it is not
guessed: they are numbers.

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
from ridgeline.search.tasks.formats.features import Column, features_of
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
    """The features of a folder's tables, float64, and what is to be learned.

    Raises:
        FormatError: a file is missing, outside of the root or malformed, or they disagree.
    """
    train_file, test_file = folder.parts(_TRAIN, _TEST)
    if _TEXT in next(csv_rows(train_file), (0, []))[1]:
        return tokenised(_texts(train_file), None if test_file is None else _texts(test_file))
    train = _Table.read(train_file)
    tables = [train] if test_file is None else [train, _Table.read(test_file, train)]
    parts = [(table.file, table.values_NC) for table in tables]
    (x, *test_x), columns = features_of(train.columns, parts)
    classes = train.classes()
    y, *test_y = (table.y(classes) for table in tables)
    return RawParts(
        x,
        y,
        test_x[0] if test_x else None,
        test_y[0] if test_y else None,
        targets="numbers" if classes is None else "classes",
        columns=columns,
    )


@dataclass(frozen=True, eq=False)
class _Table:
    """Of rows that have targets, or else labels.

    Attributes:
        names: of all columns, `columns` are those of features.
        values_NC: of the columns of features, as `Column.value` gives them.
    """

    file: str
    names: list[str]
    columns: list[Column]
    values_NC: Array
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
    def read(cls, path: Path, train: _Table | None = None) -> _Table:
        """A file, which is the test part where the train part is given."""
        rows = csv_rows(path)
        names = _header(path.name, rows)
        if train is not None and names != train.names:
            raise FormatError(f"{path.name} has other columns than {train.file}")
        learned = next(i for i, name in enumerate(names) if name in _KINDS)
        labels = Labels(names[learned]) if _KINDS[names[learned]] == "classes" else None
        if train is None:
            columns = [Column(name) for i, name in enumerate(names) if i != learned]
            reads = [column.value for column in columns]
        else:
            columns = train.columns
            reads = [column.value_of_test for column in columns]
        values, targets = array("d"), array("d")
        for line, row in rows:
            if len(row) != len(names):
                raise FormatError(
                    f"{path.name}, line {line}: {len(row)} values for {len(names)} columns"
                )
            goal = row.pop(learned)
            if labels is not None:
                labels.add(goal, f"{path.name}, line {line}")
            else:
                targets.append(number(goal, f"{path.name}, line {line}, column {names[learned]}"))
            values.extend(
                read(text, path.name, line) for read, text in zip(reads, row, strict=True)
            )
        if not values:
            raise FormatError(f"{path.name} has no rows")
        for column in columns:
            column.check_known(path.name)
        values_NC = np.frombuffer(values, np.float64).reshape(-1, len(columns))
        return cls(path.name, names, columns, values_NC, np.frombuffer(targets, np.float64), labels)


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
