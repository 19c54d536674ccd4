"""Texts with labels: train.tsv, and test.tsv where there is a test part.

Each line is the name of a class, a tab, and a text, in UTF-8; a first line `label<TAB>text` is a
header.  Tables of a label and a text end here too, see `table`.  A text becomes a bag of tokens:
its order is kept, but not used.

Tokens are, in the text in lower case, runs of letters, digits and underscores, and every other
character that is no space by itself.  The vocabulary are the tokens that stand in two texts of the
train part at least, `MAX_VOCABULARY` at most, those of the most texts first and equal ones by code
point; any other token is `UNKNOWN`.  Of a text the first `MAX_TOKENS` count.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ridgeline.search.tasks.formats.base import Array, FormatError, RawParts
from ridgeline.search.tasks.formats.files import Folder
from ridgeline.search.tasks.formats.rows import MAX_FIELD, Labels, opened
from ridgeline.search.tasks.kinds import NUM_SPECIAL, PADDING, UNKNOWN, Tokens

_TRAIN, _TEST = "train.tsv", "test.tsv"

MAX_VOCABULARY = 20_000
MAX_TOKENS = 256
MIN_TEXTS = 2
"""That a token must stand in, to be one of the vocabulary."""

_MAX_IDS = 2**27
"""Of all rows together: 256 MiB in memory, a GiB on a device."""

_TOKEN = re.compile(r"\w+|[^\w\s]")
_HEADER = "label\ttext"


def is_there(names: Sequence[str]) -> bool:
    """Whether names of files are those of this format."""
    return _TRAIN in names or _TEST in names


def read_folder(folder: Folder) -> RawParts:
    """The tokens of a folder's texts, uint16 [N, length], and their classes.

    Raises:
        FormatError: a file is missing, outside of the root or malformed, or they disagree.
    """
    train, test = folder.parts(_TRAIN, _TEST)
    return tokenised(Texts.of_lines(train), None if test is None else Texts.of_lines(test))


def tokenised(train: Texts, test: Texts | None) -> RawParts:
    """Tokens, uint16 [N, length], of a vocabulary of the train part, and classes.

    Raises:
        FormatError: there are too many, or the parts disagree.
    """
    id_of = {token: id for id, token in enumerate(train.vocabulary(), start=NUM_SPECIAL)}
    classes = train.labels.classes()
    length = max(1, train.longest)
    features = Tokens(length, NUM_SPECIAL + len(id_of))
    x, y = train.ids(id_of, length), train.labels.numbers(classes)
    if test is None:
        return RawParts(x, y, None, None, features=features, class_names=classes)
    test_x, test_y = test.ids(id_of, length), test.labels.numbers(classes)
    return RawParts(x, y, test_x, test_y, features=features, class_names=classes)


def tokens_of(text: str) -> list[str]:
    """The tokens of a text that count."""
    return _TOKEN.findall(text.lower())[:MAX_TOKENS]


Line = tuple[int, str, str]
"""Its number counted from 1, a label and a text."""


class Texts:
    """The texts of a file, as tokens: each is in memory once, and rows have numbers of them.

    Attributes:
        longest: the number of tokens that count of the longest text.

    Raises:
        FormatError: there are no texts, or a label is none.
    """

    def __init__(self, file: str, lines: Iterable[Line]) -> None:
        self.labels = Labels("label")
        self.longest = 0
        self._file = file
        self._number_of: dict[str, int] = {}
        self._num_texts: Counter[int] = Counter()
        self._numbers, self._ends = array("l"), array("q")
        for line, label, text in lines:
            self.labels.add(label, f"{file}, line {line}")
            found = [self._number_of.setdefault(t, len(self._number_of)) for t in tokens_of(text)]
            self._numbers.extend(found)
            self._ends.append(len(self._numbers))
            self._num_texts.update(set(found))
            self.longest = max(self.longest, len(found))
        if not self._ends:
            raise FormatError(f"{file} has no rows")

    @classmethod
    def of_lines(cls, path: Path) -> Texts:
        """Those of a file whose lines are a label, a tab and a text."""
        return cls(path.name, _lines(path))

    def vocabulary(self) -> list[str]:
        """The tokens that have ids of their own, in their order."""
        often = [
            token
            for token, number in self._number_of.items()
            if self._num_texts[number] >= MIN_TEXTS
        ]
        often.sort(key=lambda token: (-self._num_texts[self._number_of[token]], token))
        return often[:MAX_VOCABULARY]

    def ids(self, id_of: dict[str, int], length: int) -> Array:
        """Rows of ids, filled up with PADDING; uint16 [N, length]."""
        num_rows = len(self._ends)
        if num_rows * length > _MAX_IDS:
            raise FormatError(
                f"{self._file} is too large: {num_rows} texts of up to {length} tokens"
            )
        ids = np.array([id_of.get(token, UNKNOWN) for token in self._number_of], np.uint16)
        rows = np.full((num_rows, length), PADDING, np.uint16)
        start = 0
        for row, end in zip(rows, self._ends, strict=True):
            numbers = self._numbers[start:end][:length]
            row[: len(numbers)] = ids[numbers]
            start = end
        return rows


def _lines(path: Path) -> Iterator[Line]:
    """The lines of a file with labels and texts."""
    with opened(path, newline="\n") as file:
        line = 0
        while text := file.readline(MAX_FIELD):
            line += 1
            if not text.endswith("\n") and len(text) == MAX_FIELD:
                raise FormatError(f"{path.name}, line {line}: has more than {MAX_FIELD} characters")
            text = text.rstrip("\r\n")
            if not text or (line == 1 and text == _HEADER):
                continue
            label, tab, text = text.partition("\t")
            if not tab:
                raise FormatError(
                    f"{path.name}, line {line}: there is no tab between label and text"
                )
            yield line, label, text
