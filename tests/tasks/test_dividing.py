"""Cross-validation, repeated splits, splits by group and by time: who may stand where."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.model_selection import GroupKFold, StratifiedKFold, TimeSeriesSplit

from ridgeline.search.tasks.data import Dataset, UnfitDataset
from ridgeline.search.tasks.datasets import load
from ridgeline.search.tasks.dividing import (
    TEST,
    TRAIN,
    UNUSED,
    VALIDATION,
    Part_N,
    TooFew,
    by_chance,
    by_group,
    by_time,
    num_needed,
)
from ridgeline.search.tasks.kinds import Classes, Numbers, Tokens, Vector
from ridgeline.search.tasks.settings import Bag, Split
from ridgeline.search.tasks.splits import (
    Standardiser,
    prepare,
    rows_needed,
    split_column,
    split_fingerprint,
)

shares = st.floats(0.05, 0.6)
cross_validations = st.builds(
    Split, folds=st.integers(2, 6), repeats=st.integers(1, 3), test=shares, seed=st.integers(0, 99)
)


def dataset_of(y: np.ndarray, *, test_part: bool = False) -> Dataset:
    x = np.arange(len(y) * 2.0).reshape(-1, 2)
    test = (x[:1] + 7, y[:1]) if test_part else (None, None)
    targets = Classes(int(y.max()) + 1)
    return Dataset.of("toy", x, y.astype(np.int64), *test, features=Vector(2), targets=targets)


@st.composite
def labelled(draw: st.DrawFn) -> Dataset:
    counts = draw(st.lists(st.integers(7, 30), min_size=2, max_size=5))
    y = np.repeat(np.arange(len(counts)), counts)
    order = np.random.Generator(np.random.PCG64(draw(st.integers(0, 9)))).permutation(len(y))
    return dataset_of(y[order], test_part=draw(st.booleans()))


@st.composite
def blocks(draw: st.DrawFn) -> np.ndarray:
    """The block of each row, in any order."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=8, max_size=25))
    chance = np.random.Generator(np.random.PCG64(draw(st.integers(0, 9))))
    return chance.permutation(np.repeat(np.arange(len(sizes)), sizes))


def folds_of(dataset: Dataset, split: Split) -> list[Part_N]:
    return [split_column(dataset, split, at).part_N for at in range(split.num_divisions)]


@given(labelled(), cross_validations)
@settings(max_examples=100, deadline=None)
def test_each_row_validates_in_one_fold_and_classes_are_shared_out(
    dataset: Dataset, split: Split
) -> None:
    divisions = folds_of(dataset, split)
    rest = divisions[0] != TEST
    assert rest.all() == dataset.has_test_part
    for part_N in divisions:
        np.testing.assert_array_equal(part_N != TEST, rest)
        assert set(part_N[rest]) == {TRAIN, VALIDATION}
    for first in range(0, len(divisions), split.folds):
        folds = divisions[first : first + split.folds]
        times_N = sum((part_N == VALIDATION).astype(int) for part_N in folds)
        assert (times_N[rest] == 1).all()
        sizes = [np.bincount(dataset.y[part_N == VALIDATION]) for part_N in folds]
        assert np.ptp(sizes, axis=0).max() <= 1
        assert np.ptp([size.sum() for size in sizes]) <= 1
        assert np.min(sizes) >= 1
        # As large as those of scikit-learn, in some order.
        y = dataset.y[rest]
        theirs = StratifiedKFold(split.folds).split(np.zeros((len(y), 1)), y)
        assert sorted(s.sum() for s in sizes) == sorted(len(validation) for _, validation in theirs)


@given(labelled(), st.integers(2, 6), st.floats(0.05, 0.15), shares)
@settings(max_examples=30, deadline=None)
def test_test_rows_are_those_of_one_split(
    dataset: Dataset, num_folds: int, test: float, validation: float
) -> None:
    split, alone = Split(folds=num_folds, test=test), Split(test=test, validation=validation)
    np.testing.assert_array_equal(
        split_column(dataset, alone).test, split_column(dataset, split).test
    )


def test_repeats_draw_training_and_validation_rows_anew() -> None:
    dataset, split = dataset_of(np.arange(60) % 3), Split(repeats=4)
    divisions = [split_column(dataset, split, at) for at in range(4)]
    np.testing.assert_array_equal(divisions[0].part_N, split_column(dataset, Split()).part_N)
    assert len({tuple(one.test) for one in divisions}) == 1
    assert len({tuple(one.validation) for one in divisions}) == 4
    assert len({one.fingerprint for one in divisions}) == 4
    for one in divisions:
        assert np.bincount(dataset.y[one.validation]).tolist() == [3, 3, 3]
        np.testing.assert_array_equal(split_column(dataset, split, 2).part_N, divisions[2].part_N)


def test_a_random_split_knows_no_classes() -> None:
    y = np.repeat([0, 1], [39, 1])
    dataset = dataset_of(y)
    column = split_column(dataset, Split(kind="random"))
    assert [len(part) for part in (column.train, column.validation, column.test)] == [26, 6, 8]
    assert rows_needed(Split(kind="random"), has_test_part=False) is None
    sizes = [
        (part_N == VALIDATION).sum() for part_N in folds_of(dataset, Split(folds=5, kind="random"))
    ]
    assert sorted(sizes) == [6, 6, 6, 7, 7]
    with pytest.raises(UnfitDataset, match="class 1 has 1 of the 3 rows"):
        split_column(dataset, Split())


@given(blocks(), st.integers(1, 5), st.integers(1, 3), shares, st.booleans())
@settings(max_examples=150, deadline=None)
def test_groups_are_never_split(
    group_N: np.ndarray, num_folds: int, repeats: int, share: float, has_test_part: bool
) -> None:
    split = Split(folds=num_folds, repeats=repeats, test=share, validation=share)
    divisions = [
        by_group(split, at, group_N, has_test_part=has_test_part)
        for at in range(split.num_divisions)
    ]
    rest = divisions[0] != TEST
    assert rest.all() == has_test_part
    for part_N in divisions:
        np.testing.assert_array_equal(part_N != TEST, rest)
        assert {TRAIN, VALIDATION} <= set(part_N)
        for group in np.unique(group_N):
            assert len(set(part_N[group_N == group])) == 1
    if num_folds > 1:
        for first in range(0, len(divisions), num_folds):
            folds = divisions[first : first + num_folds]
            assert (sum((p == VALIDATION).astype(int) for p in folds)[rest] == 1).all()
            # As even as scikit-learn's, which takes the largest first too.
            theirs = GroupKFold(num_folds).split(group_N[rest], groups=group_N[rest])
            assert sorted((p == VALIDATION).sum() for p in folds) == sorted(
                len(validation) for _, validation in theirs
            )


@given(blocks(), st.integers(1, 5), shares, st.booleans())
@settings(max_examples=150, deadline=None)
def test_nobody_trains_on_what_comes_later(
    time_N: np.ndarray, num_folds: int, share: float, has_test_part: bool
) -> None:
    split = Split(kind="time", folds=num_folds, test=share, validation=share)
    before: set[int] = set()
    for fold in range(num_folds):
        part_N = by_time(split, fold, time_N, has_test_part=has_test_part)
        times = [time_N[part_N == part] for part in (TRAIN, VALIDATION, UNUSED, TEST)]
        there = [its for its in times if len(its)]
        for earlier, later in pairwise(there):
            assert earlier.max() < later.min()
        assert len(times[0]) > 0
        assert len(times[1]) > 0
        assert (len(times[3]) > 0) != has_test_part
        # A fold trains on all rows of those before it.
        assert before <= set(np.flatnonzero(part_N == TRAIN))
        before = set(np.flatnonzero((part_N == TRAIN) | (part_N == VALIDATION)))
        assert fold < num_folds - 1 or len(times[2]) == 0


@pytest.mark.parametrize("num_folds", [2, 3, 5])
def test_folds_by_time_are_those_of_scikit_learn(num_folds: int) -> None:
    num_rows = 12 * (num_folds + 1)
    rows = np.arange(num_rows)
    theirs = TimeSeriesSplit(num_folds).split(rows)
    split = Split(kind="time", folds=num_folds)
    for fold, (train, validation) in enumerate(theirs):
        part_N = by_time(split, fold, rows, has_test_part=True)
        np.testing.assert_array_equal(np.flatnonzero(part_N == TRAIN), train)
        np.testing.assert_array_equal(np.flatnonzero(part_N == VALIDATION), validation)


def test_rows_in_their_order_are_a_split_by_time() -> None:
    column = split_column(dataset_of(np.arange(50) % 2), Split(kind="time"))
    np.testing.assert_array_equal(column.part_N, np.repeat([TRAIN, VALIDATION, TEST], [32, 8, 10]))
    own_test = split_column(dataset_of(np.arange(50) % 2, test_part=True), Split(kind="time"))
    np.testing.assert_array_equal(own_test.part_N, np.repeat([TRAIN, VALIDATION], [40, 10]))


Deal = Callable[[Split, int, bool], Part_N]
"""Deals so many rows of one stratum, groups of one row, or times of one row out."""

DEALS: dict[str, tuple[Split, Deal]] = {
    "chance": (
        Split(),
        lambda split, num, has_test_part: by_chance(
            split, 0, np.zeros(num, np.int64), 1, has_test_part=has_test_part
        ),
    ),
    "group": (
        Split(),
        lambda split, num, has_test_part: by_group(
            split, 0, np.arange(num), has_test_part=has_test_part
        ),
    ),
    "time": (
        Split(kind="time"),
        lambda split, num, has_test_part: by_time(
            split, 0, np.arange(num), has_test_part=has_test_part
        ),
    ),
}


@pytest.mark.parametrize("has_test_part", [False, True])
@pytest.mark.parametrize("folds", [1, 2, 4])
@pytest.mark.parametrize("kind", DEALS)
def test_what_is_needed_is_enough_and_one_less_is_not(
    has_test_part: bool, folds: int, kind: str
) -> None:
    split, deal = DEALS[kind]
    split = split.model_copy(update={"folds": folds})
    enough = num_needed(split, has_test_part=has_test_part)
    assert {TRAIN, VALIDATION} <= set(deal(split, enough, has_test_part))
    with pytest.raises(TooFew, match=f"has {enough - 1} of the {enough} "):
        deal(split, enough - 1, has_test_part)


def test_scales_are_those_of_each_folds_training_rows() -> None:
    dataset, split = load("breast-cancer", None), Split(folds=3)
    for division in range(3):
        column, parts = (
            split_column(dataset, split, division),
            prepare(dataset, split, None, division),
        )
        scaler = Standardiser.fit(dataset.x[column.train])
        np.testing.assert_array_equal(parts.train[0], scaler.apply(dataset.x[column.train]))
        np.testing.assert_array_equal(parts.test[0], scaler.apply(dataset.x[column.test]))
        assert parts.fingerprint == split_fingerprint(dataset, split, division=division)


def held_out_changed(dataset: Dataset, split: Split, division: int) -> Iterator[Dataset]:
    column = split_column(dataset, split, division)
    for part in (VALIDATION, UNUSED, TEST):
        rows = np.flatnonzero(column.part_N == part)
        x = dataset.x.copy()
        x[rows] = x[rows][::-1]
        yield replace(dataset, x=x)


@pytest.mark.parametrize("kind", ["stratified", "time"])
def test_what_a_fold_trains_on_follows_from_its_training_rows_alone(kind: str) -> None:
    chance = np.random.Generator(np.random.PCG64(1))
    split = Split(kind=kind, folds=3)
    tokens = Dataset.of(
        "tokens",
        chance.integers(0, 30, (60, 4)),
        np.arange(60) % 2,
        features=Tokens(length=4, vocabulary_size=30),
        targets=Classes(2),
    )
    numbers = Dataset.of(
        "numbers",
        chance.normal(size=(60, 4)),
        chance.normal(size=(60, 1)),
        features=Vector(4),
        targets=Numbers(1),
    )
    for dataset, bag in ((tokens, Bag(vocabulary=12)), (tokens, None), (numbers, None)):
        for division in range(3):
            wanted = prepare(dataset, split, bag, division).train
            for changed in held_out_changed(dataset, split, division):
                found = prepare(changed, split, bag, division).train
                assert [part.tobytes() for part in found] == [part.tobytes() for part in wanted]


def test_only_what_is_read_is_in_a_fingerprint() -> None:
    dataset = dataset_of(np.arange(60) % 3)
    # Pinned: studies of one split are under way.
    assert split_fingerprint(dataset, Split()) == split_fingerprint(dataset, Split(), None, 0)
    found = [
        split_fingerprint(dataset, Split(**of), division=division)
        for of, division in (
            ({}, 0),
            ({"kind": "random"}, 0),
            ({"kind": "time"}, 0),
            ({"folds": 2}, 0),
            ({"folds": 2}, 1),
            ({"folds": 3}, 1),
            ({"repeats": 2}, 1),
            ({"folds": 2, "repeats": 2}, 2),
        )
    ]
    assert len(set(found)) == len(found)
    folds = Split(folds=2), Split(folds=2, validation=0.5)
    assert len({split_fingerprint(dataset, split) for split in folds}) == 1


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"kind": "time", "repeats": 2}, "a split by time draws nothing"),
        ({"folds": 21}, "less than or equal to 20"),
        ({"folds": 0}, "greater than or equal to 1"),
        ({"kind": "stratify"}, "'stratified', 'random'"),
    ],
)
def test_splits_that_mean_nothing_are_refused(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Split.model_validate(fields)


@given(labelled(), st.sampled_from(["stratified", "random", "time"]), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_validation_rows_may_train_too(dataset: Dataset, kind: str, num_folds: int) -> None:
    """Also those that come after the last row of a fold of a split by time."""
    split = Split(kind=kind, folds=num_folds)
    both = split.model_copy(update={"train_on": "train+validation"})
    alone, together = split_column(dataset, split), split_column(dataset, both)
    rows = np.arange(len(dataset.x))
    np.testing.assert_array_equal(together.test, alone.test)
    np.testing.assert_array_equal(together.validation, alone.validation)
    np.testing.assert_array_equal(together.train, np.setdiff1d(rows, alone.test))
    if num_folds == 1:
        assert len(together.train) == len(alone.train) + len(alone.validation)
    assert both.num_divisions == 1
