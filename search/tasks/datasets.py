"""The data sets a worker has: some built in, and every folder of files under the data root.

A data set goes by a name, never by a path.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from ridgeline.search.tasks.built_in import BUILT_IN, DOWNLOADED, is_downloaded
from ridgeline.search.tasks.data import Array, Dataset, DatasetCard, DatasetError, UnfitDataset
from ridgeline.search.tasks.formats.base import FormatError, RawParts, TellsTooLittle
from ridgeline.search.tasks.formats.reading import described, read_folder, summary_of
from ridgeline.search.tasks.kinds import Classes, Features, Image, Numbers, Vector
from ridgeline.search.tasks.settings import AS_IT_IS, DatasetName, Reading

_log = logging.getLogger(__name__)
_dataset_name = TypeAdapter[str](DatasetName)

_MAX_REASON = 300
"""Characters of what a reader raised; numpy quotes whole headers."""


def built_in_cards() -> list[DatasetCard]:
    """The data sets that every machine has, and those that scikit-learn has downloaded here."""
    cards = [card_of(name, None) for name in sorted(BUILT_IN)]
    for name in sorted(DOWNLOADED):
        if is_downloaded(name):
            try:
                cards.append(card_of(name, None))
            except DatasetError as exc:
                _log.warning("left out: %s", printable(str(exc)))
    return cards


Stamp = tuple[tuple[str, int, int], ...]
"""Names, sizes and times of a folder's files, by which a change of them shows.

Of pictures, which may be many, those of the folders they are in: one that is written over in place
does not show here, but in the fingerprint that a run compares.
"""


def stamp_of(folder: Path) -> Stamp:
    """By what a change of the folder shows."""
    stamp = []
    with suppress(OSError):  # reading it tells what is wrong
        deeper = [path for inner in _folders_in(folder) for path in _folders_in(inner)]
        for path in sorted({*folder.iterdir(), *deeper}):
            with suppress(OSError):
                status = path.stat()  # of what a link leads to
                name = str(path.relative_to(folder))
                stamp.append((name, status.st_size, status.st_mtime_ns))
    return tuple(stamp)


def _folders_in(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:  # which knows folders without asking for each picture
        return [folder / entry.name for entry in entries if entry.is_dir()]


def load(name: str, data_root: Path | None, reading: Reading = AS_IT_IS) -> Dataset:
    """The data set `name`, built in or a folder of `data_root`.

    Args:
        reading: what a study says of how the files are read.

    Raises:
        UnfitDataset: its files are sound, but they have not what `reading` says.
        DatasetError: the name is no name, nothing has it, its files are malformed, or they are
            replaced meanwhile.
    """
    folder = _folder(name, data_root)
    if reading == AS_IT_IS:
        return _built_in(name) if folder is None else _read(name, *folder)
    if folder is None:
        raise UnfitDataset(f"data set {name}: it is built in, and is read as it is")
    before = stamp_of(folder[0])
    named_as = _bare_card(name, data_root).fingerprint
    try:
        found = _read(name, *folder, reading)
    except DatasetError as exc:
        raise UnfitDataset(str(exc)) from exc
    if stamp_of(folder[0]) != before:
        raise DatasetError(f"data set {name}: its files have been replaced while they were read")
    return replace(found, named_as=named_as)


def card_of(name: str, data_root: Path | None) -> DatasetCard:
    """A data set without its rows, of files that tell too little too.

    Raises:
        DatasetError: as of `load`.
    """
    card = _bare_card(name, data_root)
    if data_root is None or is_here(name):
        return replace(card, files="other")
    with _named(name):
        files, columns = described(data_root / name, data_root)
    return replace(card, files=files, columns=columns)


def _bare_card(name: str, data_root: Path | None) -> DatasetCard:
    """The same, but for what is known of its files."""
    try:
        return load(name, data_root).card
    except _TellsTooLittle as exc:
        reason = printable(str(exc))
    assert data_root is not None, "what is built in is no table"
    with _named(name):
        summary = summary_of(data_root / name, data_root)
    return DatasetCard(
        name=name,
        fingerprint=summary.fingerprint,
        num_rows=summary.num_rows,
        num_features=summary.num_features,
        num_classes=None,
        has_test_part=summary.has_test_part,
        smallest_class=None,
        features=None,
        targets=None,
        needs=reason,
    )


class _TellsTooLittle(UnfitDataset):
    """Files for which a study has to say how they are read."""


def _folder(name: str, data_root: Path | None) -> tuple[Path, Path] | None:
    """The folder of a data set, and the root it is to lie under; None of one that is built in."""
    try:
        _dataset_name.validate_python(name, strict=True)
    except ValidationError as exc:
        raise DatasetError(
            f"{name!r} is not the name of a data set: letters, digits, '_' and '-' only"
        ) from exc
    if is_here(name):
        return None
    if data_root is None or not os.path.isdir(data_root / name):
        known = ", ".join(sorted(BUILT_IN))
        where = "has no folder of that name" if data_root is not None else "is not set"
        raise DatasetError(
            f"there is no data set {name}: built in are {known}, and --data-root "
            f"(RIDGELINE_DATA_ROOT) {where}"
        )
    return data_root / name, data_root


def _read(name: str, folder: Path, root: Path, reading: Reading = AS_IT_IS) -> Dataset:
    with _named(name):
        return _dataset(name, read_folder(folder, root, reading))


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Have what readers raise name the data set, as a DatasetError."""
    try:
        yield
    except TellsTooLittle as exc:
        raise _TellsTooLittle(f"data set {name}: {_short(exc)}") from exc
    except FormatError as exc:
        raise DatasetError(f"data set {name}: {_short(exc)}") from exc
    except DatasetError:
        raise
    except Exception as exc:  # the libraries below the readers promise nothing of malformed files
        reason = f"it cannot be read: {type(exc).__name__}: {_short(exc)}"
        raise DatasetError(f"data set {name}: {reason}") from exc


def _short(exc: Exception) -> str:
    text = str(exc)
    return text if len(text) <= _MAX_REASON else text[:_MAX_REASON] + "…"


def printable(text: str) -> str:
    """Names of files may hold bytes that are no UTF-8, and line ends."""
    known = os.fsencode(text).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in known)


def is_here(name: str) -> bool:
    """Whether a name is that of a data set of scikit-learn's, which no folder may have."""
    return name in BUILT_IN or is_downloaded(name)


@cache
def _built_in(name: str) -> Dataset:
    if name in BUILT_IN:
        return _dataset(name, BUILT_IN[name]())
    file, read = DOWNLOADED[name]
    try:
        return _dataset(name, read())
    except DatasetError:
        raise
    except Exception as exc:  # joblib promises nothing of a file that was cut short
        reason = f"{file} of scikit-learn cannot be read: {type(exc).__name__}: {_short(exc)}"
        raise DatasetError(f"data set {name}: {reason}") from exc


def _dataset(name: str, raw: RawParts) -> Dataset:
    make = _classes if raw.targets == "classes" else _numbers
    try:
        y, test_y, targets, labels = make(raw.y, raw.test_y)
    except DatasetError as exc:
        raise DatasetError(f"data set {name}: {exc}") from exc
    features = raw.features or _features(raw.x.shape[1:])
    return Dataset.of(
        name,
        raw.x,
        y,
        raw.test_x,
        test_y,
        features=features,
        targets=targets,
        columns=raw.columns,
        key=raw.key,
        class_names=raw.class_names or labels,
    )


def _classes(
    labels: Array, test_labels: Array | None
) -> tuple[Array, Array | None, Classes, list[str]]:
    """Give the classes their numbers: class k is the k-th smallest label of the train part."""
    classes = np.unique(labels)
    if len(classes) < 2:
        raise DatasetError(f"all rows have the label {classes[0]}")
    y = np.searchsorted(classes, labels)
    test_y = None
    if test_labels is not None:
        unknown = np.setdiff1d(test_labels, classes)
        if len(unknown):
            raise DatasetError(
                f"the test label {unknown[0]} is out of range: no row of the train part has it"
            )
        test_y = np.searchsorted(classes, test_labels)
    return y, test_y, Classes(len(classes)), [str(label) for label in classes]


def _numbers(y: Array, test_y: Array | None) -> tuple[Array, Array | None, Numbers, None]:
    """Real numbers, [N, count]."""
    if (y == y[:1]).all():
        raise DatasetError("all rows have the same target")
    y_NC = y.reshape(len(y), -1).astype(np.float64)
    test_y_NC = None if test_y is None else test_y.reshape(len(test_y), -1).astype(np.float64)
    return y_NC, test_y_NC, Numbers(y_NC.shape[1]), None


def _features(shape: tuple[int, ...]) -> Features:
    """By the shape of a row: what has two dimensions and more is an image.

    A third dimension stands first, for channels, as torch has it; still more are taken as height.
    """
    if len(shape) == 1:
        return Vector(*shape)
    channels = shape[0] if len(shape) > 2 else 1
    return Image(channels, math.prod(shape[:-1]) // channels, shape[-1])
