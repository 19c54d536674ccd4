"""The reader of .data and .labels files: what it reads, and how it refuses everything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ridgeline.search.tasks.data import DatasetError, UnfitDataset
from ridgeline.search.tasks.datasets import load
from ridgeline.search.tasks.formats.base import FormatError
from ridgeline.search.tasks.formats.reading import read_folder
from ridgeline.search.tasks.kinds import Classes, Vector
from ridgeline.search.tasks.settings import Split
from ridgeline.search.tasks.splits import prepare
from tests.tasks.real_data import needs_real_data, real_root
from tests.tasks.table_files import numbers, write_data_labels, write_lines, write_table

DATA, LABELS = "toy_train.data", "toy_train.labels"


def test_numbers_and_labels_are_a_data_set(tmp_path: Path) -> None:
    write_data_labels(tmp_path / "toy")
    toy = load("toy", tmp_path)
    np.testing.assert_array_equal(toy.x, np.round(100 * numbers(60, 60)[0]))
    np.testing.assert_array_equal(toy.y, [0, 1] * 30)
    assert (toy.features, toy.targets) == (Vector(3), Classes(2))
    assert toy.test_x is not None
    np.testing.assert_array_equal(toy.test_x, np.round(100 * numbers(30, 30)[0]))
    np.testing.assert_array_equal(toy.test_y, [0, 1] * 15)
    assert len(prepare(toy, Split()).test[1]) == 30, "the validation files are the test part"


def test_files_are_read_as_programs_write_them(tmp_path: Path) -> None:
    (tmp_path / DATA).write_bytes("\ufeff1e3 -2\t.5 \r\n\r\n+4  5 6".encode())
    (tmp_path / LABELS).write_bytes(b" -1 \r\n1\r\n\r\n")
    write_lines(tmp_path / "toy_test.data", ["not read, as it has no labels"])
    write_lines(tmp_path / "toy.param", ["nor is this"])
    found = read_folder(tmp_path, tmp_path)
    np.testing.assert_array_equal(found.x, [[1000, -2, 0.5], [4, 5, 6]])
    np.testing.assert_array_equal(found.y, [0, 1])
    assert found.test_x is None


def test_one_column_and_ten_thousand_are_read(tmp_path: Path) -> None:
    for num_columns in (1, 10_000):
        row = " ".join(["7"] * num_columns)
        write_lines(tmp_path / f"of{num_columns}" / DATA, [row] * 6)
        write_lines(tmp_path / f"of{num_columns}" / LABELS, ["-1", "1"] * 3)
        assert load(f"of{num_columns}", tmp_path).x.shape == (6, num_columns)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "toy_train.data has no rows"),
        (b"\n \n", "toy_train.data has no rows"),
        (b"1 2\n3 4\n\n5\n", "toy_train.data, line 4: 1 numbers, but 2 before it"),
        (b"1 2\n3 4\n5 6 7\n", "toy_train.data, line 3: 3 numbers, but 2 before it"),
        (b"1 2\n\n3 4\n5 x\n", "toy_train.data, line 4, column 2: 'x' is not a finite number"),
        (b"x 2\n3 4\n5 6\n", "toy_train.data, line 1, column 1: 'x' is not"),
        (b"1 2\n3 nan\n5 6\n", "toy_train.data, line 2, column 2: 'nan' is not a finite number"),
        (b"1 2\n3 4\n1e999 6\n", "line 3, column 1: '1e999' is not a finite number"),
        (b"1 2\n3 1_0\n5 6\n", "line 2, column 2: '1_0' is not"),
        (b"1,2\n3,4\n5,6\n", "line 1, column 1: '1,2' is not"),
        (b"7:1 9:1\n3:1\n5:1\n", "line 1, column 1: '7:1' is not"),
        (b"1 2\n# 4\n5 6\n", "line 2, column 1: '#' is not"),
        (b"1 2\n3 " + b"x" * 900 + b"\n5 6\n", "line 2, column 2: 'x{40}…' is not"),
        (b"1 2\n3 4\n5 \xff\n", "toy_train.data is not UTF-8"),
        (b"1 2\n3 4\n5 \0\n", "toy_train.data, line 3, column 2: '.x00' is not"),
        ("1 2\n3 4\n5 ٣\n".encode(), "toy_train.data is not rows of numbers: "),
        (b"1 2\n3 4\n", "toy_train.data has 2 rows and toy_train.labels 3 labels"),
        (b"1 2\n3 4\n5 6\n7 8\n", "toy_train.data has 4 rows and toy_train.labels 3 labels"),
    ],
)
def test_malformed_numbers_are_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    write_lines(tmp_path / "toy" / LABELS, ["-1", "1", "1"])
    (tmp_path / "toy" / DATA).write_bytes(data)
    with pytest.raises(DatasetError, match=f"data set toy: .*{reason}") as caught:
        load("toy", tmp_path)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (b"", "toy_train.labels has no rows"),
        (b"1\n1\n1\n", "all rows have the label '1'"),
        (b"1\n-1 1\n1\n", "toy_train.labels, line 2: 2 labels for one row"),
        (b"1\n" + b"x" * 201 + b"\n1\n", "toy_train.labels, line 2: the label has more than 200"),
        (b"1\n-1\n\xff\n", "toy_train.labels is not UTF-8"),
        (b"1\n-1\n", "toy_train.data has 3 rows and toy_train.labels 2 labels"),
    ],
)
def test_malformed_labels_are_refused(tmp_path: Path, labels: bytes, reason: str) -> None:
    write_lines(tmp_path / "toy" / DATA, ["1 2", "3 4", "5 6"])
    (tmp_path / "toy" / LABELS).write_bytes(labels)
    with pytest.raises(DatasetError, match=f"data set toy: .*{reason}"):
        load("toy", tmp_path)


def test_parts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_data_labels(tmp_path)
    write_lines(tmp_path / "toy_valid.labels", ["-1", "2"] * 15)
    with pytest.raises(FormatError, match="the test label '2' is out of range"):
        read_folder(tmp_path, tmp_path)
    write_lines(tmp_path / "toy_valid.data", ["1 2"] * 30)
    with pytest.raises(
        FormatError, match=r"toy_valid\.data has rows of 2 numbers, those of toy_train\.data have 3"
    ):
        read_folder(tmp_path, tmp_path)
    (tmp_path / "toy_valid.labels").unlink()
    with pytest.raises(FormatError, match=r"there is no toy_valid\.labels"):
        read_folder(tmp_path, tmp_path)
    (tmp_path / DATA).unlink()
    with pytest.raises(FormatError, match=r"there is no toy_train\.data"):
        read_folder(tmp_path, tmp_path)


def test_files_of_several_data_sets_are_refused(tmp_path: Path) -> None:
    write_data_labels(tmp_path)
    write_lines(tmp_path / "gisette_train.data", ["1"])
    with pytest.raises(FormatError, match="files of several data sets: gisette, toy"):
        read_folder(tmp_path, tmp_path)
    (tmp_path / "gisette_train.data").unlink()
    write_table(tmp_path)
    with pytest.raises(FormatError, match="files of several formats"):
        read_folder(tmp_path, tmp_path)


def test_a_class_of_one_row_is_known_before_a_split(tmp_path: Path) -> None:
    write_lines(tmp_path / "toy" / DATA, ["1 2"] * 5)
    write_lines(tmp_path / "toy" / LABELS, ["-1", "-1", "-1", "-1", "1"])
    toy = load("toy", tmp_path)
    assert toy.card.smallest_class == 1
    with pytest.raises(UnfitDataset, match="data set toy: class 1 has 1 of the 3 rows"):
        prepare(toy, Split())


@needs_real_data
def test_real_madelon() -> None:
    madelon = load("madelon", real_root())
    assert madelon.x.shape == (2000, 500)
    assert madelon.test_x is not None
    assert madelon.test_x.shape == (600, 500)
    assert np.bincount(madelon.y).tolist() == [1000, 1000]
    assert madelon.x[0, :4].tolist() == [485, 477, 537, 479]
