"""What holds of every format: the same rows are the same data, and the same faults are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from ridgeline.search.tasks.data import DatasetError, UnfitDataset
from ridgeline.search.tasks.datasets import load
from ridgeline.search.tasks.kinds import Vector
from ridgeline.search.tasks.settings import Split
from ridgeline.search.tasks.splits import prepare
from tests.tasks.idx_files import encode, write
from tests.tasks.picture_files import write_picture
from tests.tasks.table_files import write_csv, write_lines

Write = Callable[[Path, np.ndarray, np.ndarray], object]
"""Writes rows [N, D] and whole numbers as their classes [N], as the train part of a folder."""


def write_idx(folder: Path, x: np.ndarray, y: np.ndarray) -> None:
    write(folder / "train-images", encode(x))
    write(folder / "train-labels", encode(y.astype(np.uint8)))


def write_npz(folder: Path, x: np.ndarray, y: np.ndarray) -> None:
    folder.mkdir(parents=True)
    np.savez(folder / "train.npz", x=x, y=y)


def write_table(folder: Path, x: np.ndarray, y: np.ndarray) -> None:
    names = [f"f{column}" for column in range(x.shape[1])]
    rows = [[*row, label] for row, label in zip(x.tolist(), y.tolist(), strict=True)]
    write_csv(folder / "train.csv", [[*names, "class"], *rows])


def write_parquet(folder: Path, x: np.ndarray, y: np.ndarray) -> None:
    folder.mkdir(parents=True)
    columns = {f"f{column}": values for column, values in enumerate(x.T)}
    parquet.write_table(pyarrow.table({**columns, "class": y}), folder / "train.parquet")


def write_data_labels(folder: Path, x: np.ndarray, y: np.ndarray) -> None:
    write_lines(folder / "a_train.data", [" ".join(map(repr, row)) for row in x.tolist()])
    write_lines(folder / "a_train.labels", [str(label) for label in y])


def write_texts(folder: Path, x: np.ndarray, y: np.ndarray) -> None:
    rows = zip(x.tolist(), y.tolist(), strict=True)
    write_lines(
        folder / "train.tsv", [f"{label}\t{' '.join(map(str, row))}" for row, label in rows]
    )


def write_pictures(folder: Path, x: np.ndarray, y: np.ndarray) -> None:
    for number, (row, label) in enumerate(zip(x, y, strict=True)):
        write_picture(folder / f"{label}" / f"{number:05}.png", row[None].astype(np.uint8))


VECTORS: dict[str, Write] = {
    "idx": write_idx,
    "npz": write_npz,
    "table": write_table,
    "parquet": write_parquet,
    "data and labels": write_data_labels,
}
FORMATS: dict[str, Write] = {**VECTORS, "texts": write_texts, "pictures": write_pictures}


@pytest.mark.parametrize("format", VECTORS)
def test_real_rows_are_what_they_are_in_every_format(tmp_path: Path, format: str) -> None:
    wine = load("wine", None)
    VECTORS[format](tmp_path / "one", np.array(wine.x), np.array(wine.y))
    one = load("one", tmp_path)
    assert one.features == wine.features
    assert one.targets == wine.targets
    for division in range(3):
        split = Split(folds=3)
        found, wanted = (prepare(data, split, None, division) for data in (one, wine))
        np.testing.assert_array_equal(found.train[0], wanted.train[0])
        np.testing.assert_array_equal(found.validation[1], wanted.validation[1])
        np.testing.assert_array_equal(found.test[0], wanted.test[0])


def test_real_images_are_what_they_are_as_pictures(tmp_path: Path) -> None:
    digits = load("digits", None)
    order = np.argsort(digits.y, kind="stable")[:400]
    for number in order:
        pixels = digits.x[number].astype(np.uint8)
        write_picture(tmp_path / "one" / f"{digits.y[number]}" / f"{number:05}.png", pixels)
    one = load("one", tmp_path)
    np.testing.assert_array_equal(one.x, digits.x[order])
    np.testing.assert_array_equal(one.y, digits.y[order])


@pytest.mark.parametrize("format", FORMATS)
def test_one_class_is_none(tmp_path: Path, format: str) -> None:
    FORMATS[format](tmp_path / "one", np.arange(12.0).reshape(6, 2), np.ones(6, int))
    with pytest.raises(DatasetError, match=r"^data set one: all rows have the (label|class) '?1"):
        load("one", tmp_path)


@pytest.mark.parametrize("format", FORMATS)
def test_a_class_of_one_row_is_known_before_a_split(tmp_path: Path, format: str) -> None:
    x, y = np.arange(12.0).reshape(6, 2), np.array([0, 0, 0, 0, 0, 1])
    FORMATS[format](tmp_path / "one", x, y)
    one = load("one", tmp_path)
    assert one.card.smallest_class == 1
    with pytest.raises(UnfitDataset, match="data set one: class 1 has 1 of the 3 rows"):
        prepare(one, Split())
    with pytest.raises(UnfitDataset, match="data set one: class 1 has 1 of the 5 rows"):
        prepare(one, Split(folds=4))


@pytest.mark.parametrize("format", FORMATS)
def test_a_class_is_called_by_its_label(tmp_path: Path, format: str) -> None:
    x, y = np.arange(12.0).reshape(6, 2), np.array([3, 3, 3, 3, 3, 17])
    FORMATS[format](tmp_path / "one", x, y)
    one = load("one", tmp_path)
    assert one.class_names == ("3", "17")
    with pytest.raises(UnfitDataset, match="data set one: class 17 has 1 of the 3 rows"):
        prepare(one, Split())


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "idx"])
def test_a_class_is_called_by_its_name(tmp_path: Path, format: str) -> None:
    x, y = np.arange(12.0).reshape(6, 2), np.array(["often"] * 5 + ["seldom"])
    FORMATS[format](tmp_path / "one", x, y)
    one = load("one", tmp_path)
    assert one.class_names == ("often", "seldom")
    with pytest.raises(UnfitDataset, match="class 'seldom' has 1 of the 3 rows"):
        prepare(one, Split())


def test_classes_of_scikit_learn_have_names() -> None:
    assert load("breast-cancer", None).class_names == ("malignant", "benign")
    assert load("digits", None).class_called(7) == "7"
    assert load("diabetes", None).class_names is None


@pytest.mark.parametrize("format", ["idx", "npz"])
def test_ten_thousand_columns_are_read(tmp_path: Path, format: str) -> None:
    x = np.arange(60_000.0).reshape(6, 10_000)
    FORMATS[format](tmp_path / "wide", x, np.arange(6) % 2)
    assert load("wide", tmp_path).features == Vector(10_000)
