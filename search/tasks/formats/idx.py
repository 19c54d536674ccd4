"""Folders of IDX files, the format of MNIST: four files of arrays, plain or gzipped.

An IDX file is two zero bytes, one byte for the type of the numbers, one for the number of
dimensions, a big-endian uint32 for each dimension, then the numbers, big-endian, the last
dimension fastest (https://yann.lecun.com/exdb/mnist/, "The IDX file format").

Files come from anywhere, so nothing is believed: a header is held against the size of the file
before memory is taken for it.
"""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ridgeline.search.tasks.formats.base import Array, FormatError, RawParts
from ridgeline.search.tasks.formats.binary import MAX_DEFLATE_RATIO, read_bytes
from ridgeline.search.tasks.formats.files import Folder, regular

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_DIMENSIONS = 8
_PREFIXES = ("train-images", "train-labels", "t10k-", "test-")
_GZIP_MAGIC = b"\x1f\x8b"


class IdxError(FormatError):
    """A file that is not IDX, or a folder that is no data set."""


def read_idx(path: Path) -> Array:
    """The array in one IDX file, plain or gzipped, in the machine's byte order.

    Raises:
        IdxError: the file cannot be read, is not IDX, or is not as long as its header says.
    """
    try:
        with open(path, "rb", opener=regular) as file:
            num_bytes = os.fstat(file.fileno()).st_size
            is_gzipped = file.read(2) == _GZIP_MAGIC  # names lie: browsers unpack, and keep ".gz"
            file.seek(0)
            if not is_gzipped:
                return _parse(file, num_bytes)
            with gzip.GzipFile(fileobj=file) as stream:
                return _parse(stream, num_bytes * MAX_DEFLATE_RATIO)
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise IdxError(f"{path.name} is not a whole gzip file: {exc}") from exc
    except OSError as exc:
        raise IdxError(f"{path.name} cannot be read: {exc.strerror}") from exc
    except IdxError as exc:
        raise IdxError(f"{path.name} {exc}") from exc


def is_there(names: Sequence[str]) -> bool:
    """Whether names of files are those of this format."""
    return any(name.startswith(_PREFIXES) for name in names)


def read_folder(folder: Folder) -> RawParts:
    """The arrays of a folder.

    The files are train-images*, train-labels* and, for a test part, t10k-* or test-* of both kinds.
    Folders of such names are passed over: Kaggle's MNIST has one beside each file.

    Raises:
        FormatError: a file is missing, doubled, outside of the root or malformed, or they disagree.
    """

    def read(kind: str, *parts: str) -> Array | None:
        prefixes = tuple(f"{part}-{kind}" for part in parts)
        found = _without_copies(folder.files, prefixes) or _without_copies(folder.names, prefixes)
        if len(found) > 1:
            raise IdxError(f"there are several files {parts[0]}-{kind}*: {', '.join(found)}")
        return read_idx(folder.file(found[0])) if found else None

    train = _checked("train", read("images", "train"), read("labels", "train"))
    if train is None:
        raise IdxError("there are no files train-images* and train-labels*")
    test = _checked("test", read("images", "t10k", "test"), read("labels", "t10k", "test"))
    if test is None:
        return RawParts(*train, None, None)
    images, like = test[0], train[0]
    if images.shape[1:] != like.shape[1:] or images.dtype != like.dtype:
        raise IdxError(
            f"the test images are {images.dtype} of shape {images.shape[1:]}, "
            f"the train images {like.dtype} of shape {like.shape[1:]}"
        )
    return RawParts(*train, *test)


def _parse(stream: BinaryIO | gzip.GzipFile, max_bytes: int) -> Array:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise IdxError("is not an IDX file: it must begin with two zero bytes")
    if magic[2] not in _DTYPES:
        known = ", ".join(f"0x{code:02X}" for code in _DTYPES)
        raise IdxError(f"has the unknown number type 0x{magic[2]:02X}; known are {known}")
    if not 1 <= magic[3] <= _MAX_DIMENSIONS:
        raise IdxError(f"has {magic[3]} dimensions; it must be 1 to {_MAX_DIMENSIONS}")
    header = stream.read(4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise IdxError("ends within its header")
    shape = struct.unpack(f">{magic[3]}I", header)
    dtype = np.dtype(_DTYPES[magic[2]])
    num_bytes = dtype.itemsize
    for length in shape:  # Python's integers: the product of eight uint32 overflows any other
        num_bytes *= length
    if num_bytes > max_bytes:
        raise IdxError(f"is too short for the {num_bytes:,} bytes that its header promises")
    content = read_bytes(stream, num_bytes)
    if len(content) < num_bytes:
        raise IdxError(f"ends after {len(content):,} of the {num_bytes:,} bytes of its header")
    # Reading past the end is also what makes gzip verify its checksum.
    if stream.read(1):
        raise IdxError(f"is longer than the {num_bytes:,} bytes that its header promises")
    return content.view(dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def _without_copies(names: list[str], prefixes: tuple[str, ...]) -> list[str]:
    """The names that begin with a prefix, less the .gz of which the unpacked file is there too."""
    there = set(names)
    return [
        name
        for name in names
        if name.startswith(prefixes)
        and not (name.endswith(".gz") and name.removesuffix(".gz") in there)
    ]


def _checked(part: str, images: Array | None, labels: Array | None) -> tuple[Array, Array] | None:
    """Images and labels of a part, known to agree; None where the folder has neither."""
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        lacking = "images" if images is None else "labels"
        raise IdxError(f"the {part} part has no file of {lacking}")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise IdxError(f"the {part} labels must be one row of whole numbers")
    if images.ndim < 2:
        raise IdxError(f"the {part} images must have at least two dimensions")
    if len(images) != len(labels):
        raise IdxError(f"the {part} part has {len(images)} images and {len(labels)} labels")
    if images.size == 0:
        raise IdxError(f"the {part} part is empty")
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise IdxError(f"the {part} images contain NaN or infinity")
    return images, labels
