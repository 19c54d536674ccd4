"""Categories and missing numbers in tables: what becomes of them, and of which rows it is known."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from ridgeline.search.tasks.columns import Columns
from ridgeline.search.tasks.data import Dataset, UnfitDataset
from ridgeline.search.tasks.datasets import load
from ridgeline.search.tasks.formats.base import FormatError
from ridgeline.search.tasks.formats.features import MAX_CATEGORIES
from ridgeline.search.tasks.formats.reading import read_folder
from ridgeline.search.tasks.kinds import Classes, Vector
from ridgeline.search.tasks.settings import Split
from ridgeline.search.tasks.splits import prepare, split_column
from tests.tasks.table_files import mixed, write_csv, write_mixed

HEADER = ["a", "colour", "b", "class"]


def test_categories_and_missing_numbers_become_features(tmp_path: Path) -> None:
    rows = [[1, "red", "", "x"], [2, " blue ", 7, "y"], [3, "", 9, "x"]]
    write_csv(tmp_path / "train.csv", [HEADER, *rows])
    write_csv(tmp_path / "test.csv", [HEADER, ["", "red", "", "y"], [4, "pink", 8, "x"]])
    found = read_folder(tmp_path, tmp_path)
    # a, a is missing, blue, red, b, b is missing
    np.testing.assert_array_equal(
        found.x, [[1, 0, 0, 1, 0, 1], [2, 0, 1, 0, 7, 0], [3, 0, 0, 0, 9, 0]]
    )
    np.testing.assert_array_equal(found.test_x, [[0, 1, 0, 1, 0, 1], [4, 0, 0, 0, 8, 0]])
    assert found.columns == Columns(flags=(1, 2, 3, 5), missing=((0, 1), (4, 5)))
    assert load_one(tmp_path).features == Vector(6)


def load_one(folder: Path) -> Dataset:
    return load(folder.name, folder.parent)


def test_a_table_of_numbers_alone_is_what_it_was(tmp_path: Path) -> None:
    write_csv(tmp_path / "one" / "train.csv", [["a", "b", "class"], [1, 2, "x"], [3, 4.5, "y"]])
    one = load("one", tmp_path)
    assert one.columns is None
    # Pinned: studies of such tables are under way.
    assert one.fingerprint == "1dab7e927c03ab2ee9737b43bd0873384fa340133a4129faa176d985a6f95204"


def test_the_parts_are_as_scikit_learn_would_make_them(tmp_path: Path) -> None:
    write_mixed(tmp_path / "one")
    dataset = load("one", tmp_path)
    parts, rows = prepare(dataset, Split(seed=3)), split_column(dataset, Split(seed=3))
    table, test = (np.array(mixed(n, n), dtype=object) for n in (60, 30))
    train = table[rows.train]
    categories = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(train[:, [1]])
    imputer = SimpleImputer(strategy="median", add_indicator=True).fit(as_numbers(train))
    scaler = StandardScaler().fit(imputer.transform(as_numbers(train))[:, :2])
    for (x, _), raw in (
        (parts.train, train),
        (parts.validation, table[rows.validation]),
        (parts.test, test),
    ):
        filled = imputer.transform(as_numbers(raw))
        scaled = scaler.transform(filled[:, :2])
        wanted = np.column_stack(
            [scaled[:, 0], categories.transform(raw[:, [1]]), scaled[:, 1], filled[:, 2]]
        )
        np.testing.assert_allclose(x, wanted, rtol=1e-5, atol=1e-6)


def as_numbers(rows: np.ndarray) -> np.ndarray:
    numbers = rows[:, [0, 2]].copy()
    numbers[numbers == ""] = np.nan
    return numbers.astype(np.float64)


def dataset_of(x: Any, columns: Columns) -> Dataset:
    x_ND = np.array(x, np.float64)
    y = np.arange(len(x_ND)) % 2
    return Dataset.of(
        "one", x_ND, y, features=Vector(x_ND.shape[1]), targets=Classes(2), columns=columns
    )


def test_what_no_training_row_has_is_not_known_of_others() -> None:
    columns = Columns(flags=(1, 2), missing=((0, 1),))
    x = np.zeros((40, 3))
    x[:, 0] = np.arange(40)
    rows = split_column(dataset_of(x, columns), Split())
    for held_out in (rows.validation, rows.test):
        x[held_out[0]] = [0, 1, 1]  # a missing number, and a category
    parts = prepare(dataset_of(x, columns), Split())
    median = np.median(x[rows.train, 0])
    mean, deviation = x[rows.train, 0].mean(), x[rows.train, 0].std()
    for part in (parts.validation, parts.test):
        np.testing.assert_allclose(part[0][0], [(median - mean) / deviation, 0, 0], rtol=1e-6)
        assert not part[0][:, 1:].any()


def test_a_number_that_all_training_rows_lack_is_zero_everywhere() -> None:
    columns = Columns(flags=(1,), missing=((0, 1),))
    x = np.tile([0.0, 1.0], (40, 1))
    rows = split_column(dataset_of(x, columns), Split())
    x[rows.test] = [5_000, 0]
    parts = prepare(dataset_of(x, columns), Split())
    assert not parts.test[0].any()
    np.testing.assert_array_equal(parts.train[0], np.tile([0, 1], (len(rows.train), 1)))


def test_rows_outside_of_training_change_no_training_value(tmp_path: Path) -> None:
    write_mixed(tmp_path / "one", test_part=False)
    dataset = load("one", tmp_path)
    assert dataset.columns is not None
    before, rows = prepare(dataset, Split()), split_column(dataset, Split())
    x = dataset.x.copy()
    held_out = np.concatenate([rows.validation, rows.test])
    x[held_out] = x[held_out][::-1] * [-1_000, 1, 1, 1, 1_000, 1]
    changed = Dataset.of(
        "one",
        x,
        dataset.y,
        features=dataset.features,
        targets=dataset.targets,
        columns=dataset.columns,
    )
    after = prepare(changed, Split())
    assert after.train[0].tobytes() == before.train[0].tobytes()
    assert dataset.x[rows.train].tobytes() == x[rows.train].tobytes(), "it is left as it was"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (["x", "red", 1, "x"], "test.csv, line 2, column a: 'x' is not a finite number"),
        ([1, 5, 1, "x"], "test.csv, line 2, column colour: '5' is a number, but the column has"),
        ([1, "red", "inf", "x"], "test.csv, line 2, column b: 'inf' is not a finite number"),
        ([1, "red", 1, "z"], "the test class 'z' is out of range"),
        ([1, "red", "x"], "test.csv, line 2: 3 values for 4 columns"),
    ],
)
def test_a_test_part_of_other_kinds_is_refused(tmp_path: Path, row: list[Any], reason: str) -> None:
    write_csv(tmp_path / "train.csv", [HEADER, [1, "red", "", "x"], [2, "blue", 7, "y"]])
    write_csv(tmp_path / "test.csv", [HEADER, row])
    with pytest.raises(FormatError, match=reason):
        read_folder(tmp_path, tmp_path)


def test_names_are_no_categories(tmp_path: Path) -> None:
    rows = [[f"person {row}", row % 2] for row in range(MAX_CATEGORIES + 1)]
    write_csv(tmp_path / "train.csv", [["who", "class"], *rows])
    with pytest.raises(
        FormatError, match=rf"line {MAX_CATEGORIES + 2}, column who: it has more than 1000 categor"
    ):
        read_folder(tmp_path, tmp_path)


def test_many_categories_of_many_rows_cost_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ridgeline.search.tasks.formats.features.MAX_CELLS", 99)
    write_csv(
        tmp_path / "train.csv", [["c", "class"], *([f"c{row}", row % 2] for row in range(10))]
    )
    with pytest.raises(FormatError, match=r"train\.csv is too large: 10 rows of 10 features"):
        read_folder(tmp_path, tmp_path)


def test_a_class_of_one_row_is_known_before_a_split(tmp_path: Path) -> None:
    rows = [[row, "red", "", "xxxxxy"[row]] for row in range(6)]
    rows[0][2] = 1
    write_csv(tmp_path / "one" / "train.csv", [HEADER, *rows])
    one = load("one", tmp_path)
    assert one.card.smallest_class == 1
    with pytest.raises(UnfitDataset, match="class 'y' has 1 of the 3 rows"):
        prepare(one, Split())


def test_ten_thousand_columns_of_all_kinds_are_read_in_time(tmp_path: Path) -> None:
    num_columns = 10_000
    rows = [
        [
            *(
                ["red", "blue"][row % 2] if column % 2 else (column if row % 3 else "")
                for column in range(num_columns)
            ),
            "ab"[row // 6],
        ]
        for row in range(12)
    ]
    names = [f"feature{column}" for column in range(num_columns)]
    write_csv(tmp_path / "wide" / "train.csv", [[*names, "class"], *rows])
    begun = time.thread_time()
    wide = load("wide", tmp_path)
    parts = prepare(wide, Split())
    assert time.thread_time() - begun < 8, "the time would grow with the square of their number"
    assert wide.features == Vector(2 * num_columns)
    assert np.isfinite(parts.train[0]).all()
