"""Splits and standardisation."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.search.fields import MAX_SEED
from ridgeline.search.tasks.data import Dataset, DatasetCard, UnfitDataset
from ridgeline.search.tasks.datasets import load
from ridgeline.search.tasks.kinds import (
    PADDING,
    UNKNOWN,
    Classes,
    Image,
    Numbers,
    Tokens,
    Vector,
)
from ridgeline.search.tasks.settings import Split
from ridgeline.search.tasks.splits import Standardiser, prepare, split_column, split_fingerprint

shares = st.floats(0.01, 0.89)
splits = st.builds(Split, validation=shares, test=shares, seed=st.integers(0, MAX_SEED))


def toy(
    x: np.ndarray, y: np.ndarray, test_x: np.ndarray | None = None, test_y: np.ndarray | None = None
) -> Dataset:
    """Rows or images whose classes are those of `y`."""
    features = Vector(x.shape[1]) if x.ndim == 2 else Image(1, *x.shape[1:])
    targets = Classes(int(y.max()) + 1)
    return Dataset.of("toy", x, y, test_x, test_y, features=features, targets=targets)


def dataset_of(y: np.ndarray, *, test_part: bool = False) -> Dataset:
    x = np.arange(len(y) * 2.0).reshape(-1, 2)
    test_x, test_y = (x[:1] + 7, y[:1]) if test_part else (None, None)
    return toy(x, y.astype(np.int64), test_x, test_y)


def card_of(*, has_test_part: bool) -> DatasetCard:
    return DatasetCard("toy", "a" * 64, 10, 2, 2, has_test_part, 5, Vector(2), Classes(2))


@st.composite
def labelled(draw: st.DrawFn) -> Dataset:
    counts = draw(st.lists(st.integers(3, 40), min_size=2, max_size=6))
    y = np.repeat(np.arange(len(counts)), counts)
    order = np.random.Generator(np.random.PCG64(draw(st.integers(0, 9)))).permutation(len(y))
    return dataset_of(y[order], test_part=draw(st.booleans()))


@given(labelled(), splits)
@settings(max_examples=150, deadline=None)
def test_a_split_deals_out_every_row_once_and_every_class_fairly(
    dataset: Dataset, split: Split
) -> None:
    rows = split_column(dataset, split)
    together = np.concatenate([rows.train, rows.validation, rows.test])
    assert sorted(together.tolist()) == list(range(len(dataset.y)))
    for part in (rows.train, rows.validation, rows.test):
        assert (np.diff(part) > 0).all()
    of_all, of_train, of_validation, of_test = (
        np.bincount(dataset.y[part], minlength=int(dataset.y.max()) + 1)
        for part in (slice(None), rows.train, rows.validation, rows.test)
    )
    assert (of_train >= 1).all()
    assert (of_validation >= 1).all()
    if dataset.test_x is None:
        assert (of_test >= 1).all()
        wanted = np.clip(of_all * split.test, 1, of_all - 2)
        assert (abs(of_test - wanted) <= 0.5 + 1e-9).all()
    else:
        assert not of_test.any()
    left = of_all - of_test
    wanted = np.clip(left * split.validation, 1, left - 1)
    assert (abs(of_validation - wanted) <= 0.5 + 1e-9).all()


@given(labelled(), splits, shares)
@settings(max_examples=50, deadline=None)
def test_test_rows_do_not_depend_on_the_share_of_validation(
    dataset: Dataset, split: Split, validation: float
) -> None:
    other = split.model_copy(update={"validation": validation})
    np.testing.assert_array_equal(
        split_column(dataset, split).test, split_column(dataset, other).test
    )


def test_a_split_follows_from_its_seed_alone() -> None:
    y = np.arange(30) % 3
    np.random.seed(0)
    first = split_column(dataset_of(y), Split(seed=5))
    np.random.seed(1)
    again = split_column(dataset_of(y), Split(seed=5))
    np.testing.assert_array_equal(first.train, again.train)
    other = split_column(dataset_of(y), Split(seed=6))
    assert first.test.tolist() != other.test.tolist()
    # Pinned: a change would move rows between the parts of studies that are under way.
    assert first.test.tolist() == [6, 8, 10, 15, 17, 22]
    assert first.validation.tolist() == [3, 5, 16, 18, 26, 28]


def test_real_data_is_split_in_proportion() -> None:
    rows = split_column(load("digits", None), Split())
    assert (len(rows.train), len(rows.validation), len(rows.test)) == (1151, 287, 359)


@pytest.mark.parametrize(("test_part", "needed"), [(False, 3), (True, 2)])
def test_a_class_too_small_for_every_part_is_an_error(test_part: bool, needed: int) -> None:
    enough = np.repeat([0, 1], [10, needed])
    split_column(dataset_of(enough, test_part=test_part), Split())
    with pytest.raises(UnfitDataset, match=rf"class 1 has {needed - 1} of the {needed} rows"):
        split_column(dataset_of(enough[:-1], test_part=test_part), Split())


def test_own_test_part_is_the_test() -> None:
    dataset = dataset_of(np.arange(20) % 2, test_part=True)
    parts = prepare(dataset, Split(test=0.5, validation=0.25))
    assert (len(parts.train[1]), len(parts.validation[1]), len(parts.test[1])) == (14, 6, 1)
    assert dataset.test_x is not None
    scaler = Standardiser.fit(dataset.x[split_column(dataset, Split(validation=0.25)).train])
    np.testing.assert_array_equal(parts.test[0], scaler.apply(dataset.test_x))


@pytest.mark.parametrize(("name", "axis"), [("digits", None), ("breast-cancer", 0)])
def test_training_rows_are_standardised(name: str, axis: int | None) -> None:
    parts = prepare(load(name, None), Split())
    x, _ = parts.train
    assert x.dtype == np.float32
    np.testing.assert_allclose(x.mean(axis=axis, dtype=np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(x.std(axis=axis, dtype=np.float64), 1, atol=1e-5)
    for part in (parts.validation, parts.test):
        assert np.isfinite(part[0]).all()


def test_images_are_flattened_and_many_rows_standardised_alike() -> None:
    generator = np.random.Generator(np.random.PCG64(3))
    x = generator.integers(0, 255, (9_000, 3, 2), dtype=np.uint8)
    dataset = toy(x, np.arange(9_000) % 2)
    train_x, _ = prepare(dataset, Split()).train
    raw = x.reshape(-1, 6)[split_column(dataset, Split()).train].astype(np.float64)
    expected = (raw - raw.mean()) / raw.std()
    np.testing.assert_allclose(train_x, expected, rtol=1e-6, atol=1e-7)


def test_images_that_are_all_alike_become_zero() -> None:
    scaler = Standardiser.fit(np.full((5, 3), 7.0), shared=True)
    assert (scaler.apply(np.full((5, 3), 7.0)) == 0).all()
    assert (scaler.apply(np.full((1, 3), 8.0)) == 1).all()


def test_rows_outside_of_training_change_no_training_value() -> None:
    dataset = load("breast-cancer", None)
    rows = split_column(dataset, Split())
    before = prepare(dataset, Split())
    for held_out in (rows.validation, rows.test):
        x = dataset.x.copy()
        x[held_out] = x[held_out] * 1_000 - 12_345
        after = prepare(replace(dataset, x=x), Split())
        assert after.train[0].tobytes() == before.train[0].tobytes()
        assert after.train[1].tobytes() == before.train[1].tobytes()


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e-300, -3e30, 255.0])
def test_constant_features_become_zero(constant: float) -> None:
    x = np.stack([np.full(7, constant), np.arange(7.0)], axis=1)
    scaler = Standardiser.fit(x)
    assert scaler.scale_D[0] == 1
    result = scaler.apply(x)
    assert (result[:, 0] == 0).all()
    assert result[:, 1].std() == pytest.approx(1)
    # A held-out row may differ where training rows do not; it is moved, not blown up.
    moved = scaler.apply(np.array([[constant + 1, 0.0]]))
    assert moved[0, 0] == pytest.approx(1 if abs(constant) < 1e9 else 0)


def test_values_beyond_float32_are_an_error() -> None:
    scaler = Standardiser.fit(np.array([[0.0, 1.0], [1.0, 2.0]]))
    with pytest.raises(UnfitDataset, match="feature 1 "):
        scaler.apply(np.array([[0.0, 1e300]]))


@pytest.mark.parametrize("value", [1e155, 1e200, 1e308, 1.7e308])
def test_values_whose_squares_overflow_are_an_error(value: float) -> None:
    # The scale is infinite then: all values would become 0, and nothing could be learned.
    x = np.array([[0.0, value], [1.0, -value]] * 10)
    y = np.array([0, 1] * 10)
    with pytest.raises(UnfitDataset, match=r"^data set toy: feature 1 .* too large for float32"):
        prepare(toy(x, y), Split())
    images = x.reshape(-1, 1, 2)
    with pytest.raises(UnfitDataset, match=r"^data set toy: feature 0 .* too large for float32"):
        prepare(toy(images, y), Split())
    for targets in (x[:, 1], x):
        with pytest.raises(
            UnfitDataset, match=r"^data set \w+: target [01] .* too large for float32"
        ):
            prepare(numbers_of(targets), Split())


def test_values_whose_squares_do_not_overflow_are_standardised() -> None:
    parts = prepare(toy(np.array([[1e150], [-1e150]] * 10), np.array([0, 1] * 10)), Split())
    assert set(np.abs(parts.train[0]).round(5).flat) == {1.0}
    parts = prepare(toy(np.full((20, 1), 1e308), np.array([0, 1] * 10)), Split())
    assert set(parts.train[0].flat) == {0.0}, "what is constant needs no scale"


def numbers_of(y: np.ndarray) -> Dataset:
    x = np.arange(len(y) * 2.0).reshape(-1, 2)
    y_NC = y.reshape(len(y), -1)
    return Dataset.of("toy", x, y_NC, features=Vector(2), targets=Numbers(y_NC.shape[1]))


def test_targets_are_standardised_by_the_training_rows() -> None:
    y = 70 + 30 * np.random.Generator(np.random.PCG64(0)).normal(size=50)
    dataset = numbers_of(y)
    parts, rows = prepare(dataset, Split()), split_column(dataset, Split())
    mean, deviation = y[rows.train].mean(), y[rows.train].std()
    assert parts.unit == pytest.approx(deviation)
    for (_, got), its in (
        (parts.train, rows.train),
        (parts.validation, rows.validation),
        (parts.test, rows.test),
    ):
        np.testing.assert_allclose(got[:, 0] * deviation + mean, y[its], rtol=1e-5)


def test_several_targets_have_scales_of_their_own() -> None:
    y = np.random.Generator(np.random.PCG64(0)).normal([1, 1000], [0.1, 50], size=(50, 2))
    parts = prepare(numbers_of(y), Split())
    np.testing.assert_allclose(parts.train[1].std(axis=0), 1, rtol=1e-5)
    assert parts.unit == 1


def test_targets_beyond_float32_are_an_error() -> None:
    y = np.array([0.0, 1.0] * 20)
    y[split_column(numbers_of(y), Split()).test[0]] = 1e300
    with pytest.raises(UnfitDataset, match="target 0 "):
        prepare(numbers_of(y), Split())


def test_numbers_are_dealt_out_alike_whatever_they_are() -> None:
    first, second = (split_column(numbers_of(y), Split()) for y in (np.arange(30.0), np.ones(30)))
    np.testing.assert_array_equal(first.part_N, second.part_N)
    assert (len(first.train), len(first.validation), len(first.test)) == (19, 5, 6)
    with pytest.raises(UnfitDataset, match="it has 2 of the 3 rows"):
        split_column(numbers_of(np.arange(2.0)), Split())


def test_tokens_of_too_few_training_rows_are_unknown() -> None:
    x = np.full((40, 5), PADDING)
    x[:, 0] = 2  # in all rows
    y = np.arange(40) % 2
    column = split_column(dataset_of(y), Split())
    train, validation, test = column.train, column.validation, column.test
    x[train[0], 1:] = [3, 3, 3, PADDING]  # often, but in one row
    x[train[1:3], 1] = 4
    x[[validation[0], test[0]], 1] = 5  # in two rows, none of them for training
    x[[train[4], test[1]], 2] = 6
    tokens = Tokens(length=5, vocabulary_size=9)
    dataset = Dataset.of("toy", x, y, features=tokens, targets=Classes(2))
    parts = prepare(dataset, Split())
    together = [part[0] for part in (parts.train, parts.validation, parts.test)]
    assert {int(id) for part in together for id in np.unique(part)} == {PADDING, UNKNOWN, 2, 4}
    assert together[0][0].tolist() == [2, UNKNOWN, UNKNOWN, UNKNOWN, PADDING]
    assert together[0][1].tolist() == [2, 4, PADDING, PADDING, PADDING]
    assert together[2][0].tolist() == [2, UNKNOWN, PADDING, PADDING, PADDING]


def test_split_fingerprint_names_the_data_and_how_it_is_divided() -> None:
    card = card_of(has_test_part=False)
    base = split_fingerprint(card, Split())
    assert base == split_fingerprint(replace(card, name="renamed"), Split())
    # Checkpoints are of a fingerprint, so those of old divisions stay what they are.
    assert base == hashlib.sha256(f"{card.fingerprint} 0.2 0.2 0".encode()).hexdigest()
    others = {
        split_fingerprint(replace(card, fingerprint="b" * 64), Split()),
        *(
            split_fingerprint(card, Split(**change))
            for change in (
                {"seed": 1},
                {"validation": 0.25},
                {"test": 0.25},
                {"train_on": "train+validation"},
            )
        ),
    }
    assert len(others - {base}) == 5


def test_a_test_share_that_is_not_read_does_not_count() -> None:
    card = card_of(has_test_part=True)
    assert split_fingerprint(card, Split()) == split_fingerprint(card, Split(test=0.3))
