"""What the features and the targets of a data set are: what decides which tasks can train on it.

In the API too.  Importing this module imports no numpy, so that tasks can be described without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field

from ridgeline.search.fields import MAX_INT, Whole

FeaturesKind = Literal["vector", "image", "tokens"]
TargetsKind = Literal["classes", "numbers"]

ColumnUse = Literal["label", "target", "group", "time", "feature"]
"""What a column of a table can be: learned, as classes or as numbers, what a split goes by, or a
feature."""

COLUMN_USES: tuple[ColumnUse, ...] = get_args(ColumnUse)

FilesKind = Literal["table", "pictures", "other"]
"""Of what kind the files of a data set are, as far as a study may say how they are read."""

PADDING, UNKNOWN = 0, 1
"""Ids of tokens."""

NUM_SPECIAL = 2
"""Ids from here on are those of tokens with an id of their own."""

Count = Annotated[Whole, Field(ge=1, le=MAX_INT)]


def _require_kind(schema: dict[str, Any]) -> None:
    """A default is for Python alone: in JSON the kind says which of them is meant."""
    schema["required"].append("kind")


_CONFIG = ConfigDict(extra="forbid", json_schema_extra=_require_kind)


@dataclass(frozen=True)
class Vector:
    """A row is [num_features] numbers, such as the columns of a table, each of its own scale."""

    __pydantic_config__ = _CONFIG

    num_features: Count
    kind: Literal["vector"] = "vector"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return (self.num_features,)


@dataclass(frozen=True)
class Image:
    """A row is [channels, height, width] pixels of one scale; without channels [height, width]."""

    __pydantic_config__ = _CONFIG

    channels: Count
    height: Count
    width: Count
    kind: Literal["image"] = "image"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return (self.channels, self.height, self.width)


@dataclass(frozen=True)
class Tokens:
    """A row is [length] whole numbers from 0 to vocabulary_size - 1, which name tokens.

    PADDING fills a row up, and UNKNOWN stands for all tokens that have no number of their own.
    """

    __pydantic_config__ = _CONFIG

    length: Count
    vocabulary_size: Annotated[Whole, Field(ge=2, le=MAX_INT)]
    kind: Literal["tokens"] = "tokens"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return (self.length,)


@dataclass(frozen=True)
class Classes:
    """A row has one of `count` classes, a whole number from 0 to count - 1."""

    __pydantic_config__ = _CONFIG

    count: Count
    kind: Literal["classes"] = "classes"


@dataclass(frozen=True)
class Numbers:
    """A row has [count] real numbers."""

    __pydantic_config__ = _CONFIG

    count: Count
    kind: Literal["numbers"] = "numbers"


Features = Annotated[Vector | Image | Tokens, Field(discriminator="kind")]
Targets = Annotated[Classes | Numbers, Field(discriminator="kind")]
