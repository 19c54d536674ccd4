"""Writes folders of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.tasks.idx_files import toy_arrays

CLASSES = ["blue", "green", "red"]


def write_picture(path: Path, pixels: np.ndarray, **options: Any) -> Path:
    """Pixels [H, W] or [H, W, channels] of bytes, in the format of the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def write_pictures(folder: Path, *, test_part: bool = False, colours: bool = False) -> None:
    """The arrays of `toy_arrays` as pictures."""
    for part, num_rows in (("train", 60), ("test", 30)) if test_part else (("", 60),):
        images, labels = toy_arrays(num_rows, seed=int(part == "test"))
        for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            place = folder / part / CLASSES[label] / f"{number:03}.png"
            write_picture(
                place, np.stack([pixels, pixels // 2, 255 - pixels], 2) if colours else pixels
            )
