"""What the features and the targets of a data set are: what decides which tasks can train on it.

Importing this module imports no numpy, so that tasks can be described without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

FeaturesKind = Literal["vector", "image", "tokens"]
TargetsKind = Literal["classes", "numbers"]


@dataclass(frozen=True)
class Vector:
    """A row is [num_features] numbers, such as the columns of a table, each of its own scale."""

    kind: ClassVar[FeaturesKind] = "vector"
    num_features: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return (self.num_features,)


@dataclass(frozen=True)
class Image:
    """A row is [channels, height, width] pixels of one scale; without channels [height, width]."""

    kind: ClassVar[FeaturesKind] = "image"
    channels: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return (self.channels, self.height, self.width)


@dataclass(frozen=True)
class Tokens:
    """A row is [length] whole numbers from 0 to vocabulary_size - 1."""

    kind: ClassVar[FeaturesKind] = "tokens"
    length: int
    vocabulary_size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return (self.length,)


@dataclass(frozen=True)
class Classes:
    """A row has one of `count` classes, a whole number from 0 to count - 1."""

    kind: ClassVar[TargetsKind] = "classes"
    count: int


@dataclass(frozen=True)
class Numbers:
    """A row has [count] real numbers."""

    kind: ClassVar[TargetsKind] = "numbers"
    count: int


Features = Vector | Image | Tokens
Targets = Classes | Numbers
