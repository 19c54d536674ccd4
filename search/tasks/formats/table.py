"""Tables: train.csv, and test.csv where there is a test part; or the same of another format.

The first line names the columns.  One of them is to be learned: `class` or `label`, whose values
are the names of classes, or `target`, whose values are numbers.  All others are features, see
`features`.  What a column of whole numbers means, nobody but its author knows, so it is not
guessed: they are numbers.  A study may say otherwise what its columns are for, see `Reading`.

A table whose columns are `label` (or `class`) and `text` has texts, see `text`.

# N rows, C columns of features
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ridgeline.search.tasks.formats.base import (
    Array,
    FormatError,
    RawParts,
    Summary,
    TellsTooLittle,
)
from ridgeline.search.tasks.formats.features import Column, features_of
from ridgeline.search.tasks.formats.files import Folder
from ridgeline.search.tasks.formats.keys import Groups, Times
from ridgeline.search.tasks.formats.rows import Labels, csv_rows, number
from ridgeline.search.tasks.formats.sheet import Sheet, summary_of
from ridgeline.search.tasks.formats.text import Line, Texts, tokenised
from ridgeline.search.tasks.kinds import TargetsKind
from ridgeline.search.tasks.settings import Reading

_TRAIN, _TEST = "train.csv", "test.csv"
_TEXT = "text"
_KINDS: dict[str, TargetsKind] = {"class": "classes", "label": "classes", "target": "numbers"}
"""By the name of the column that is learned."""


def is_there(names: Sequence[str]) -> bool:
    """Whether names of files are those of this format."""
    return _TRAIN in names or _TEST in names


def read_folder(folder: Folder, reading: Reading) -> RawParts:
    """The features of a folder's tables, float64, and what is to be learned.

    Raises:
        TellsTooLittle: a study has to say more of it than `reading` does.
        FormatError: a file is missing, outside of the root or malformed, or they disagree.
    """
    train, test = folder.parts(_TRAIN, _TEST)
    if not reading.has_columns and _TEXT in next(csv_rows(train), (0, []))[1]:
        return tokenised(_texts(train), None if test is None else _texts(test))
    return read_sheets(sheets(folder), reading)


def summary(folder: Folder) -> Summary:
    """What can be said of a folder's tables when nobody says what is learned.

    Raises:
        FormatError: as of `read_folder`.
    """
    return summary_of(sheets(folder))


def sheets(folder: Folder) -> list[Sheet]:
    """The train part, and the test part where there is one."""
    return [Sheet.of_csv(path) for path in folder.parts(_TRAIN, _TEST) if path is not None]


def read_sheets(sheets: Sequence[Sheet], reading: Reading) -> RawParts:
    """The features of a table, float64, and what is to be learned.

    Args:
        sheets: the train part, and the test part where there is one.

    Raises:
        TellsTooLittle: a study has to say more of it than `reading` does.
        FormatError: a file is malformed, or they disagree.
    """
    uses = _Uses.of(sheets[0], reading)
    train = _Table.read(sheets[0], uses, for_test=False)
    tables = [train]
    for sheet in sheets[1:]:
        if sheet.names != uses.names:
            raise FormatError(f"{sheet.file} has other columns than {train.file}")
        tables.append(_Table.read(sheet, uses, for_test=True))
        _check_apart(train, tables[1], reading)
    parts = [(table.file, table.values_NC) for table in tables]
    (x, *test_x), columns = features_of(uses.columns, parts)
    classes = None if train.labels is None else train.labels.classes()
    y, *test_y = (table.y(classes) for table in tables)
    return RawParts(
        x,
        y,
        test_x[0] if test_x else None,
        test_y[0] if test_y else None,
        targets=uses.kind,
        columns=columns,
        key=train.key_N if reading.key else None,
        class_names=classes,
    )


@dataclass(frozen=True, eq=False)
class _Uses:
    """What the columns of a table are for.

    Attributes:
        learned, key: their places; `columns` are all others, of features, in the file's order.
        kind: what the values of the one that is learned are.
        keys: what reads those of `key`, if there is one.
    """

    names: list[str]
    learned: int
    kind: TargetsKind
    key: int | None
    keys: Groups | Times | None
    columns: list[Column]

    @classmethod
    def of(cls, sheet: Sheet, reading: Reading) -> _Uses:
        """Those of a table by its names and by what a study says."""
        names = sheet.names
        if reading.images is not None:
            raise FormatError("it is a table, without images")
        for use in ("label", "target", "group", "time"):
            name = getattr(reading, use)
            if name is not None and name not in names:
                raise FormatError(f"{sheet.file} has no column {name!r}, which is to be the {use}")
        kind: TargetsKind = "numbers" if reading.target is not None else "classes"
        learned = reading.label or reading.target
        if learned is None:
            told = [name for name in names if name in _KINDS and name != reading.key]
            if len(told) != 1:
                state = f"the columns {' and '.join(told)}" if told else "no column to learn"
                raise TellsTooLittle(
                    f"{sheet.file} has {state}: one must be called class (or label), where its "
                    "values name classes, or target, where they are numbers; or task.label or "
                    "task.target of the study names it"
                )
            (learned,) = told
            kind = _KINDS[learned]
        if learned == reading.key:
            raise FormatError(f"{learned} is to be learned, so no split can go by it")
        columns = [Column(name) for name in names if name not in (learned, reading.key)]
        if not columns:
            others = " and ".join(filter(None, (learned, reading.key)))
            raise FormatError(f"{sheet.file} has no column but {others}")
        key = None if reading.key is None else names.index(reading.key)
        keys = None if key is None else Times() if reading.time else Groups()
        return cls(names, names.index(learned), kind, key, keys, columns)


@dataclass(frozen=True, eq=False)
class _Table:
    """Of rows that have targets, or else labels.

    Attributes:
        values_NC: of the columns of features, as `Column.value` gives them.
        key_N: what splits go by; empty where there is none.
    """

    file: str
    values_NC: Array
    targets_N: Array
    labels: Labels | None
    key_N: Array

    def y(self, classes: Sequence[str] | None) -> Array:
        """Numbers of these classes, or the targets, [N]."""
        if self.labels is None or classes is None:
            return self.targets_N
        return self.labels.numbers(classes)

    @classmethod
    def read(cls, sheet: Sheet, uses: _Uses, *, for_test: bool) -> _Table:
        """A file, of the test part or the train part."""
        name = uses.names[uses.learned]
        labels = Labels(name) if uses.kind == "classes" else None
        reads = [column.value_of_test if for_test else column.value for column in uses.columns]
        # From the right, so that none moves the next.
        others = sorted({uses.learned, uses.learned if uses.key is None else uses.key})[::-1]
        values, targets, keys = array("d"), array("d"), array("d")
        for at, row in sheet.rows:
            goal = row[uses.learned]
            if labels is not None:
                labels.add(goal, sheet.place(at))
            else:
                targets.append(number(goal, f"{sheet.place(at)}, column {name}"))
            if uses.keys is not None and uses.key is not None:
                where = f"{sheet.place(at)}, column {uses.names[uses.key]}"
                keys.append(uses.keys.value(row[uses.key], where))
            for other in others:
                del row[other]
            values.extend(
                read(text, sheet.place, at) for read, text in zip(reads, row, strict=True)
            )
        if not values:
            raise FormatError(f"{sheet.file} has no rows")
        for column in uses.columns:
            column.check_known(sheet.file)
        values_NC = np.frombuffer(values, np.float64).reshape(-1, len(uses.columns))
        targets_N, key_N = np.frombuffer(targets, np.float64), np.frombuffer(keys, np.float64)
        return cls(sheet.file, values_NC, targets_N, labels, key_N)


def _check_apart(train: _Table, test: _Table, reading: Reading) -> None:
    """Check that the parts are as a split by that column would make them."""
    if reading.group and len(shared := np.flatnonzero(np.isin(test.key_N, train.key_N))):
        raise FormatError(
            f"{test.file}, column {reading.group}: the group of row {shared[0] + 1} is in "
            f"{train.file} too"
        )
    if reading.time and len(test.key_N) and test.key_N.min() <= train.key_N.max():
        raise FormatError(
            f"{test.file}, column {reading.time}: row {int(test.key_N.argmin()) + 1} comes no "
            f"later than all rows of {train.file}"
        )


def _texts(path: Path) -> Texts:
    """Those of a table of labels and texts."""
    sheet = Sheet.of_csv(path)
    columns = sheet.names
    label = next((name for name in columns if _KINDS.get(name) == "classes"), "label")
    if sorted(columns) != [label, _TEXT]:
        raise FormatError(f"{path.name} has the columns {', '.join(columns)}, not label and text")

    def lines() -> Iterator[Line]:
        for line, row in sheet.rows:
            of = dict(zip(columns, row, strict=True))
            yield line, of[label], of[_TEXT]

    return Texts(path.name, lines())
