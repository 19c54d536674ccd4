"""Folders of pictures by class: sizes, channels, parts, and what is no picture."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from ridgeline.search.tasks.any_settings import settings_of
from ridgeline.search.tasks.data import DatasetError, UnfitDataset
from ridgeline.search.tasks.data_root import DataRoot
from ridgeline.search.tasks.datasets import card_of, load
from ridgeline.search.tasks.kinds import Classes, Image
from ridgeline.search.tasks.registry import task_of
from ridgeline.search.tasks.settings import Images, Reading, Split
from ridgeline.search.tasks.splits import prepare
from tests.tasks.idx_files import toy_arrays
from tests.tasks.picture_files import write_picture, write_pictures

GREY = np.arange(20, dtype=np.uint8).reshape(4, 5) * 10
COLOURS = np.stack([GREY, 255 - GREY, GREY // 2], axis=2)


def write_two(folder: Path, first: np.ndarray = GREY, second: np.ndarray = GREY) -> None:
    write_picture(folder / "cat" / "1.png", first)
    write_picture(folder / "dog" / "1.png", second)


@pytest.mark.parametrize("colours", [False, True])
@pytest.mark.parametrize("test_part", [False, True])
def test_pictures_are_what_was_written(tmp_path: Path, colours: bool, test_part: bool) -> None:
    write_pictures(tmp_path / "toys", colours=colours, test_part=test_part)
    toys = load("toys", tmp_path)
    images, labels = toy_arrays(60)
    order = np.argsort(labels, kind="stable")  # folder by folder
    images, labels = images[order], labels[order]
    wanted = np.stack([images, images // 2, 255 - images], axis=1) if colours else images
    np.testing.assert_array_equal(toys.x, wanted)
    np.testing.assert_array_equal(toys.y, labels)
    assert toys.features == Image(3 if colours else 1, 4, 3)
    assert (toys.targets, toys.has_test_part) == (Classes(3), test_part)
    assert np.isfinite(prepare(toys, Split()).train[0]).all()


def test_jpegs_are_pictures_too(tmp_path: Path) -> None:
    flat = np.full((8, 8, 3), (200, 30, 90), np.uint8)
    write_picture(tmp_path / "one" / "a" / "1.JPG", flat, quality=95)
    write_picture(tmp_path / "one" / "b" / "1.jpeg", flat, quality=95)
    one = load("one", tmp_path)
    np.testing.assert_allclose(one.x.mean(axis=(0, 2, 3)), [200, 30, 90], atol=3)


def test_a_picture_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6  # a quarter to the right
    write_picture(tmp_path / "one" / "a" / "1.png", GREY, exif=exif)
    write_picture(tmp_path / "one" / "b" / "1.png", np.rot90(GREY, -1).copy())
    one = load("one", tmp_path)
    assert one.features == Image(1, 5, 4)
    np.testing.assert_array_equal(one.x[0], one.x[1])


def test_one_picture_with_colours_gives_all_of_them_channels(tmp_path: Path) -> None:
    write_two(tmp_path / "mixed", GREY, COLOURS)
    mixed = load("mixed", tmp_path)
    np.testing.assert_array_equal(mixed.x[0], np.stack([GREY] * 3))
    np.testing.assert_array_equal(mixed.x[1], COLOURS.transpose(2, 0, 1))
    grey = load("mixed", tmp_path, Reading(images=Images(channels=1)))
    assert grey.features == Image(1, 4, 5)
    np.testing.assert_array_equal(grey.x[0], GREY)
    assert grey.named_as == mixed.fingerprint


@pytest.mark.parametrize("mode", ["1", "LA", "P", "RGBA", "CMYK"])
def test_pictures_of_all_modes_of_eight_bits(tmp_path: Path, mode: str) -> None:
    (tmp_path / "one" / "b").mkdir(parents=True)
    suffix = "jpg" if mode == "CMYK" else "png"
    Pillow.fromarray(COLOURS).convert(mode).save(tmp_path / "one" / "b" / f"1.{suffix}")
    write_picture(tmp_path / "one" / "a" / "1.png", GREY)
    assert load("one", tmp_path).features == Image(1 if mode in ("1", "LA") else 3, 4, 5)


def test_pictures_of_several_sizes_are_resized_as_a_study_says(tmp_path: Path) -> None:
    write_two(tmp_path / "pets", GREY, np.full((9, 7), 100, np.uint8))
    card = card_of("pets", tmp_path)
    assert (card.num_rows, card.features, card.has_test_part) == (2, None, False)
    assert card.needs == (
        "data set pets: dog/1.png has 9×7 pixels, cat/1.png 4×5: task.images of the study says to "
        "which height and width they are resized"
    )
    with pytest.raises(UnfitDataset, match=r"dog/1\.png has 9×7 pixels"):
        load("pets", tmp_path)
    pets = load("pets", tmp_path, Reading(images=Images(height=6, width=3)))
    assert pets.features == Image(1, 6, 3)
    assert (pets.x[1] == 100).all()
    assert pets.named_as == card.fingerprint
    # As the picture changes, so does what studies are tied to.
    write_picture(tmp_path / "pets" / "dog" / "1.png", np.full((9, 7), 101, np.uint8))
    assert card_of("pets", tmp_path).fingerprint != card.fingerprint


def test_a_study_says_what_pictures_are_made_to_be() -> None:
    settings = settings_of(
        {"name": "cnn", "dataset": "pets", "images": {"height": 8, "width": 6, "channels": 3}}
    )
    choice = task_of(settings).data(settings)
    assert choice is not None
    assert choice.features(Image(1, 100, 200)) == Image(3, 8, 6)
    assert choice.reading == Reading(images=Images(height=8, width=6, channels=3))
    for half in ({"height": 8}, {"width": 8}):
        with pytest.raises(ValueError, match="height and width are given together"):
            settings_of({"name": "cnn", "dataset": "pets", "images": half})


def test_a_new_picture_shows(tmp_path: Path) -> None:
    write_pictures(tmp_path / "toys", test_part=True)
    root = DataRoot(tmp_path)
    (before,) = root.look().cards
    write_picture(tmp_path / "toys" / "train" / "red" / "new.png", np.zeros((4, 3), np.uint8))
    (after,) = root.look().cards
    assert after.num_rows == before.num_rows + 1


def sixteen_bits(path: Path) -> None:
    Pillow.fromarray(np.full((4, 5), 40_000, np.uint16)).save(path)


def huge(path: Path) -> None:
    """A header alone."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 9_000, 9_000, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
        + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    )  # fmt: skip


def cut_short(path: Path) -> None:
    chance = np.random.Generator(np.random.PCG64(0))
    whole = write_picture(path, chance.integers(0, 256, (90, 90), dtype=np.uint8)).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda path: path.write_bytes(b""), r"cat/2\.png is no PNG or JPEG file"),
        (lambda path: path.write_bytes(b"GIF89a..."), r"cat/2\.png is no PNG or JPEG file"),
        (cut_short, r"cat/2\.png is no whole picture: "),
        (sixteen_bits, r"cat/2\.png has pixels of the mode I;16; those of 8 bits"),
        (huge, r"cat/2\.png has more than 67108864 pixels"),
        (lambda path: path.mkdir(), r"2\.png is a folder"),
        (os.mkfifo, r"2\.png is not a file"),
        (lambda path: path.symlink_to("/etc/hostname"), r"2\.png is a link that leads out"),
        (lambda path: (path.parent / "notes.txt").touch(), r"cat/notes\.txt is no picture"),
        (lambda path: (path.parents[1] / "cow").mkdir(), "the folder cow has no pictures"),
        (lambda path: (path.parents[1] / "test").mkdir(), "there is no folder train"),
        (
            lambda path: (path.parents[1] / "train").mkdir(),
            "the folder train has no folders of pictures",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_is_no_picture_is_named(tmp_path: Path, write: object, reason: str) -> None:
    write_two(tmp_path / "pets", *(np.zeros((90, 90), np.uint8) for _ in range(2)))
    assert callable(write)
    write(tmp_path / "pets" / "cat" / "2.png")
    with pytest.raises(DatasetError, match=f"^data set pets: {reason}") as caught:
        load("pets", tmp_path)
    assert str(tmp_path) not in str(caught.value)


def test_one_class_and_unknown_classes_are_refused(tmp_path: Path) -> None:
    write_picture(tmp_path / "one" / "cat" / "1.png", GREY)
    with pytest.raises(DatasetError, match="all rows have the class 'cat'"):
        load("one", tmp_path)
    write_two(tmp_path / "two" / "train")
    write_picture(tmp_path / "two" / "test" / "cow" / "1.png", GREY)
    with pytest.raises(DatasetError, match="test class 'cow' is out of range"):
        load("two", tmp_path)


def test_a_class_of_one_picture_is_known_before_a_split(tmp_path: Path) -> None:
    write_two(tmp_path / "pets")
    assert load("pets", tmp_path).card.smallest_class == 1


def test_too_many_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_two(tmp_path / "pets")
    monkeypatch.setattr("ridgeline.search.tasks.formats.images._MAX_BYTES", 39)
    with pytest.raises(DatasetError, match="2 pictures of 4×5 pixels are too many"):
        load("pets", tmp_path)


def test_without_pillow_it_is_said_what_to_install(tmp_path: Path) -> None:
    write_two(tmp_path / "pets")
    program = f"""
import sys
from pathlib import Path
sys.modules["PIL"] = None
from ridgeline.search.tasks.data_root import DataRoot
print(DataRoot(Path({str(tmp_path)!r})).look().left_out["pets"])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == (
        "data set pets: cat/1.png needs Pillow, which is not installed; "
        'pip install "ridgeline[data]" brings it\n'
    )
