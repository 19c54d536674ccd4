"""What every data set is, whatever it was read from: built in, or of any format of files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ridgeline.search.tasks.built_in import BUILT_IN
from ridgeline.search.tasks.columns import Columns
from ridgeline.search.tasks.data import Dataset, DatasetError
from ridgeline.search.tasks.datasets import load
from ridgeline.search.tasks.dividing import TEST, TRAIN, VALIDATION
from ridgeline.search.tasks.kinds import UNKNOWN, Classes, Image, Numbers, Tokens, Vector
from ridgeline.search.tasks.settings import Split
from ridgeline.search.tasks.splits import prepare, split_column, split_fingerprint
from tests.tasks.idx_files import write_folder
from tests.tasks.picture_files import write_pictures
from tests.tasks.table_files import (
    write_data_labels,
    write_mixed,
    write_npz,
    write_parquet,
    write_table,
    write_text_table,
    write_texts,
)

FORMATS: dict[str, Callable[[Path], None]] = {
    "idx": write_folder,
    "idx-without-test-part": lambda folder: write_folder(folder, test_part=False),
    "table-of-classes": lambda folder: write_table(folder, column="class"),
    "table-of-numbers": write_table,
    "table-without-test-part": lambda folder: write_table(folder, test_part=False),
    "arrays-of-colours": write_npz,
    "arrays-of-numbers": lambda folder: write_npz(folder, kind="numbers", test_part=False),
    "table-with-categories": write_mixed,
    "table-with-categories-without-test-part": lambda folder: write_mixed(folder, test_part=False),
    "data-and-labels": write_data_labels,
    "data-without-test-part": lambda folder: write_data_labels(folder, test_part=False),
    "table-in-parquet": write_parquet,
    "pictures": lambda folder: write_pictures(folder, test_part=True),
    "pictures-of-colours": lambda folder: write_pictures(folder, colours=True),
    "texts": write_texts,
    "texts-without-test-part": lambda folder: write_texts(folder, test_part=False),
    "table-of-texts": write_text_table,
}
"""By format, what writes the same folder of it every time."""


def _made() -> dict[str, Dataset]:
    """Data sets of the kinds that no format has yet."""
    generator = np.random.Generator(np.random.PCG64(0))
    classes = np.arange(40) % 2
    return {
        "tokens": Dataset.of(
            "tokens",
            generator.integers(0, 50, (40, 7)),
            classes,
            features=Tokens(length=7, vocabulary_size=50),
            targets=Classes(2),
        ),
        "numbers": Dataset.of(
            "numbers",
            generator.normal(size=(40, 3)),
            generator.normal(size=(40, 2)),
            features=Vector(3),
            targets=Numbers(2),
        ),
        "colours": Dataset.of(
            "colours",
            generator.integers(0, 256, (40, 3, 5, 4), dtype=np.uint8),
            classes,
            generator.integers(0, 256, (9, 3, 5, 4), dtype=np.uint8),
            classes[:9],
            features=Image(channels=3, height=5, width=4),
            targets=Classes(2),
        ),
    }


@pytest.fixture(params=[*BUILT_IN, *FORMATS, *_made()])
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    if request.param in BUILT_IN:
        return load(request.param, None)
    if request.param in FORMATS:
        FORMATS[request.param](tmp_path / "one")
        return load("one", tmp_path)
    return _made()[request.param]


def arrays(dataset: Dataset) -> Iterator[np.ndarray]:
    yield from (a for a in (dataset.x, dataset.y, dataset.test_x, dataset.test_y) if a is not None)


def made_of(dataset: Dataset, **changed: np.ndarray) -> Dataset:
    """The data set of copies of its arrays."""
    parts = {name: getattr(dataset, name) for name in ("x", "y", "test_x", "test_y")}
    copies: Any = {name: a if a is None else a.copy() for name, a in {**parts, **changed}.items()}
    kinds: Any = {name: getattr(dataset, name) for name in ("features", "targets", "columns")}
    return Dataset.of("copy", **copies, **kinds)


def test_its_arrays_are_as_its_kinds_say(dataset: Dataset) -> None:
    for x, y in ((dataset.x, dataset.y), (dataset.test_x, dataset.test_y)):
        if x is None or y is None:
            assert x is y is None
            continue
        assert len(x) == len(y) > 0
        assert math.prod(x.shape[1:]) == math.prod(dataset.features.shape)
        if isinstance(dataset.features, Tokens):
            assert x.dtype.kind in "iu"
            assert 0 <= x.min() <= x.max() < dataset.features.vocabulary_size
        if isinstance(dataset.targets, Classes):
            assert y.dtype == np.int64
            assert y.shape == (len(x),)
            assert 0 <= y.min() <= y.max() < dataset.targets.count
        else:
            assert y.dtype == np.float64
            assert y.shape == (len(x), dataset.targets.count)
    if isinstance(dataset.targets, Classes):
        assert set(dataset.y) == set(range(dataset.targets.count))


def test_its_arrays_are_finite_and_cannot_be_written_to(dataset: Dataset) -> None:
    for array in arrays(dataset):
        assert np.isfinite(array).all()
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_numbers_that_are_not_finite_are_refused(dataset: Dataset) -> None:
    for name in ("x", "test_x"):
        if getattr(dataset, name) is not None:
            broken = getattr(dataset, name).astype(np.float64)
            broken.flat[-1] = math.nan
            with pytest.raises(DatasetError, match="NaN"):
                made_of(dataset, **{name: broken})


def test_its_fingerprint_is_that_of_the_numbers(dataset: Dataset) -> None:
    assert made_of(dataset).fingerprint == dataset.fingerprint
    other_order = {
        name: array.astype(array.dtype.newbyteorder(">"))
        for name, array in (("x", dataset.x), ("y", dataset.y))
    }
    assert made_of(dataset, **other_order).fingerprint == dataset.fingerprint


def test_its_fingerprint_changes_with_every_byte(dataset: Dataset) -> None:
    found = {dataset.fingerprint}
    changes = 0
    for name in ("x", "y", "test_x", "test_y"):
        array = getattr(dataset, name)
        if array is None:
            continue
        for byte in sorted({0, 1, array.nbytes // 2, array.nbytes - 1}):
            content = bytearray(np.ascontiguousarray(array).tobytes())
            content[byte] ^= 1  # the lowest bit of a mantissa or exponent: stays finite
            changed = np.frombuffer(content, array.dtype).reshape(array.shape)
            found.add(made_of(dataset, **{name: changed}).fingerprint)
            changes += 1
        found.add(made_of(dataset, **{name: array[:-1]}).fingerprint)
        changes += 1
    assert len(found) == 1 + changes


def test_numbers_that_are_read_otherwise_have_another_fingerprint() -> None:
    tokens = _made()["tokens"]
    as_vector = replace(tokens, features=Vector(7))
    assert made_of(as_vector).fingerprint != tokens.fingerprint
    numbers = _made()["numbers"]
    found = {
        made_of(replace(numbers, columns=columns)).fingerprint
        for columns in (None, Columns((1,)), Columns((1, 2)), Columns((1,), ((0, 1),)))
    }
    assert len(found) == 4
    larger = replace(tokens, features=Tokens(length=7, vocabulary_size=51))
    assert made_of(larger).fingerprint != tokens.fingerprint


def test_a_split_puts_each_row_in_one_part(dataset: Dataset) -> None:
    column = split_column(dataset, Split())
    assert column.part_N.shape == (len(dataset.x),)
    parts = {TRAIN, VALIDATION} if dataset.has_test_part else {TRAIN, VALIDATION, TEST}
    assert set(column.part_N) == parts
    for part in parts:
        if isinstance(dataset.targets, Classes):
            assert set(dataset.y[column.part_N == part]) == set(range(dataset.targets.count))
    again = split_column(made_of(dataset), Split())
    np.testing.assert_array_equal(again.part_N, column.part_N)
    assert again.fingerprint == column.fingerprint
    other = split_column(dataset, Split(seed=1))
    assert (other.part_N != column.part_N).any()
    assert other.fingerprint != column.fingerprint


def test_a_splits_fingerprint_is_of_the_data_too(dataset: Dataset) -> None:
    changed = np.array(dataset.x)
    changed.flat[0] += 1
    assert split_fingerprint(made_of(dataset, x=changed), Split()) != split_fingerprint(
        dataset, Split()
    )
    if isinstance(dataset.targets, Classes):
        assert dataset.card.smallest_class == np.bincount(dataset.y).min()
    assert split_fingerprint(dataset.card, Split()) == split_fingerprint(dataset, Split())


def test_its_parts_are_ready_to_train_on(dataset: Dataset) -> None:
    parts = prepare(dataset, Split())
    assert (parts.features, parts.targets) == (dataset.features, dataset.targets)
    assert parts.fingerprint == split_fingerprint(dataset, Split())
    again = prepare(made_of(dataset), Split())
    for (x, y), (same_x, same_y) in zip(
        (parts.train, parts.validation, parts.test),
        (again.train, again.validation, again.test),
        strict=True,
    ):
        assert x.shape == (len(y), math.prod(dataset.features.shape))
        assert np.isfinite(x).all()
        np.testing.assert_array_equal(x, same_x)
        np.testing.assert_array_equal(y, same_y)
    x, y = parts.train
    rows = split_column(dataset, Split()).train
    if isinstance(dataset.targets, Classes):
        np.testing.assert_array_equal(y, dataset.y[rows])
        assert parts.unit == 1
    else:
        assert y.dtype == np.float32
        np.testing.assert_allclose(y.mean(axis=0, dtype=np.float64), 0, atol=1e-5)
        np.testing.assert_allclose(y.std(axis=0, dtype=np.float64), 1, rtol=1e-5)
        if dataset.targets.count == 1:
            assert parts.unit == pytest.approx(dataset.y[rows].std())
        else:
            assert parts.unit == 1
    if isinstance(dataset.features, Tokens):
        known = x != UNKNOWN
        np.testing.assert_array_equal(x[known], dataset.x[rows][known])
        assert 0 <= x.min() <= x.max() < dataset.features.vocabulary_size
    else:
        assert x.dtype == np.float32
        flags = [] if dataset.columns is None else list(dataset.columns.flags)
        assert abs(np.delete(x, flags, axis=1).mean(dtype=np.float64)) < 1e-5
        assert set(x[:, flags].flat) <= {0, 1}
