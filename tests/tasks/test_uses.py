"""What is told of a table's columns beforehand is what becomes of them when they are read so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ridgeline.search.tasks.data import ColumnCard, DatasetError
from ridgeline.search.tasks.datasets import card_of, load
from ridgeline.search.tasks.formats.uses import MAX_COLUMNS, MAX_COUNTED
from ridgeline.search.tasks.kinds import COLUMN_USES, Classes, ColumnUse
from ridgeline.search.tasks.settings import Reading
from tests.tasks.picture_files import write_picture
from tests.tasks.table_files import write_csv

NUM_ROWS = 6
MANY = 3 * MAX_COUNTED

COLUMNS: dict[str, tuple[list[Any], list[Any]]] = {
    "numbers": ([1, 2, 3, 4, 5, 6], [7, 8]),
    "numbers, the test part's not later": ([1, 2, 3, 4, 5, 6], [6, 7]),
    "numbers with a gap": ([1, "", 3, 4, 5, 6], [7, ""]),
    "numbers and a text": ([1, 2, "three", 4, 5, 6], [7, 8]),
    "a text among the test part's numbers": ([1, 2, 3, 4, 5, 6], [7, "eight"]),
    "not finite": ([1, 2, 3, 4, 5, "nan"], [7, 8]),
    "whole numbers of classes": ([0, 1, 0, 1, 0, 1], [0, 1]),
    "one value": ([3, 3, 3, 3, 3, 3], [3, 3]),
    "names": (["a", "b", " a", "b ", "a", "b"], ["b", "a"]),
    "names, the test part's others": (["a", "b", "a", "b", "a", "b"], ["c", "d"]),
    "names with a gap": (["a", "", "a", "b", "a", "b"], ["a", "b"]),
    "a number among names": (["a", "b", "a", 7, "a", "b"], ["a", "b"]),
    "a long name": (["a", "b" * 201, "a", "b", "a", "b"], ["a", "b"]),
    "dates": ([f"2024-05-1{day}" for day in range(6)], ["2024-06-01", "2024-06-02T08:30"]),
    "dates and a number": (["2024-05-17", 3, *["2024-05-18"] * 4], ["2025-01-01"] * 2),
    "nothing": ([""] * 6, [""] * 2),
    "many names": ([f"n{row}" for row in range(MANY)], ["n3", "n4"]),
    "many numbers": ([row + 0.5 for row in range(MANY)], [1e6, 2e6]),
    "many numbers with a gap": ([*range(MANY - 1), ""], [1e6, 2e6]),
    "many numbers, one not finite": ([*range(MANY - 1), "inf"], [1e6, 2e6]),
    "many numbers, one as Python has it": ([*range(MANY - 1), "1_000"], [1e6, 2e6]),
    "many numbers, one long": ([*range(MANY - 1), "0." + "1" * 300], [1e6, 2e6]),
    "many numbers, the test part's not later": ([*range(MANY)], [MANY, 7]),
    "many numbers and a text": ([*range(MANY - 1), "x"], [1e6, 2e6]),
}


def write(folder: Path, train: list[Any], test: list[Any] | None) -> None:
    for file, values in (("train.csv", train), ("test.csv", test)):
        if values is not None:
            rows = [[row % 2, row, value] for row, value in enumerate(values)]
            write_csv(folder / file, [["y", "x", "c"], *rows])


def reading(use: ColumnUse) -> Reading:
    said: dict[str, Any] = {} if use == "feature" else {use: "c"}
    if use not in ("label", "target"):
        said["label"] = "y"
    return Reading(**said)


def can_be_read(root: Path, use: ColumnUse) -> bool:
    try:
        load("one", root, reading(use))
    except DatasetError:
        return False
    return True


@pytest.mark.parametrize("has_test_part", [False, True])
@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_is_told_to_be_what_it_can_be_read_as(
    tmp_path: Path, column: str, has_test_part: bool
) -> None:
    train, test = COLUMNS[column]
    write(tmp_path / "one", train, test if has_test_part else None)
    card = card_of("one", tmp_path)
    assert card.files == "table"
    assert card.columns is not None
    assert [its.name for its in card.columns] == ["y", "x", "c"]
    for use in COLUMN_USES:
        told = use in card.columns[2].uses
        is_counted = not column.startswith("many")
        if told and has_test_part and not is_counted and use in ("label", "group"):
            continue  # values that are too many are not compared with those of the test part
        assert told == can_be_read(tmp_path, use), use


def test_values_and_classes_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "one", ["a", "b", "a", "rare\x1bone", "b", "a"], None)
    columns = card_of("one", tmp_path).columns
    assert columns is not None
    assert columns[0] == ColumnCard("y", COLUMN_USES, 2, 3, "0")
    uses: tuple[ColumnUse, ...] = ("label", "group", "feature")
    assert columns[2] == ColumnCard("c", uses, 3, 1, "rare\N{REPLACEMENT CHARACTER}one")
    write(tmp_path / "one", [f"n{row}" for row in range(MANY)], None)
    columns = card_of("one", tmp_path).columns
    assert columns is not None
    assert columns[2] == ColumnCard("c", ("label", "group"), None, None, None)


def test_of_a_table_that_says_what_is_learned_the_columns_are_told_too(tmp_path: Path) -> None:
    write_csv(tmp_path / "one" / "train.csv", [["x", "class"], [1, "a"], [2, "b"], [3, "a"]])
    card = card_of("one", tmp_path)
    assert (card.targets, card.smallest_class, card.rarest_class) == (Classes(2), 1, "b")
    assert card.columns is not None
    assert [column.name for column in card.columns] == ["x", "class"]


def test_columns_that_are_many_are_not_told(tmp_path: Path) -> None:
    names = [f"x{number}" for number in range(MAX_COLUMNS)]
    rows = [[row, *range(MAX_COLUMNS)] for row in range(3)]
    write_csv(tmp_path / "one" / "train.csv", [["target", *names], *rows])
    assert (card_of("one", tmp_path).files, card_of("one", tmp_path).columns) == ("table", None)


def test_what_is_no_table_has_no_columns(tmp_path: Path) -> None:
    for label in "ab":
        write_picture(tmp_path / "pets" / label / "1.png", np.zeros((1, 4, 4), np.uint8))
    for name, root, files in (("pets", tmp_path, "pictures"), ("digits", None, "other")):
        card = card_of(name, root)
        assert (card.files, card.columns) == (files, None)
