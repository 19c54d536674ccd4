"""Arrays as `numpy.savez` writes them: train.npz, and test.npz where there is a test part.

Each has the arrays `x` and `y`.  A .npz is a zip file of .npy files
(https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).

Files come from anywhere, so nothing is believed: no object is unpickled, and a header is held
against the size of the file before memory is taken for it.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from ridgeline.search.tasks.formats.base import Array, FormatError, RawParts
from ridgeline.search.tasks.formats.binary import MAX_DEFLATE_RATIO, read_bytes
from ridgeline.search.tasks.formats.files import Folder, regular
from ridgeline.search.tasks.kinds import TargetsKind

_TRAIN, _TEST = "train.npz", "test.npz"


def is_there(names: Sequence[str]) -> bool:
    """Whether names of files are those of this format."""
    return _TRAIN in names or _TEST in names


def read_folder(folder: Folder) -> RawParts:
    """The arrays of a folder.

    Whole numbers and texts in `y` are labels of classes, [N]; real numbers are to be learned as
    such, [N] or [N, count].

    Raises:
        FormatError: a file is missing, outside of the root or malformed, or they disagree.
    """
    train, test = folder.parts(_TRAIN, _TEST)
    x, y = _read(train)
    test_x, test_y = (None, None) if test is None else _read(test)
    kind: TargetsKind = "numbers" if y.dtype.kind == "f" else "classes"
    if test_x is not None and test_y is not None:
        if test_x.shape[1:] != x.shape[1:]:
            raise FormatError(
                f"x of {_TEST} has rows of shape {test_x.shape[1:]}, that of {_TRAIN} of shape "
                f"{x.shape[1:]}"
            )
        if (test_y.dtype.kind == "f") != (kind == "numbers") or test_y.shape[1:] != y.shape[1:]:
            raise FormatError(f"y of {_TEST} is not like that of {_TRAIN}")
    return RawParts(x, y, test_x, test_y, targets=kind)


def _read(path: Path) -> tuple[Array, Array]:
    try:
        with open(path, "rb", opener=regular) as file, zipfile.ZipFile(file) as archive:
            x, y = (_array(archive, name) for name in ("x", "y"))
        _check(x, y)
    except FormatError as exc:
        raise FormatError(f"{path.name}: {exc}") from exc
    except (zipfile.BadZipFile, zlib.error, EOFError) as exc:
        raise FormatError(f"{path.name} is not a whole .npz file: {exc}") from exc
    except OSError as exc:
        raise FormatError(f"{path.name} cannot be read: {exc.strerror}") from exc
    return x, y


def _array(archive: zipfile.ZipFile, name: str) -> Array:
    """One array of the archive."""
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        names = ", ".join(sorted(archive.namelist())[:10]) or "nothing"
        raise FormatError(f"there is no array {name}; the file has {names}") from None
    if info.file_size > max(info.compress_size, 1) * MAX_DEFLATE_RATIO:
        raise FormatError(f"{name} is packed more tightly than is possible")
    try:
        with archive.open(info) as stream:
            return _parse(name, stream, info.file_size)
    except (NotImplementedError, RuntimeError) as exc:  # a rare compression, or encrypted
        raise FormatError(f"{name} cannot be unpacked: {exc}") from exc


def _parse(name: str, stream: IO[bytes], num_bytes: int) -> Array:
    try:
        version = npy.read_magic(stream)
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        if version not in read_header:
            raise ValueError(f"version {version} of the format")
        shape, is_fortran, dtype = read_header[version](stream)
    except ValueError as exc:
        raise FormatError(f"{name} is not an array: {exc}") from exc
    is_long = dtype.kind in "biuf" and dtype.itemsize > 8
    if dtype.hasobject or dtype.kind not in "biufUS" or is_long or dtype.itemsize == 0:
        raise FormatError(f"{name} is of the type {dtype}; it must be numbers, or y texts")
    promised = dtype.itemsize
    for length in shape:  # Python's integers, which do not overflow
        promised *= length
    if stream.tell() + promised != num_bytes:
        raise FormatError(f"{name} is not as long as its header says")
    content = read_bytes(stream, promised)
    if len(content) < promised:
        raise FormatError(f"{name} ends early")
    stream.read(1)  # past the end, which has the checksum verified
    array = content.view(dtype).reshape(shape, order="F" if is_fortran else "C")
    return np.ascontiguousarray(array, dtype.newbyteorder("="))


def _check(x: Array, y: Array) -> None:
    if x.dtype.kind not in "biuf":
        raise FormatError("x must be numbers")
    if x.ndim < 2:
        raise FormatError(f"x must have rows of features, not the shape {x.shape}")
    if y.ndim != 1 and not (y.ndim == 2 and y.dtype.kind == "f" and y.shape[1] > 0):
        raise FormatError(f"y has the shape {y.shape}; it must have one target a row")
    if len(x) != len(y):
        raise FormatError(f"x has {len(x)} rows and y {len(y)}")
    if x.size == 0:
        raise FormatError("x is empty")
    for name, array in (("x", x), ("y", y)):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise FormatError(f"{name} contains NaN or infinity")
