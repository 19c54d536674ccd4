"""Columns of a table that a study says the use of: what is learned, and what splits go by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from ridgeline.search.spec import InvalidSpec, parse_spec
from ridgeline.search.tasks.any_settings import settings_of
from ridgeline.search.tasks.data import DatasetError, UnfitDataset
from ridgeline.search.tasks.data_root import DataRoot
from ridgeline.search.tasks.datasets import card_of, load
from ridgeline.search.tasks.kinds import Classes, Numbers, Vector
from ridgeline.search.tasks.registry import task_of
from ridgeline.search.tasks.settings import Reading, Split
from ridgeline.search.tasks.splits import split_column, split_fingerprint
from tests.search.specs import BASE, changed
from tests.tasks.idx_files import write_folder
from tests.tasks.picture_files import write_pictures
from tests.tasks.table_files import write_csv, write_texts

NAMES = ["patient", "day", "dose", "ward", "price"]
NUM_ROWS = 60


def rows(num_rows: int = NUM_ROWS, *, first: int = 0) -> list[list[Any]]:
    """Three rows a patient, in an order that is not that of the days."""
    return [
        [
            f"p{(first + row) // 3}",
            f"2024-{1 + (first + row) * 7 % NUM_ROWS // 28:02}-{1 + (first + row) * 7 % 28:02}",
            row * 1.5,
            ["east", "west"][row % 2],
            100 + row,
        ]
        for row in range(num_rows)
    ]


def write_wards(root: Path) -> None:
    write_csv(root / "wards" / "train.csv", [NAMES, *rows()])


def test_a_study_says_what_is_learned_of_a_table(tmp_path: Path) -> None:
    write_wards(tmp_path)
    by_price = load("wards", tmp_path, Reading(target="price"))
    assert by_price.targets == Numbers(1)
    np.testing.assert_array_equal(by_price.y[:, 0], 100 + np.arange(NUM_ROWS))
    assert by_price.features == Vector(20 + len({row[1] for row in rows()}) + 1 + 2)
    by_ward = load("wards", tmp_path, Reading(label="ward"))
    assert by_ward.targets == Classes(2)
    np.testing.assert_array_equal(by_ward.y, np.arange(NUM_ROWS) % 2)
    assert len({by_price.fingerprint, by_ward.fingerprint}) == 2
    # Studies of both are tied to what the folder is, whatever they learn of it.
    card = card_of("wards", tmp_path)
    assert by_price.named_as == by_ward.named_as == card.fingerprint
    assert (card.num_rows, card.num_features, card.features, card.targets) == (60, 5, None, None)
    assert "train.csv has no column to learn" in str(card.needs)
    assert DataRoot(tmp_path).look().cards == [card]
    with pytest.raises(UnfitDataset, match=r"no column to learn.*task\.label or task\.target"):
        load("wards", tmp_path)


def test_whole_numbers_may_be_classes(tmp_path: Path) -> None:
    write_csv(tmp_path / "one" / "train.csv", [["a", "kind"], [1, 3], [2, 10], [3, 3]])
    np.testing.assert_array_equal(load("one", tmp_path, Reading(label="kind")).y, [0, 1, 0])
    np.testing.assert_array_equal(load("one", tmp_path, Reading(target="kind")).y[:, 0], [3, 10, 3])


def test_a_study_goes_over_what_the_table_says(tmp_path: Path) -> None:
    write_csv(tmp_path / "one" / "train.csv", [["a", "class"], [1, "x"], [2, "y"], [3, "x"]])
    table = load("one", tmp_path)
    other = load("one", tmp_path, Reading(target="a"))
    np.testing.assert_array_equal(other.x, [[1, 0], [0, 1], [1, 0]])
    assert other.named_as == table.fingerprint
    assert table.named_as is None


def test_a_column_of_groups_keeps_rows_together_and_is_no_feature(tmp_path: Path) -> None:
    write_wards(tmp_path)
    wards = load("wards", tmp_path, Reading(label="ward", group="patient"))
    assert wards.features.shape == (len({row[1] for row in rows()}) + 2,)
    split = Split(kind="group", column="patient", folds=4)
    patients = np.array([row[0] for row in rows()])
    for division in range(4):
        part_N = split_column(wards, split, division).part_N
        for patient in set(patients):
            assert len(set(part_N[patients == patient])) == 1
    by_day = load("wards", tmp_path, Reading(label="ward", group="day"))
    assert split_fingerprint(by_day, split) != split_fingerprint(wards, split)


def test_dates_order_rows(tmp_path: Path) -> None:
    write_wards(tmp_path)
    wards = load("wards", tmp_path, Reading(label="ward", time="day"))
    column = split_column(wards, Split(kind="time", column="day"))
    days = np.array([row[1] for row in rows()])
    train, validation, test = (
        days[part] for part in (column.train, column.validation, column.test)
    )
    assert max(train) < min(validation) <= max(validation) < min(test)


def test_times_are_numbers_or_dates_of_any_zone(tmp_path: Path) -> None:
    dates = ["2024-05-01T10:00+02:00", "2024-05-01T09:00Z", "2024-05-01", "2024-05-01T08:30"]
    write_csv(
        tmp_path / "one" / "train.csv",
        [["t", "a", "target"], *([d, 1, i] for i, d in enumerate(dates))],
    )
    key = load("one", tmp_path, Reading(time="t")).key
    assert key is not None
    np.testing.assert_array_equal(np.argsort(key), [2, 0, 3, 1])


def test_a_column_of_many_names_can_be_that_of_groups(tmp_path: Path) -> None:
    table = [[f"person {row // 2}", row, row % 2] for row in range(2_100)]
    write_csv(tmp_path / "people" / "train.csv", [["who", "a", "class"], *table])
    card = card_of("people", tmp_path)
    assert "column who: it has more than 1000 categories" in str(card.needs)
    people = load("people", tmp_path, Reading(group="who"))
    assert people.features == Vector(1)
    assert people.named_as == card.fingerprint


@pytest.mark.parametrize(
    ("reading", "reason"),
    [
        (Reading(target="cost"), "train.csv has no column 'cost', which is to be the target"),
        (Reading(label="ward", group="who"), "no column 'who', which is to be the group"),
        (Reading(target="ward"), "line 2, column ward: 'east' is not a finite number"),
        (Reading(label="ward", group="ward"), "ward is to be learned, so no split can go by it"),
        (Reading(label="ward", time="patient"), "line 2, column patient: 'p0' is neither a number"),
    ],
)
def test_what_a_table_has_not_cannot_be_trained_on(
    tmp_path: Path, reading: Reading, reason: str
) -> None:
    write_wards(tmp_path)
    with pytest.raises(UnfitDataset, match=rf"^data set wards: .*{reason}"):
        load("wards", tmp_path, reading)


@pytest.mark.parametrize(
    ("table", "reading", "reason"),
    [
        ([["t", 1, "x"], ["", 1, "y"]], Reading(group="k"), "line 3, column k: the group is empty"),
        (
            [[1, 1, "x"], ["2024-01-01", 1, "y"]],
            Reading(time="k"),
            "line 3, column k: '2024-01-01' is",
        ),
        (
            [["2024-01-01", 1, "x"], ["", 1, "y"]],
            Reading(time="k"),
            "line 3, column k: '' is neither",
        ),
        (
            [["2024-01-01", 1, "x"], [7, 1, "y"]],
            Reading(time="k"),
            "line 3, column k: '7' is neither",
        ),
    ],
)
def test_malformed_keys_are_named(
    tmp_path: Path, table: list[list[Any]], reading: Reading, reason: str
) -> None:
    # Without it the column is one of features, so the others have to be sound.
    write_csv(tmp_path / "one" / "train.csv", [["k", "a", "b"], *table])
    with pytest.raises(DatasetError, match=reason):
        load("one", tmp_path, reading._replace(label="b"))


@pytest.mark.parametrize(
    ("reading", "reason"),
    [
        (
            Reading(label="ward", group="patient"),
            "test.csv, column patient: the group of row 1 is in",
        ),
        (Reading(label="ward", time="day"), "test.csv, column day: row 1 comes no later than all"),
    ],
)
def test_a_test_part_that_the_split_would_not_make_is_refused(
    tmp_path: Path, reading: Reading, reason: str
) -> None:
    write_wards(tmp_path)
    write_csv(tmp_path / "wards" / "test.csv", [NAMES, *rows(4)])
    with pytest.raises(UnfitDataset, match=reason):
        load("wards", tmp_path, reading)
    later = [["p1000", "2025-01-01", 1, "east", 3], ["p1001", "2025-01-02", 1, "east", 3]]
    write_csv(tmp_path / "wards" / "test.csv", [NAMES, *later])
    split = Split(kind="group" if reading.group else "time", column=reading.key)
    column = split_column(load("wards", tmp_path, reading), split)
    assert len(column.test) == 0
    assert len(column.train) + len(column.validation) == NUM_ROWS


def test_only_tables_have_columns_with_names(tmp_path: Path) -> None:
    write_folder(tmp_path / "images")
    write_texts(tmp_path / "texts")
    write_pictures(tmp_path / "pictures")
    for name in ("images", "texts", "pictures"):
        with pytest.raises(UnfitDataset, match="it is no table, so no column of it has a name"):
            load(name, tmp_path, Reading(target="a"))
    with pytest.raises(UnfitDataset, match="it is built in"):
        load("digits", tmp_path, Reading(target="a"))


def test_settings_become_roles() -> None:
    settings = settings_of(
        {
            "name": "mlp",
            "dataset": "wards",
            "target": "price",
            "split": {"kind": "group", "column": "patient"},
        }
    )
    choice = task_of(settings).data(settings)
    assert choice is not None
    assert choice.reading == Reading(target="price", group="patient")
    assert choice.targets(None) == Numbers(1)
    with pytest.raises(ValidationError, match=r"task\.label says already what is learned"):
        settings_of({"name": "mlp", "dataset": "wards", "target": "price", "label": "ward"})


@pytest.mark.parametrize(
    ("split", "field"),
    [
        ({"kind": "group"}, "task.split.column"),
        ({"column": "who"}, "task.split.column"),
        ({"kind": "time", "column": ""}, "task.split.column"),
        ({"kind": "time", "column": "day", "repeats": 3}, "task.split.repeats"),
    ],
)
def test_what_a_split_lacks_is_named(split: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(changed(BASE, "task.split", split))
    assert [name for name, _ in caught.value.problems] == [field]
