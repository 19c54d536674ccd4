"""Writes IDX files, apart from the reader: what the tests hold it against."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def header(code: int, shape: tuple[int, ...]) -> bytes:
    return bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


def encode(array: Array) -> bytes:
    content = array.astype(array.dtype.newbyteorder(">")).tobytes()
    return header(_CODES[array.dtype.str[1:]], array.shape) + content


def write(path: Path, content: bytes) -> Path:
    """Gzipped where the name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def toy_arrays(num_rows: int = 60, num_classes: int = 3, seed: int = 0) -> tuple[Array, Array]:
    """Images [N, 4, 3] of bytes and labels [N], the classes equally often and easy to tell."""
    generator = np.random.Generator(np.random.PCG64(seed))
    labels = np.arange(num_rows, dtype=np.uint8) % num_classes
    images = generator.integers(0, 60, (num_rows, 4, 3), dtype=np.uint8)
    images[:, 0] += 80 * labels[:, None]
    return images, labels


def write_folder(
    folder: Path, *, suffix: str = "", test_part: bool = True, num_rows: int = 60
) -> None:
    """A whole data set in MNIST's four files, with `suffix` at the end of their names."""
    images, labels = toy_arrays(num_rows)
    write(folder / f"train-images-idx3-ubyte{suffix}", encode(images))
    write(folder / f"train-labels-idx1-ubyte{suffix}", encode(labels))
    if test_part:
        images, labels = toy_arrays(30, seed=1)
        write(folder / f"t10k-images-idx3-ubyte{suffix}", encode(images))
        write(folder / f"t10k-labels-idx1-ubyte{suffix}", encode(labels))
