"""Tables in Parquet: the same data sets as those in CSV, and errors that name file and place."""

from __future__ import annotations

import subprocess
import sys
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from ridgeline.search.tasks.data import DatasetError
from ridgeline.search.tasks.datasets import card_of, load
from ridgeline.search.tasks.formats.reading import read_folder
from ridgeline.search.tasks.kinds import Vector
from ridgeline.search.tasks.settings import Reading
from tests.tasks.table_files import write_csv, write_mixed, write_parquet


def write(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize("test_part", [True, False])
def test_it_is_what_the_table_in_csv_is(tmp_path: Path, test_part: bool) -> None:
    write_parquet(tmp_path / "packed", test_part=test_part)
    write_mixed(tmp_path / "plain", test_part=test_part)
    packed, plain = load("packed", tmp_path), load("plain", tmp_path)
    assert packed.fingerprint == plain.fingerprint
    assert packed.columns == plain.columns
    reading = Reading(target="a", group="colour")
    if not test_part:
        of_both = [load(name, tmp_path, reading) for name in ("packed", "plain")]
        assert of_both[0].fingerprint == of_both[1].fingerprint


def test_a_table_that_needs_roles_is_known_by_its_values(tmp_path: Path) -> None:
    write(tmp_path / "packed" / "train.parquet", a=[1, 2, 3], b=["x", "y", "x"])
    write_csv(tmp_path / "plain" / "train.csv", [["a", "b"], [1, "x"], [2, "y"], [3, "x"]])
    packed, plain = card_of("packed", tmp_path), card_of("plain", tmp_path)
    assert packed.fingerprint == plain.fingerprint
    assert "train.parquet has no column to learn" in str(packed.needs)
    assert load("packed", tmp_path, Reading(label="b")).named_as == packed.fingerprint


def test_values_of_all_types_are_read(tmp_path: Path) -> None:
    single = np.array([0.1, -3e38, 1e-40], np.float32)
    write(
        tmp_path / "one" / "train.parquet",
        small=pyarrow.array([1, -2, None], pyarrow.int8()),
        large=pyarrow.array([2**53, 0, 1], pyarrow.uint64()),
        half=pyarrow.array(np.array([0.5, 1, 2], np.float16)),
        single=pyarrow.array(single),
        exact=pyarrow.array([Decimal("1.25"), Decimal("3"), Decimal("-7.5")]),
        flag=[True, False, True],
        target=[0.1, 0.2, 0.3],
    )
    found = read_folder(tmp_path / "one", tmp_path)
    np.testing.assert_array_equal(
        found.x,
        np.column_stack(
            [
                [1, -2, 0], [0, 0, 1], [2**53, 0, 1], [0.5, 1, 2], single.astype(float),
                [1.25, 3, -7.5], [1, 0, 1],
            ]
        ),
    )  # fmt: skip
    np.testing.assert_array_equal(found.y, [0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    "times",
    [
        pyarrow.array([date(2024, 5, 3), date(2024, 5, 1), date(2024, 5, 2)]),
        pyarrow.array([datetime(2024, 5, 1, 9), datetime(2024, 5, 1, 7), datetime(2024, 5, 1, 8)]),
        pyarrow.array([3_001, 1_001, 2_001], pyarrow.timestamp("ns")),
        pyarrow.array([3, 1, 2], pyarrow.timestamp("s", "Europe/Paris")),
        pyarrow.array([30, 10, 20]),
    ],
    ids=lambda times: str(times.type),
)
def test_dates_order_rows(tmp_path: Path, times: Any) -> None:
    write(tmp_path / "one" / "train.parquet", t=times, a=[1, 2, 3], target=[1.0, 2.0, 3.0])
    one = load("one", tmp_path, Reading(time="t"))
    assert one.key is not None
    np.testing.assert_array_equal(np.argsort(one.key), [1, 2, 0])


MALFORMED: list[tuple[dict[str, Any], str]] = [
    ({"a": [1], "b": [2]}, "train.parquet has no column to learn"),
    ({"a": [1, 2], "target": [1.0, None]}, "row 2, column target: '' is not a finite number"),
    ({"a": [1.0, np.nan], "target": [1, 2]}, "row 2, column a: 'nan' is not a finite number"),
    ({"a": ["3", "x"], "target": [1, 2]}, "row 2, column a: 'x' is not a finite number"),
    ({"a": ["x", "3"], "target": [1, 2]}, "row 2, column a: '3' is a number, but the column has"),
    ({"a": [None, None], "target": [1, 2]}, "train.parquet, column a: all its values are empty"),
    ({"a": [1, 2], "class": ["x", "x"]}, "all rows have the class 'x'"),
    ({"a": [1, 2], "class": ["x", None]}, "row 2: the class is empty"),
    ({"a": [], "target": []}, "train.parquet has no rows"),
    ({"target": [1, 2]}, "train.parquet has no column but target"),
    ({"a": [[1], [2]], "target": [1, 2]}, "column a: list<.*> is no type of numbers"),
    ({"a": [b"x", b"y"], "target": [1, 2]}, "column a: binary is no type of numbers"),
    ({" a": [1, 2], "a": [1, 2], "target": [1, 2]}, "train.parquet has several columns 'a'"),
]


@pytest.mark.parametrize(("columns", "reason"), MALFORMED)
def test_malformed_tables_are_refused(tmp_path: Path, columns: dict[str, Any], reason: str) -> None:
    write(tmp_path / "one" / "train.parquet", **columns)
    with pytest.raises(DatasetError, match=rf"^data set one: .*{reason}"):
        load("one", tmp_path)


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "one" / "train.parquet", a=list(range(99)), target=list(range(99)))
    content = path.read_bytes()
    for part in (content[:-1], content[: len(content) // 2], b"PAR1", b""):
        path.write_bytes(part)
        with pytest.raises(
            DatasetError, match=r"train\.parquet is not a whole Parquet file: "
        ) as got:
            load("one", tmp_path)
        assert str(tmp_path) not in str(got.value)


def test_a_test_part_of_other_columns_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "one" / "train.parquet", a=[1, 2], target=[1, 2])
    write(tmp_path / "one" / "test.parquet", b=[1, 2], target=[1, 2])
    with pytest.raises(DatasetError, match=r"test\.parquet has other columns than train\.parquet"):
        load("one", tmp_path)


def test_metadata_that_promise_too_much_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "one" / "train.parquet", a=[0] * 1_000, target=[*range(1_000)])
    module = "ridgeline.search.tasks.formats.parquet"
    monkeypatch.setattr(f"{module}._MAX_GROUP_BYTES", 100)
    with pytest.raises(DatasetError, match="has a row group of more than 100 bytes"):
        load("one", tmp_path)
    monkeypatch.setattr(f"{module}.MAX_CELLS", 1_999)
    with pytest.raises(DatasetError, match="too large: 1000 rows of 2 columns"):
        load("one", tmp_path)


def test_ten_thousand_columns(tmp_path: Path) -> None:
    columns: dict[str, Any] = {f"f{column}": [column, 1, 2] for column in range(10_000)}
    write(tmp_path / "wide" / "train.parquet", **columns, target=[1, 2, 3])
    assert load("wide", tmp_path).features == Vector(10_000)


def test_without_pyarrow_it_is_said_what_to_install(tmp_path: Path) -> None:
    write_parquet(tmp_path / "one")
    program = f"""
import sys
from pathlib import Path
sys.modules["pyarrow"] = None
from ridgeline.search.tasks.data_root import DataRoot
print(DataRoot(Path({str(tmp_path)!r})).look().left_out["one"])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == (
        "data set one: train.parquet needs pyarrow, which is not installed; "
        'pip install "ridgeline[data]" brings it\n'
    )


@pytest.mark.parametrize("module", ["ridgeline.search.tasks.datasets", "ridgeline.service.api.app"])
def test_nothing_is_imported_before_there_is_such_a_file(module: str) -> None:
    program = (
        f"import sys, {module}; print({{'pyarrow', 'PIL', 'pandas', 'torch'}} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
