"""What a report consists of, whatever it is written as: sections of texts, tables and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Points:
    """Sentences, each a point of a list."""

    texts: Sequence[str]


@dataclass(frozen=True)
class Facts:
    """Names with what is known of each."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """A table; the first column says what a row is about.

    Attributes:
        numbers: the columns that are aligned as numbers.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Figure:
    """A picture, and the same in words and numbers for those who do not see it.

    Attributes:
        picture: an `svg` without a name.
        description: what is to be seen.
        caption: how to read it, and what was left out.
        table: the numbers of the picture, or the most important of them.
    """

    title: str
    picture: Element
    description: str
    caption: str
    table: Table | None = None


@dataclass(frozen=True)
class Code:
    """Lines to copy."""

    text: str
    label: str


Block = Text | Points | Facts | Table | Figure | Code


@dataclass(frozen=True)
class Section:
    """A part of a report; `key` names it in addresses."""

    key: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Report:
    """The whole; `kind` says of what, `lead` how things stand, in a sentence or two."""

    kind: str
    title: str
    lead: str
    sections: Sequence[Section]
