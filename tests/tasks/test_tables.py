"""The readers of tables and texts: what they read, and how they refuse everything else."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ridgeline.search.tasks.datasets import load
from ridgeline.search.tasks.formats.base import FormatError
from ridgeline.search.tasks.formats.reading import read_folder
from ridgeline.search.tasks.formats.text import MAX_TOKENS, tokens_of
from ridgeline.search.tasks.kinds import PADDING, UNKNOWN, Classes, Numbers, Tokens, Vector
from tests.tasks.idx_files import write_folder
from tests.tasks.real_data import needs_real_data, real_messages
from tests.tasks.table_files import (
    numbers,
    texts,
    write_csv,
    write_lines,
    write_npz,
    write_table,
    write_text_table,
    write_texts,
)


def test_a_table_of_numbers_is_a_data_set(tmp_path: Path) -> None:
    write_table(tmp_path / "prices")
    prices = load("prices", tmp_path)
    x, y = numbers(60, 60)
    np.testing.assert_array_equal(prices.x, x)
    np.testing.assert_array_equal(prices.y, y[:, None])
    assert (prices.features, prices.targets) == (Vector(3), Numbers(1))
    assert prices.test_x is not None
    assert prices.test_x.shape == (30, 3)


@pytest.mark.parametrize("column", ["class", "label"])
def test_a_table_of_classes_is_a_data_set(tmp_path: Path, column: str) -> None:
    write_table(tmp_path / "colours", column=column)
    colours = load("colours", tmp_path)
    assert colours.targets == Classes(3)
    # blue, green, red; the rows are red, blue, green, red, …
    np.testing.assert_array_equal(colours.y[:4], [2, 0, 1, 2])
    assert colours.test_y is not None
    np.testing.assert_array_equal(colours.test_y[:4], [2, 0, 1, 2])


def test_classes_that_are_whole_numbers_are_in_their_order(tmp_path: Path) -> None:
    rows: list[list[Any]] = [["a", "class"], *([1, label] for label in [10, 9, -1, 10])]
    write_csv(tmp_path / "one" / "train.csv", rows)
    np.testing.assert_array_equal(load("one", tmp_path).y, [2, 1, 0, 2])


def test_tables_are_read_as_programs_write_them(tmp_path: Path) -> None:
    content = '\ufeff"a", target ,"b, c"\r\n1e3,-2,"3"\r\n\r\n .5,4,+6\r\n'
    (tmp_path / "train.csv").write_bytes(content.encode())
    found = read_folder(tmp_path, tmp_path)
    np.testing.assert_array_equal(found.x, [[1000, 3], [0.5, 6]])
    np.testing.assert_array_equal(found.y, [-2, 4])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "train.csv has no column to learn"),
        (b"a,b\n1,2\n", "no column to learn: one must be called class"),
        (b"a,class,target\n1,2,3\n", "has the columns class and target"),
        (b"a,a,target\n1,2,3\n", "several columns 'a'"),
        (b"target\n1\n", "has no column but target"),
        (b"a,target\n", "train.csv has no rows"),
        (b"a,target\n1,2\n3\n", "train.csv, line 3: 1 values for 2 columns"),
        (b"a,target\n1,2,3\n", "line 2: 3 values for 2 columns"),
        (b"a,target\n1,2\nx,2\n", "line 3, column a: 'x' is not a finite number"),
        (b"a,target\n,2\n1,3\nx,4\n", "line 4, column a: 'x' is not a finite number"),
        (b"a,target\nnan,2\n1,3\n", "line 2, column a: 'nan' is not a finite number"),
        (b"a,target\n1,2\n1,\n", "line 3, column target: '' is not a finite number"),
        (b"a,b,target\n1,,2\n2, ,1\n", "train.csv, column b: all its values are empty"),
        (
            b"a,target\nx,2\ny,3\n7,4\n",
            "line 4, column a: '7' is a number, but the column has categories, as in train.csv, "
            "line 2",
        ),
        (b"a,target\nx,2\nnan,3\n", "line 3, column a: 'nan' is a number, but the column has"),
        (b"a,target\n" + b"x" * 201 + b",2\n", "line 2, column a: the category has more than 200"),
        (b"a,target\n1,nan\n", "line 2, column target: 'nan' is not a finite number"),
        (b"a,target\n1,1e999\n", "'1e999' is not a finite number"),
        (b"a,target\n1,1\n1_0,1\n", "line 3, column a: '1_0' is not a finite number"),
        (b"a,class\n1,\n", "line 2: the class is empty"),
        (b"a,class\n1," + b"x" * 201 + b"\n", "more than 200 characters"),
        (b"a,class\n1,x\n2,x\n", "all rows have the class 'x'"),
        (b"a,target\n1,5\n2,5\n", "all rows have the same target"),
        (b"a,target\n1,\xff\n", "train.csv is not UTF-8"),
        (b'a,target\n1,"2\n', "train.csv, line 2: unexpected end"),
        (b"a,target\n1," + b"9" * 200_000, "field larger than field limit"),
        (b"label,text,a\nx,y,1\n", "has the columns label, text, a, not label and text"),
        (b"target,text\n1,y\n", "has the columns target, text, not label and text"),
    ],
)
def test_malformed_tables_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "train.csv").write_bytes(content)
    with pytest.raises(ValueError, match=reason) as caught:
        load("one", tmp_path)
    assert str(tmp_path) not in str(caught.value)


def test_tables_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", [["a", "class"], [1, "x"], [2, "y"]])
    others: list[tuple[list[list[Any]], str]] = [
        ([["b", "class"], [1, "x"]], r"test\.csv has other columns than train\.csv"),
        ([["a", "class"], [1, "z"]], "the test class 'z' is out of range"),
    ]
    for rows, reason in others:
        write_csv(tmp_path / "test.csv", rows)
        with pytest.raises(FormatError, match=reason):
            read_folder(tmp_path, tmp_path)
    (tmp_path / "train.csv").unlink()
    with pytest.raises(FormatError, match=r"there is no train\.csv"):
        read_folder(tmp_path, tmp_path)


def test_tokens_are_words_and_marks() -> None:
    assert tokens_of("Free PRIZE!! Call 0800-123, £5 it's_ok  Ünï") == [
        *("free", "prize", "!", "!", "call", "0800", "-", "123", ",", "£", "5"),
        *("it", "'", "s_ok", "ünï"),
    ]
    assert tokens_of(" \t ") == []
    assert tokens_of("a " * 1000) == ["a"] * MAX_TOKENS


def test_the_vocabulary_is_of_the_train_part_by_frequency(tmp_path: Path) -> None:
    train = ["x\tb b b a", "y\ta c", "x\tc a", "y\td"]
    write_lines(tmp_path / "one" / "train.tsv", train)
    write_lines(tmp_path / "one" / "test.tsv", ["y\tc e e a d"])
    one = load("one", tmp_path)
    # a stands in three texts, c in two; b and d in one each.
    assert one.features == Tokens(length=4, vocabulary_size=4)
    a, c = 2, 3
    np.testing.assert_array_equal(
        one.x,
        [
            [UNKNOWN, UNKNOWN, UNKNOWN, a],
            [a, c, PADDING, PADDING],
            [c, a, PADDING, PADDING],
            [UNKNOWN, PADDING, PADDING, PADDING],
        ],
    )
    np.testing.assert_array_equal(one.y, [0, 1, 0, 1])
    # No text of the test part is longer than the longest of the train part.
    np.testing.assert_array_equal(one.test_x, [[c, UNKNOWN, UNKNOWN, a]])


def test_lines_of_texts_are_read_as_programs_write_them(tmp_path: Path) -> None:
    content = "\ufefflabel\ttext\r\nham\thi\tthere\r\n\r\nspam\t\r\n ham \thi\x85you \u2028"
    (tmp_path / "train.tsv").write_bytes(content.encode())
    found = read_folder(tmp_path, tmp_path)
    np.testing.assert_array_equal(found.y, [0, 1, 0])
    np.testing.assert_array_equal(found.x, [[2, UNKNOWN], [PADDING, PADDING], [2, UNKNOWN]])


def test_a_table_of_texts_is_what_its_lines_are(tmp_path: Path) -> None:
    write_text_table(tmp_path / "table")
    write_texts(tmp_path / "lines", test_part=False)
    rows = [["text", "class"], *([text, label] for label, text in texts(60, 60))]
    write_csv(tmp_path / "turned" / "train.csv", rows)
    found = {load(name, tmp_path).fingerprint for name in ("table", "lines", "turned")}
    assert len(found) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "train.tsv has no rows"),
        (b"label\ttext\n", "train.tsv has no rows"),
        (b"ham hello\n", "train.tsv, line 1: there is no tab"),
        (b"ham\thello\n\thello\n", "train.tsv, line 2: the label is empty"),
        (b"ham\thello\nham\tyou\n", "all rows have the label 'ham'"),
        (b"ham\t\xff\n", "train.tsv is not UTF-8"),
        (b"ham\t" + b"x " * 100_000, "train.tsv, line 1: has more than"),
        (b"ham\thello\nspam\t" + b"x" * 200_000 + b"\nham\tyou\n", "line 2: has more than"),
    ],
)
def test_malformed_texts_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "train.tsv").write_bytes(content)
    with pytest.raises(ValueError, match=reason) as caught:
        load("one", tmp_path)
    assert str(tmp_path) not in str(caught.value)


def test_few_long_texts_among_many_cost_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ridgeline.search.tasks.formats.text._MAX_IDS", 1000)
    write_lines(tmp_path / "one" / "train.tsv", ["x\ta", "y\t" + "a " * 200] * 4)
    with pytest.raises(ValueError, match="too large: 8 texts of up to 200 tokens"):
        load("one", tmp_path)


def test_files_of_several_formats_are_refused(tmp_path: Path) -> None:
    write_table(tmp_path)
    write_npz(tmp_path)
    with pytest.raises(FormatError, match="files of several formats"):
        read_folder(tmp_path, tmp_path)
    (tmp_path / "other").mkdir()
    write_texts(tmp_path / "other")
    write_folder(tmp_path / "other")
    with pytest.raises(FormatError, match="files of several formats"):
        read_folder(tmp_path / "other", tmp_path)


@pytest.mark.parametrize("write", [write_table, write_texts])
def test_what_is_no_file_of_the_root_is_refused(tmp_path: Path, write: Any) -> None:
    write(tmp_path / "secret", test_part=False)
    (name,) = os.listdir(tmp_path / "secret")
    folder = tmp_path / "root" / "toy"
    folder.mkdir(parents=True)
    (folder / name).symlink_to(tmp_path / "secret" / name)
    with pytest.raises(FormatError, match="leads out of the data root"):
        read_folder(folder, tmp_path / "root")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(FormatError, match="is not a file"):
        read_folder(folder, tmp_path / "root")


@needs_real_data
def test_real_messages(tmp_path: Path) -> None:
    sms = real_messages(tmp_path)
    assert np.bincount(sms.y).tolist() == [4827, 747]
    assert isinstance(sms.features, Tokens)


def test_a_table_of_many_columns_is_read_in_time(tmp_path: Path) -> None:
    num_columns = 40_000
    rows = [[*range(num_columns), "ab"[row % 2]] for row in range(6)]
    names = [f"feature{column}" for column in range(num_columns)]
    write_csv(tmp_path / "wide" / "train.csv", [[*names, "class"], *rows])
    begun = time.thread_time()
    assert load("wide", tmp_path).features == Vector(num_columns)
    assert time.thread_time() - begun < 8, "the time would grow with the square of their number"
