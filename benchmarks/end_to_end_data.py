"""The data root of the end-to-end benchmark: MNIST, or made data in its place."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

NUM_TRAIN, NUM_TEST = 60_000, 10_000
_SIDE = 28
_NUM_CLASSES = 10
_SEED = 20_26


def make_mnist(root: Path, *, quick: bool) -> None:
    """Write the folder `mnist` of IDX files: noise around a centre for each class."""
    folder = root / "mnist"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(_SEED)
    centres = generator.integers(0, 128, (_NUM_CLASSES, _SIDE, _SIDE))
    for part, num_rows in (("train", NUM_TRAIN), ("t10k", NUM_TEST)):
        labels = generator.integers(0, _NUM_CLASSES, num_rows // 30 if quick else num_rows)
        noise = generator.standard_normal((len(labels), _SIDE, _SIDE), dtype=np.float32)
        images = np.clip(centres[labels] + 100 * noise, 0, 255)
        _write_idx(folder / f"{part}-images-idx3-ubyte", images.astype(np.uint8))
        _write_idx(folder / f"{part}-labels-idx1-ubyte", labels.astype(np.uint8))


def _write_idx(path: Path, array: npt.NDArray[np.uint8]) -> None:
    """The format is described in `ridgeline.search.tasks.formats.idx`."""
    head = struct.pack(f">HBB{array.ndim}I", 0, 0x08, array.ndim, *array.shape)
    path.write_bytes(head + array.tobytes())
