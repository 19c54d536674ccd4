"""Numbers apart from labels, as in the feature selection challenge of NIPS 2003.

The files are NAME_train.data and NAME_train.labels, and for a test part NAME_valid.data and
NAME_valid.labels (https://archive.ics.uci.edu/dataset/171/madelon).  A line of .data is a row of
numbers, a line of .labels the name of its class.  NAME_test.data is passed over: its labels were
never given away.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from ridgeline.search.tasks.formats.base import Array, FormatError, RawParts
from ridgeline.search.tasks.formats.files import Folder
from ridgeline.search.tasks.formats.rows import Labels, number, opened

_TRAIN, _VALID = "_train", "_valid"
_DATA, _LABELS = ".data", ".labels"
_ENDINGS = tuple(part + kind for part in (_TRAIN, _VALID) for kind in (_DATA, _LABELS))


def is_there(names: Sequence[str]) -> bool:
    """Whether names of files are those of this format."""
    return any(name.endswith(_ENDINGS) for name in names)


def read_folder(folder: Folder) -> RawParts:
    """The numbers of a folder, float64 [N, D], and their classes.

    Raises:
        FormatError: a file is missing, doubled, outside of the root or malformed, or they disagree.
    """
    stems = {name.removesuffix(ending) for name in folder.names for ending in _endings_of(name)}
    if len(stems) > 1:
        raise FormatError(f"it has files of several data sets: {', '.join(sorted(stems))}")
    (stem,) = stems
    train = _Part(folder, stem + _TRAIN)
    classes = train.labels.classes()
    y = train.labels.numbers(classes)
    if not any(name.startswith(stem + _VALID) for name in folder.names if _endings_of(name)):
        return RawParts(train.x_ND, y, None, None, class_names=classes)
    valid = _Part(folder, stem + _VALID)
    if valid.x_ND.shape[1] != train.x_ND.shape[1]:
        raise FormatError(
            f"{stem}{_VALID}{_DATA} has rows of {valid.x_ND.shape[1]} numbers, those of "
            f"{stem}{_TRAIN}{_DATA} have {train.x_ND.shape[1]}"
        )
    valid_y = valid.labels.numbers(classes)
    return RawParts(train.x_ND, y, valid.x_ND, valid_y, class_names=classes)


def _endings_of(name: str) -> list[str]:
    return [ending for ending in _ENDINGS if name.endswith(ending)]


class _Part:
    """The rows of a part, and as many labels."""

    def __init__(self, folder: Folder, name: str) -> None:
        for kind in (_DATA, _LABELS):
            if name + kind not in folder.names:
                raise FormatError(f"there is no {name}{kind}")
        self.labels = _labels(folder.file(name + _LABELS))
        self.x_ND = _numbers(folder.file(name + _DATA))
        if len(self.x_ND) != len(self.labels):
            raise FormatError(
                f"{name}{_DATA} has {len(self.x_ND)} rows and {name}{_LABELS} "
                f"{len(self.labels)} labels"
            )


def _labels(path: Path) -> Labels:
    labels = Labels("label")
    with opened(path, newline=None) as file:
        for line, text in enumerate(file, start=1):
            if words := text.split():
                if len(words) > 1:
                    raise FormatError(f"{path.name}, line {line}: {len(words)} labels for one row")
                labels.add(words[0], f"{path.name}, line {line}")
    if not len(labels):
        raise FormatError(f"{path.name} has no rows")
    return labels


def _numbers(path: Path) -> Array:
    """The numbers of a file, float64 [N, D]; lines without anything are passed over."""
    with opened(path, newline=None) as file:
        first = next((text for text in file if text.strip()), None)
        if first is None:
            raise FormatError(f"{path.name} has no rows")
        try:
            x_ND = np.loadtxt(chain([first], file), comments=None, ndmin=2)
        except ValueError as exc:
            if isinstance(exc, UnicodeDecodeError):
                raise
            _refuse_first_problem(path)
            raise FormatError(f"{path.name} is not rows of numbers: {exc}") from exc
    if not np.isfinite(x_ND).all():
        _refuse_first_problem(path)
    return x_ND


def _refuse_first_problem(path: Path) -> None:
    """Say which line is not as the first, in a file that NumPy has refused; it counts otherwise.

    Raises:
        FormatError: a line is.
    """
    num_columns = None
    with opened(path, newline=None) as file:
        for line, text in enumerate(file, start=1):
            where, words = f"{path.name}, line {line}", text.split()
            for column, word in enumerate(words, start=1):
                number(word, f"{where}, column {column}")
            num_columns = num_columns or len(words)
            if words and len(words) != num_columns:
                raise FormatError(f"{where}: {len(words)} numbers, but {num_columns} before it")
