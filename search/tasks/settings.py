"""What the settings of tasks are made of, which stand in a study's spec under `task`."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import (
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationInfo,
    field_validator,
)

from ridgeline.search.fields import MAX_SEED, Real, SpecPart, Text, Whole
from ridgeline.search.tasks.kinds import NUM_SPECIAL, Image, Tokens, Vector

DatasetName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)
]
"""A name, never a path: no separators and no dots."""

MAX_BATCH_SIZE = 65_536
MAX_WIDTH = 65_536
MAX_COEFFICIENT = 1e12
MAX_FOLDS = 20
MAX_PIXELS = 1_024
"""In a row or a column of an image that a study makes."""
MAX_REPEATS = 100

TrainOn = Literal["train", "train+validation"]
"""The parts of a split whose rows train."""


class TaskSettings(SpecPart):
    """What every task is told.

    A task narrows `name` to a Literal of its own.  One that trains on a data set calls the setting
    that names it `dataset`, by which the database counts.  One that can take texts for vectors
    calls the setting that says how `bag`.
    """

    name: str


class Images(SpecPart):
    """What pictures are made to be when they are read."""

    height: Annotated[
        Whole | None, Field(ge=1, le=MAX_PIXELS, description="in pixels; left out: as it is")
    ] = None
    width: Annotated[
        Whole | None,
        Field(ge=1, le=MAX_PIXELS, validate_default=True, description="in pixels, with height"),
    ] = None
    channels: Annotated[
        Literal[1, 3] | None,
        Field(description="1 for grey, 3 for red, green and blue; left out: 1 if all are grey"),
    ] = None

    @field_validator("width")
    @classmethod
    def _with_height(cls, width: int | None, info: ValidationInfo) -> int | None:
        if (width is None) != (info.data.get("height") is None):
            raise ValueError("height and width are given together, or neither")
        return width

    def image(self, image: Image) -> Image:
        """What images are then, by what they are in their files."""
        return Image(
            self.channels or image.channels, self.height or image.height, self.width or image.width
        )


class Reading(NamedTuple):
    """How a study has the files of a data set read, where they do not say it or say otherwise.

    Of a table, columns by their names: `label` has names of classes to learn, `target` numbers to
    learn; one of them at most is given.  Rows of one `group` stay together, or `time` orders them;
    a study has one of them at most.  `images` is for folders of pictures.
    """

    label: str | None = None
    target: str | None = None
    group: str | None = None
    time: str | None = None
    images: Images | None = None

    @property
    def key(self) -> str | None:
        """The column that splits go by."""
        return self.group or self.time

    @property
    def has_columns(self) -> bool:
        """Whether it names any."""
        return any((self.label, self.target, self.key))


AS_IT_IS = Reading()
"""As the files say."""


class Bag(SpecPart):
    """How a text becomes a vector: a number for each token of a vocabulary."""

    weights: Annotated[
        Literal["tfidf", "counts"],
        Field(description="how often a token stands in a text, or that by how rare it is"),
    ] = "tfidf"
    vocabulary: Annotated[
        Whole,
        Field(ge=1, le=MAX_WIDTH, description="tokens at most, those of the most training rows"),
    ] = 2_000

    def vector(self, tokens: Tokens) -> Vector:
        """What the texts of such tokens become; at least one feature, even where none is known."""
        return Vector(min(self.vocabulary, max(1, tokens.vocabulary_size - NUM_SPECIAL)))


_Weight = Annotated[Real, Field(gt=0, le=MAX_COEFFICIENT)]

ClassWeights = Annotated[
    Annotated[Literal["balanced"], Tag("word")]
    | Annotated[tuple[_Weight, ...], Field(min_length=2, max_length=MAX_WIDTH), Tag("list")],
    Discriminator(lambda given: "word" if isinstance(given, str) else "list"),
]
"""`balanced`, or a number for each class."""


class Split(SpecPart):
    """How a data set is divided; what is drawn follows from `seed` alone."""

    kind: Annotated[
        Literal["stratified", "random", "group", "time"],
        Field(
            description="by what rows are dealt out: class by class, all alike, group by group, or "
            "by time, so that no row trains that comes after one that validates or tests"
        ),
    ] = "stratified"
    column: Annotated[
        Text | None,
        Field(
            validate_default=True,
            description="of a table, which has the groups, or the times; it is no feature then. "
            "Left out, rows are in the order of time",
        ),
    ] = None
    validation: Annotated[
        Real,
        Field(
            gt=0,
            lt=0.9,
            description="share of the training rows kept for validation; not used with folds",
        ),
    ] = 0.2
    test: Annotated[
        Real,
        Field(
            gt=0,
            lt=0.9,
            description="share of all rows kept for test; "
            "not used where the data set has a test part of its own",
        ),
    ] = 0.2
    seed: Annotated[Whole, Field(ge=0, le=MAX_SEED)] = 0
    folds: Annotated[
        Whole,
        Field(
            ge=1,
            le=MAX_FOLDS,
            description="of a cross-validation, each of which validates once; 1: there is none",
        ),
    ] = 1
    repeats: Annotated[
        Whole,
        Field(
            ge=1,
            le=MAX_REPEATS,
            description="how many times training and validation rows are drawn anew",
        ),
    ] = 1
    train_on: Annotated[
        TrainOn,
        Field(
            description="whether the validation rows train too; for one configuration, since no "
            "choice can go by them then"
        ),
    ] = "train"

    @field_validator("column")
    @classmethod
    def _of_kind(cls, column: str | None, info: ValidationInfo) -> str | None:
        kind = info.data.get("kind")
        if column is None and kind == "group":
            raise ValueError("is needed: the column that has the groups")
        if column is not None and kind in ("stratified", "random"):
            raise ValueError(f"is for the kinds group and time, not {kind}")
        return column

    @field_validator("repeats")
    @classmethod
    def _drawn(cls, repeats: int, info: ValidationInfo) -> int:
        if repeats > 1 and info.data.get("kind") == "time":
            raise ValueError("must be 1: a split by time draws nothing")
        return repeats

    @property
    def trains_on_validation(self) -> bool:
        """Whether every row trains that is not a test row."""
        return self.train_on == "train+validation"

    @property
    def num_divisions(self) -> int:
        """Ways to divide the rows; each trial has as many runs of each replicate.

        Where validation rows train too, all divisions have the same training rows, so one is left.
        """
        return 1 if self.trains_on_validation else self.folds * self.repeats
