"""Pictures in folders, one for each class: CLASS/*.png and *.jpg.

With a test part, these folders lie in train and test.  Pillow reads the pictures; it is imported
when there are some, since not everybody has it.

# N rows, C channels, H and W pixels
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ridgeline.search.tasks.formats.base import (
    Array,
    FormatError,
    RawParts,
    Summary,
    TellsTooLittle,
    not_installed,
)
from ridgeline.search.tasks.formats.files import Folder, regular
from ridgeline.search.tasks.formats.rows import Labels
from ridgeline.search.tasks.settings import Images, Reading

if TYPE_CHECKING:
    from PIL import Image

_TRAIN, _TEST = "train", "test"
_ENDINGS = (".png", ".jpg", ".jpeg")
_CHANNELS = {
    "1": 1, "L": 1, "LA": 1, "P": 3, "PA": 3, "RGB": 3, "RGBA": 3, "CMYK": 3, "YCbCr": 3,
}  # fmt: skip
"""By Pillow's modes of 8 bits a channel, without that of transparency."""

_ORIENTATION, _TURNED = 0x0112, {5, 6, 7, 8}
"""The field of EXIF, and its values by which height and width are exchanged."""

_MAX_BYTES = 2**30
"""Of all pixels of a part: on a device they take four times as much."""

_MAX_PIXELS = 2**26
"""Of one picture, before it is resized."""


def read_folder(folder: Folder, reading: Reading) -> RawParts:
    """The pixels of a folder's pictures, uint8 [N, H, W] or [N, 3, H, W], and their classes.

    Raises:
        TellsTooLittle: the pictures have several sizes, and `reading` says none.
        FormatError: a picture is malformed, a folder has something else or nothing, the parts
            disagree, or Pillow is not installed.
    """
    if reading.has_columns:
        raise FormatError("it is no table, so no column of it has a name")
    parts = _parts(folder)
    shape = _shape([picture for part in parts for picture in part.pictures], reading.images)
    classes = parts[0].labels.classes()
    (y, *test_y) = (part.labels.numbers(classes) for part in parts)
    (x, *test_x) = (_pixels(part.pictures, shape) for part in parts)
    return RawParts(
        x,
        y,
        test_x[0] if test_x else None,
        test_y[0] if test_y else None,
        class_names=classes,
    )


def summary(folder: Folder) -> Summary:
    """What can be said of pictures of several sizes.

    Raises:
        FormatError: a picture cannot be read.
    """
    digest, num_rows, parts = hashlib.sha256(), 0, _parts(folder)
    for picture in (picture for part in parts for picture in part.pictures):
        with picture.path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{picture.name}\n{content}\n".encode())
        num_rows += 1
    return Summary(digest.hexdigest(), num_rows, 1, len(parts) > 1)


class _Picture(NamedTuple):
    path: Path
    name: str
    """With those of its folders."""


class _Part(NamedTuple):
    pictures: list[_Picture]
    labels: Labels


def _parts(folder: Folder) -> list[_Part]:
    """The train part, and the test part where there is one."""
    if not {_TRAIN, _TEST} & set(folder.folders):
        return [_part(folder, "")]
    if _TRAIN not in folder.folders:
        raise FormatError("there is no folder train")
    names = [name for name in (_TRAIN, _TEST) if name in folder.folders]
    return [_part(folder.folder(name), f"{name}/") for name in names]


def _part(folder: Folder, prefix: str) -> _Part:
    pictures, labels = [], Labels("class")
    for label in folder.folders:
        inner, name = folder.folder(label), f"{prefix}{label}"
        found = [file for file in inner.names if not file.startswith(".")]
        if not found:
            raise FormatError(f"the folder {name} has no pictures")
        for file in found:
            if not file.lower().endswith(_ENDINGS):
                raise FormatError(f"{name}/{file} is no picture: it is not called *.png or *.jpg")
            pictures.append(_Picture(inner.file(file), f"{name}/{file}"))
            labels.add(label, f"the folder {name}")
    if not pictures:
        raise FormatError(f"the folder {prefix.removesuffix('/')} has no folders of pictures")
    return _Part(pictures, labels)


def _shape(pictures: Sequence[_Picture], wanted: Images | None) -> tuple[int, int, int]:
    """Channels, height and width that all pictures are to have."""
    wanted = wanted or Images()
    size, channels = None, 1
    for picture in pictures:
        with _opened(picture) as image:
            channels = max(channels, _CHANNELS[image.mode])
            is_turned = image.getexif().get(_ORIENTATION) in _TURNED
            width, height = image.size[::-1] if is_turned else image.size
        if wanted.height is None and size not in (None, (height, width)):
            raise TellsTooLittle(
                f"{picture.name} has {height}×{width} pixels, {pictures[0].name} "
                f"{size[0]}×{size[1]}: task.images of the study says to which height and width "
                "they are resized"
            )
        size = height, width
    assert size is not None
    height, width = wanted.height or size[0], wanted.width or size[1]
    return wanted.channels or channels, height, width


def _pixels(pictures: Sequence[_Picture], shape: tuple[int, int, int]) -> Array:
    """Those of pictures made to be of that shape, uint8 [N, H, W] or [N, 3, H, W]."""
    from PIL import ImageOps

    channels, height, width = shape
    if len(pictures) * math.prod(shape) > _MAX_BYTES:
        raise FormatError(
            f"{len(pictures)} pictures of {height}×{width} pixels are too many: task.images of "
            "the study can make them smaller"
        )
    x_NHWC = np.empty((len(pictures), height, width, channels), np.uint8)
    for x_HWC, picture in zip(x_NHWC, pictures, strict=True):
        with _opened(picture) as image:
            ImageOps.exif_transpose(image, in_place=True)
            made = image.convert("L" if channels == 1 else "RGB")
            if made.size != (width, height):
                made = made.resize((width, height))
            x_HWC[:] = np.asarray(made).reshape(x_HWC.shape)
    return x_NHWC[..., 0] if channels == 1 else np.ascontiguousarray(x_NHWC.transpose(0, 3, 1, 2))


@contextmanager
def _opened(picture: _Picture) -> Iterator[Image.Image]:
    """A picture, whose pixels are read when they are asked for.

    Raises:
        FormatError: within the block too, it cannot be read.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as exc:
        raise not_installed(picture.name, "Pillow") from exc
    try:
        with (
            open(picture.path, "rb", opener=regular) as file,
            Image.open(file, formats=("PNG", "JPEG")) as image,
        ):
            if math.prod(image.size) > _MAX_PIXELS:
                raise FormatError(f"{picture.name} has more than {_MAX_PIXELS} pixels")
            if image.mode not in _CHANNELS:
                raise FormatError(
                    f"{picture.name} has pixels of the mode {image.mode}; those of 8 bits a "
                    "channel can be read"
                )
            yield image
    except FormatError:
        raise
    except UnidentifiedImageError as exc:  # whose text has the path
        raise FormatError(f"{picture.name} is no PNG or JPEG file") from exc
    except Exception as exc:  # Pillow promises nothing of malformed files
        raise FormatError(f"{picture.name} is no whole picture: {exc}") from exc
