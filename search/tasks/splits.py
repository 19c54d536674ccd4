"""From a data set to the three parts of a training: who trains, who validates, who tests.

# N rows, D features, L tokens of a row, V of the vocabulary
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ridgeline.search.tasks.bags import MIN_ROWS, bagged, num_rows_with
from ridgeline.search.tasks.columns import Three
from ridgeline.search.tasks.data import Array, Dataset, DatasetCard, UnfitDataset
from ridgeline.search.tasks.dividing import (
    TEST,
    TRAIN,
    VALIDATION,
    TooFew,
    by_chance,
    by_group,
    by_time,
    num_needed,
)
from ridgeline.search.tasks.kinds import (
    PADDING,
    UNKNOWN,
    Classes,
    Features,
    Image,
    Numbers,
    Targets,
    Tokens,
)
from ridgeline.search.tasks.settings import Bag, Split

Rows = npt.NDArray[np.int64]
Part = tuple[Array, Array]
"""Features, float32 [N, D] or tokens [N, length]; and classes, or numbers, float32 [N, count]."""

_CHUNK_ROWS = 256
"""Small enough for the cache: MNIST takes 0.13 s, against 0.77 with 4,096.  Part of the result, as
sums in chunks depend on it."""


@dataclass(frozen=True, eq=False)
class SplitColumn:
    """One way to divide the rows of a data set: the part of each row, beside its features.

    Attributes:
        part_N: int8, by row of `Dataset.x` its part, see `dividing`; no row is TEST where the data
            set has a test part of its own.
        fingerprint: of the data and of how they are divided.
        trains_on_validation: whether every row trains that is not TEST.
    """

    part_N: npt.NDArray[np.int8]
    fingerprint: str
    trains_on_validation: bool = False

    @property
    def train(self) -> Rows:
        """Ascending row numbers; those of validation among them where these train too."""
        is_train_N = self.part_N != TEST if self.trains_on_validation else self.part_N == TRAIN
        return np.flatnonzero(is_train_N)

    @property
    def validation(self) -> Rows:
        """Ascending row numbers."""
        return np.flatnonzero(self.part_N == VALIDATION)

    @property
    def test(self) -> Rows:
        """Ascending row numbers; empty where the test part is the data set's own."""
        return np.flatnonzero(self.part_N == TEST)


@dataclass(frozen=True, eq=False)
class Parts:
    """What a training needs of a data set, as numbers of one scale, and the split's fingerprint.

    Attributes:
        unit: what 1 in the targets is in the data set's own unit.  Several numbers of a row have
            units of their own, so theirs is 1: a standard deviation.
        trains_on_validation: whether the rows of `validation` are among those of `train`.
    """

    train: Part
    validation: Part
    test: Part
    features: Features
    targets: Targets
    unit: float
    fingerprint: str
    trains_on_validation: bool


def prepare(dataset: Dataset, split: Split, bag: Bag | None = None, division: int = 0) -> Parts:
    """Divide a data set and standardise its features and targets by the training rows.

    Tokens that stand in fewer than two of these become UNKNOWN: so that is learned too, and nothing
    is known of the other parts.  Classes and flags stay as they are, and numbers that are missing
    become the median of the training rows.

    Args:
        bag: how texts become vectors, which are not standardised: most of their numbers are 0, and
            a token of few rows would stand out.  None: they stay tokens.
        division: below `split.num_divisions`.

    Raises:
        UnfitDataset: there are too few rows, of a class perhaps, or a number has no float32 once
            standardised.
    """
    column, features = split_column(dataset, split, division), dataset.features
    x_ND = dataset.x.reshape(len(dataset.x), -1)
    if dataset.test_x is None or dataset.test_y is None:
        test_x_ND, test_y = x_ND[column.test], dataset.y[column.test]
    else:
        test_x_ND, test_y = dataset.test_x.reshape(len(dataset.test_x), -1), dataset.test_y
    xs = x_ND[column.train], x_ND[column.validation], test_x_ND
    if isinstance(features, Tokens) and bag is not None:
        xs = bagged(xs, features, bag)
        features = bag.vector(features)
    elif isinstance(features, Tokens):
        xs = _known(xs, features.vocabulary_size)
    else:
        flags: tuple[int, ...] = ()
        if dataset.columns is not None:
            flags = dataset.columns.flags
            xs = dataset.columns.filled(xs)
        is_image = isinstance(features, Image)
        scaler = Standardiser.fit(xs[0], shared=is_image).leaving(flags)
        xs = scaler.apply_all(f"data set {dataset.name}: feature", xs)
    ys, unit = (dataset.y[column.train], dataset.y[column.validation], test_y), 1.0
    if isinstance(dataset.targets, Numbers):
        scaler = Standardiser.fit(ys[0])
        ys = scaler.apply_all(f"data set {dataset.name}: target", ys)
        unit = float(scaler.scale_D[0]) if dataset.targets.count == 1 else 1.0
    train, validation, test = zip(xs, ys, strict=True)
    return Parts(
        train=train,
        validation=validation,
        test=test,
        features=features,
        targets=dataset.targets,
        unit=unit,
        fingerprint=split_fingerprint(dataset, split, bag, division),
        trains_on_validation=column.trains_on_validation,
    )


def _known(parts: Three, vocabulary_size: int) -> Three:
    """Parts whose tokens are those of at least `MIN_ROWS` rows of the first, or UNKNOWN; int32."""
    num_rows_V = num_rows_with(parts[0], vocabulary_size)
    ids_V = np.arange(vocabulary_size, dtype=np.int32)
    is_rare_V = num_rows_V < MIN_ROWS
    is_rare_V[PADDING] = False
    ids_V[is_rare_V] = UNKNOWN
    first, second, third = (ids_V[tokens_NL] for tokens_NL in parts)
    return first, second, third


def split_column(dataset: Dataset, split: Split, division: int = 0) -> SplitColumn:
    """One division of a split.

    Args:
        division: below `split.num_divisions`.

    Raises:
        UnfitDataset: there are too few rows, of a class perhaps, to fill the parts.
    """
    num_rows, has_test_part = len(dataset.x), dataset.has_test_part
    strata = np.zeros(num_rows, np.int64), 1
    if split.kind == "stratified" and isinstance(dataset.targets, Classes):
        strata = dataset.y, dataset.targets.count
    try:
        if split.kind == "group":
            part_N = by_group(split, division, _blocks(dataset), has_test_part=has_test_part)
        elif split.kind == "time":
            part_N = by_time(split, division, _blocks(dataset), has_test_part=has_test_part)
        else:
            part_N = by_chance(split, division, *strata, has_test_part=has_test_part)
    except TooFew as exc:
        whose = "it"
        if exc.stratum is not None and strata[1] > 1:
            whose = f"class {dataset.class_called(exc.stratum)}"
        raise UnfitDataset(f"data set {dataset.name}: {whose} {exc}") from exc
    fingerprint = split_fingerprint(dataset, split, division=division)
    return SplitColumn(part_N, fingerprint, split.trains_on_validation)


def _blocks(dataset: Dataset) -> Rows:
    """Numbers of the rows' groups or times, in their order; without any, each row is later."""
    if dataset.key is None:
        return np.arange(len(dataset.x))
    return np.unique(dataset.key, return_inverse=True)[1]


def rows_needed(split: Split, *, has_test_part: bool) -> int | None:
    """How many rows of a class it takes for one to stand in every part; None: any number will do.

    For classes of which some parts may have no row.
    """
    return num_needed(split, has_test_part=has_test_part) if split.kind == "stratified" else None


def split_fingerprint(
    data: Dataset | DatasetCard, split: Split, bag: Bag | None = None, division: int = 0
) -> str:
    """SHA-256 of all that decides which numbers a run trains on: the data, and how it is divided.

    And how its texts become vectors, if they do.

    A share that is not read does not count.
    """
    test = None if data.has_test_part else split.test
    validation = None if split.folds > 1 else split.validation
    settings = f"{data.fingerprint} {validation!r} {test!r} {split.seed}"
    if bag is not None:
        settings += f" {bag.weights} {bag.vocabulary}"
    if split.kind != "stratified":
        settings += f" {split.kind}"  # of what column is in the fingerprint of the data
    if split.folds * split.repeats > 1:
        repeat, fold = divmod(division, split.folds)
        settings += f" fold {fold} of {split.folds} repeat {repeat}"
    if split.trains_on_validation:
        settings += " train on validation"
    return hashlib.sha256(settings.encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Standardiser:
    """Brings numbers to mean 0 and standard deviation 1 over the rows it was fitted on.

    Columns of a table each have a scale of their own.  The pixels of an image share one: a pixel
    of the border that is set in one row of a thousand would otherwise stand out a thousandfold,
    which costs an MLP on MNIST half a percent of accuracy.  What is constant over the rows is only
    moved to 0, not divided by its deviation.
    """

    center_D: npt.NDArray[np.float64]
    scale_D: npt.NDArray[np.float64]

    @classmethod
    def fit(cls, x_ND: Array, *, shared: bool = False) -> Standardiser:
        """Mean and (population) standard deviation in float64, of each column or `shared` by all.

        `center_D` and `scale_D` have one element where they are shared.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # `apply` refuses what comes of it
            center_D = x_ND.mean(axis=0, dtype=np.float64)
            if shared:
                center_D = center_D.mean(keepdims=True)
            squares_D = np.zeros(x_ND.shape[1])
            for start in range(0, len(x_ND), _CHUNK_ROWS):
                squares_D += np.square(x_ND[start : start + _CHUNK_ROWS] - center_D).sum(axis=0)
            variance_D = squares_D / len(x_ND)
            scale_D = np.sqrt(variance_D.mean(keepdims=True) if shared else variance_D)
        # Rounding leaves the mean of equal decimals a little beside them, and so a tiny deviation.
        lowest_D, highest_D = x_ND.min(axis=0), x_ND.max(axis=0)
        if shared:
            lowest_D, highest_D = lowest_D.min(keepdims=True), highest_D.max(keepdims=True)
        constant_D = lowest_D == highest_D
        return cls(
            np.where(constant_D, lowest_D, center_D),
            np.where(constant_D | (scale_D == 0), 1.0, scale_D),
        )

    def leaving(self, columns: Sequence[int]) -> Standardiser:
        """The same, but for columns that are neither moved nor scaled."""
        center_D, scale_D = self.center_D.copy(), self.scale_D.copy()
        center_D[list(columns)], scale_D[list(columns)] = 0.0, 1.0
        return Standardiser(center_D, scale_D)

    def apply_all(self, what: str, parts: Three) -> Three:
        """Rows of three parts on the scale of the fit.

        Args:
            what: a column is called.

        Raises:
            UnfitDataset: a value is beyond the reach of float32 then.
        """
        first, second, third = (self.apply(x_ND, what) for x_ND in parts)
        return first, second, third

    def apply(self, x_ND: Array, what: str = "feature") -> npt.NDArray[np.float32]:
        """As `apply_all`, of one part."""
        # Squares overflow from 1e154 on: numbers divided by an infinite scale would all become 0.
        can_be_scaled_D = np.broadcast_to(np.isfinite(self.scale_D), x_ND.shape[1:])
        result_ND = np.empty(x_ND.shape, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, len(x_ND), _CHUNK_ROWS):
                rows = slice(start, start + _CHUNK_ROWS)
                result_ND[rows] = (x_ND[rows] - self.center_D) / self.scale_D
        fits_D = can_be_scaled_D & np.isfinite(result_ND).all(axis=0)
        if not fits_D.all():
            column = int(np.flatnonzero(~fits_D)[0])
            raise UnfitDataset(f"{what} {column} (counted from 0) has values too large for float32")
        return result_ND
