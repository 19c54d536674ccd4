"""The IDX reader: what it reads, and how it refuses everything else."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from ridgeline.search.tasks.formats.base import FormatError
from ridgeline.search.tasks.formats.idx import IdxError, read_idx
from ridgeline.search.tasks.formats.reading import read_folder
from tests.tasks.idx_files import encode, header, toy_arrays, write, write_folder


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("shape", [(7,), (5, 3), (2, 3, 4), (2, 1, 3, 2), (0, 4)])
def test_reads_what_was_written(
    tmp_path: Path, dtype: str, shape: tuple[int, ...], suffix: str
) -> None:
    array = (np.arange(np.prod(shape)) * 37 - 100).astype(dtype).reshape(shape)
    read = read_idx(write(tmp_path / f"numbers{suffix}", encode(array)))
    assert read.dtype == np.dtype(dtype)
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, array)


def test_reads_an_array_of_many_chunks(tmp_path: Path) -> None:
    array = np.arange(700_000, dtype=np.int32)
    read = read_idx(write(tmp_path / "numbers.gz", encode(array)))
    np.testing.assert_array_equal(read, array)


GOOD = encode(np.arange(24, dtype=np.uint8).reshape(6, 4))

MALFORMED = {
    "empty": (b"", "two zero bytes"),
    "wrong magic": (b"\x01" + GOOD[1:], "two zero bytes"),
    "text": (b"label,pixel\n0,1\n", "two zero bytes"),
    "unknown type": (bytes([0, 0, 0x0A, 2]) + GOOD[4:], "unknown number type 0x0A"),
    "no dimensions": (bytes([0, 0, 8, 0]) + GOOD[4:], "0 dimensions"),
    "too many dimensions": (bytes([0, 0, 8, 200]) + bytes(800), "200 dimensions"),
    "ends in the header": (GOOD[:9], "within its header"),
    "truncated": (GOOD[:-1], "too short|ends after"),
    "trailing bytes": (GOOD + b"\0", "longer"),
    "header says more": (header(8, (60_000, 28, 28)) + bytes(24), "too short|ends after"),
    "header says less": (header(8, (5, 4)) + bytes(24), "longer"),
    "header of absurd size": (header(14, (2**32 - 1,) * 8) + bytes(24), "too short"),
}


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_files_are_refused(tmp_path: Path, case: str, suffix: str) -> None:
    content, reason = MALFORMED[case]
    with pytest.raises(IdxError, match=reason) as caught:
        read_idx(write(tmp_path / f"numbers{suffix}", content))
    assert f"numbers{suffix}" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_gzip_that_is_cut_short_or_corrupt_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(GOOD, mtime=0)
    bad_checksum = whole[:-8] + bytes([whole[-8] ^ 1]) + whole[-7:]
    bad_content = whole[:12] + bytes([whole[12] ^ 0xFF]) + whole[13:]
    path = tmp_path / "numbers.gz"
    for content in (whole[: len(whole) // 2], whole[:-3], bad_checksum, bad_content, b""):
        path.write_bytes(content)
        with pytest.raises(IdxError, match=r"numbers\.gz"):
            read_idx(path)


def test_the_content_says_whether_a_file_is_gzipped(tmp_path: Path) -> None:
    (tmp_path / "numbers").write_bytes(gzip.compress(GOOD, mtime=0))
    (tmp_path / "numbers.gz").write_bytes(GOOD)
    for name in ("numbers", "numbers.gz"):
        np.testing.assert_array_equal(read_idx(tmp_path / name), np.arange(24).reshape(6, 4))
    (tmp_path / "twice.gz").write_bytes(gzip.compress(gzip.compress(GOOD)))
    with pytest.raises(IdxError, match="two zero bytes"):
        read_idx(tmp_path / "twice.gz")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IdxError, match="cannot be read: No such file"):
        read_idx(tmp_path / "absent")


def test_reads_a_folder(tmp_path: Path) -> None:
    write_folder(tmp_path / "toy", suffix=".gz")
    arrays = read_folder(tmp_path / "toy", tmp_path)
    images, labels = toy_arrays()
    np.testing.assert_array_equal(arrays.x, images)
    np.testing.assert_array_equal(arrays.y, labels)
    assert arrays.test_x is not None
    assert arrays.test_x.shape == (30, 4, 3)


def test_test_part_is_optional_and_may_be_called_test(tmp_path: Path) -> None:
    write_folder(tmp_path, test_part=False)
    assert read_folder(tmp_path, tmp_path).test_x is None
    images, labels = toy_arrays(9)
    write(tmp_path / "test-images.gz", encode(images))
    write(tmp_path / "test-labels.gz", encode(labels))
    assert read_folder(tmp_path, tmp_path).test_y is not None


def test_unpacked_file_beside_its_gz_is_one_file(tmp_path: Path) -> None:
    write_folder(tmp_path, suffix=".gz")
    write_folder(tmp_path)
    assert len(read_folder(tmp_path, tmp_path).y) == 60


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_folders_beside_the_files_are_passed_over(tmp_path: Path, suffix: str) -> None:
    """Kaggle's MNIST: train-images.idx3-ubyte, and train-images-idx3-ubyte/ with it once more."""
    write_folder(tmp_path / "mnist", suffix=suffix)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            file = tmp_path / "mnist" / f"{part}-{kind}-ubyte{suffix}"
            (tmp_path / "mnist" / f"{part}-{kind.replace('-', '.')}-ubyte").mkdir()
            if suffix:  # a folder is not the unpacked file
                file.with_suffix("").mkdir()
    assert len(read_folder(tmp_path / "mnist", tmp_path).y) == 60


def test_a_folder_in_place_of_a_file_is_told(tmp_path: Path) -> None:
    write_folder(tmp_path)
    file = tmp_path / "train-images-idx3-ubyte"
    file.unlink()
    write(file / file.name, encode(toy_arrays()[0]))
    with pytest.raises(FormatError, match="train-images-idx3-ubyte is a folder; put the file"):
        read_folder(tmp_path, tmp_path)


def test_two_candidates_for_one_file_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path)
    write(tmp_path / "test-images", encode(toy_arrays(9)[0]))
    with pytest.raises(FormatError, match=r"several files t10k-images.*test-images"):
        read_folder(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("train-images-idx3-ubyte", "train part has no file of images"),
        ("train-labels-idx1-ubyte", "train part has no file of labels"),
        ("t10k-images-idx3-ubyte", "test part has no file of images"),
        ("t10k-labels-idx1-ubyte", "test part has no file of labels"),
    ],
)
def test_half_a_part_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    write_folder(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FormatError, match=reason):
        read_folder(tmp_path, tmp_path)


def test_folder_without_idx_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(FormatError, match="no files train-images"):
        read_folder(tmp_path, tmp_path)
    with pytest.raises(FormatError, match="folder cannot be read"):
        read_folder(tmp_path / "absent", tmp_path)


IMAGES, LABELS = toy_arrays()
WITH_NAN = np.where(np.arange(60)[:, None] == 5, np.nan, np.ones((60, 3))).astype(np.float32)


@pytest.mark.parametrize(
    ("file", "array", "reason"),
    [
        ("train-labels-idx1-ubyte", LABELS[:-1], "60 images and 59 labels"),
        ("train-labels-idx1-ubyte", LABELS.reshape(60, 1), "one row of whole numbers"),
        ("train-labels-idx1-ubyte", LABELS.astype(np.float32), "one row of whole numbers"),
        ("train-images-idx3-ubyte", LABELS, "at least two dimensions"),
        ("train-images-idx3-ubyte", WITH_NAN, "NaN"),
        ("t10k-images-idx3-ubyte", IMAGES[:30, :2], "the test images are uint8 of shape"),
        ("t10k-images-idx3-ubyte", IMAGES[:30].astype(np.int32), "the test images are int32"),
        ("t10k-labels-idx1-ubyte", LABELS[:0], "30 images and 0 labels"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, file: str, array: np.ndarray, reason: str
) -> None:
    write_folder(tmp_path)
    write(tmp_path / file, encode(array))
    with pytest.raises(FormatError, match=reason):
        read_folder(tmp_path, tmp_path)


def test_empty_part_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train-images", encode(IMAGES[:0]))
    write(tmp_path / "train-labels", encode(LABELS[:0]))
    with pytest.raises(FormatError, match="train part is empty"):
        read_folder(tmp_path, tmp_path)


def test_links_out_of_the_root_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_folder(tmp_path / "secret")
    root.mkdir()
    (root / "leak").symlink_to(tmp_path / "secret")
    with pytest.raises(FormatError, match="leads out of the data root"):
        read_folder(root / "leak", root)

    write_folder(root / "toy")
    (root / "toy" / "train-images-idx3-ubyte").unlink()
    (root / "toy" / "train-images-idx3-ubyte").symlink_to(
        tmp_path / "secret" / "train-images-idx3-ubyte"
    )
    with pytest.raises(FormatError, match="leads out of the data root"):
        read_folder(root / "toy", root)


def test_links_within_the_root_and_a_linked_root_are_followed(tmp_path: Path) -> None:
    write_folder(tmp_path / "root" / "toy")
    (tmp_path / "root" / "again").symlink_to("toy")
    (tmp_path / "linked").symlink_to(tmp_path / "root")
    root = tmp_path / "linked"
    assert len(read_folder(root / "again", root).y) == 60


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    write_folder(tmp_path)
    target = tmp_path / "train-images-idx3-ubyte"
    target.unlink()
    os.mkfifo(target)
    with pytest.raises(FormatError, match="is not a file"):
        read_folder(tmp_path, tmp_path)
    target.unlink()
    target.symlink_to(target.name)
    with pytest.raises(FormatError, match="is not a file"):
        read_folder(tmp_path, tmp_path)
