"""The reader of arrays: what it reads, and how it refuses everything else."""

from __future__ import annotations

import io
import pickle
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ridgeline.search.tasks.datasets import load
from ridgeline.search.tasks.formats.base import FormatError
from ridgeline.search.tasks.formats.reading import read_folder
from ridgeline.search.tasks.kinds import Classes, Image, Numbers, Vector
from tests.tasks.table_files import write_npz


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["u1", "i4", "f2", "f4", "f8", ">f4", ">i8", "?"])
@pytest.mark.parametrize("shape", [(7, 2), (7, 3, 4), (7, 3, 4, 2)])
def test_reads_what_numpy_wrote(
    tmp_path: Path, save: Any, dtype: str, shape: tuple[int, ...]
) -> None:
    x = (np.arange(np.prod(shape)) % 100).astype(dtype).reshape(shape)
    for order in (x, np.asfortranarray(x)):
        save(tmp_path / "train.npz", x=order, y=np.arange(7))
        found = read_folder(tmp_path, tmp_path)
        np.testing.assert_array_equal(found.x, x)
        assert found.x.dtype == x.dtype.newbyteorder("=")
        assert found.x.flags.c_contiguous
        np.testing.assert_array_equal(found.y, np.arange(7))
        assert (found.test_x, found.test_y, found.targets) == (None, None, "classes")


def test_a_folder_of_arrays_is_a_data_set(tmp_path: Path) -> None:
    write_npz(tmp_path / "colours")
    write_npz(tmp_path / "rows", kind="numbers")
    colours, rows = load("colours", tmp_path), load("rows", tmp_path)
    assert (colours.features, colours.targets) == (Image(3, 4, 3), Classes(3))
    assert (rows.features, rows.targets) == (Vector(3), Numbers(2))
    assert colours.test_x is not None
    assert (rows.card.num_classes, rows.card.smallest_class) == (None, None)
    assert rows.card.num_rows == 90


@pytest.mark.parametrize(
    ("y", "targets"),
    [
        (np.array(["red", "blue", "red", "blue"]), Classes(2)),
        (np.array([b"red", b"blue", b"red", b"blue"]), Classes(2)),
        (np.array([True, False, True, False]), Classes(2)),
        (np.array([-1, 1, 1, -1]), Classes(2)),
        (np.array([1.0, 2.0, 2.0, 1.0]), Numbers(1)),
    ],
)
def test_the_type_of_y_says_what_is_learned(tmp_path: Path, y: np.ndarray, targets: Any) -> None:
    (tmp_path / "one").mkdir()
    np.savez(tmp_path / "one" / "train.npz", x=np.ones((4, 2)), y=y)
    assert load("one", tmp_path).targets == targets


X, Y = np.ones((4, 2)), np.arange(4)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"x": X}, "train.npz: there is no array y; the file has x.npy"),
        ({"a": X, "y": Y}, "there is no array x"),
        ({"x": X, "y": Y[:3]}, "x has 4 rows and y 3"),
        ({"x": X[:, 0], "y": Y}, "x must have rows of features"),
        ({"x": X[:0], "y": Y[:0]}, "x is empty"),
        ({"x": X[:, :0], "y": Y}, "x is empty"),
        ({"x": np.where(np.eye(4) == 1, np.nan, 0), "y": Y}, "x contains NaN or infinity"),
        ({"x": X, "y": np.array([0.5, np.inf, 1, 2])}, "y contains NaN or infinity"),
        ({"x": X, "y": np.ones((4, 2), int)}, r"y has the shape \(4, 2\)"),
        ({"x": X, "y": np.ones((4, 0))}, r"y has the shape \(4, 0\)"),
        ({"x": X, "y": np.float64(3)}, "x has 4 rows and y 1"),
        ({"x": X.astype("c8"), "y": Y}, "x is of the type complex64"),
        ({"x": X.astype("g"), "y": Y}, "x is of the type"),
        ({"x": X.astype(str), "y": Y}, "x must be numbers"),
        ({"x": X, "y": np.array([""] * 4)}, "all rows have|type <U0"),
        ({"x": X, "y": np.array([{}, 1, 2, 3], object)}, "y is of the type object"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, arrays: dict[str, Any], reason: str
) -> None:
    (tmp_path / "one").mkdir()
    np.savez(tmp_path / "one" / "train.npz", **arrays)
    with pytest.raises(ValueError, match=reason) as caught:
        load("one", tmp_path)
    assert str(tmp_path) not in str(caught.value)


def test_parts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", x=X, y=Y)
    for x, y, reason in (
        (np.ones((4, 3)), Y, "x of test.npz has rows of shape"),
        (X, Y / 2, "y of test.npz is not like that of train.npz"),
    ):
        np.savez(tmp_path / "test.npz", x=x, y=y)
        with pytest.raises(FormatError, match=reason):
            read_folder(tmp_path, tmp_path)
    (tmp_path / "train.npz").unlink()
    with pytest.raises(FormatError, match=r"there is no train\.npz"):
        read_folder(tmp_path, tmp_path)


class _Code:
    """Makes a folder where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.mkdir, (self._path,))


def test_no_object_is_unpickled(tmp_path: Path) -> None:
    trap = tmp_path / "run"
    np.savez(tmp_path / "train.npz", x=X, y=np.array([_Code(trap)] * 4, object))
    with pytest.raises(FormatError, match="type object"):
        read_folder(tmp_path, tmp_path)
    (tmp_path / "train.npz").write_bytes(pickle.dumps(_Code(trap)))
    with pytest.raises(FormatError, match=r"train\.npz is not a whole \.npz file"):
        read_folder(tmp_path, tmp_path)
    assert not trap.exists()


def header_of(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<f8", "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()


def archive(path: Path, x: bytes, method: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("x.npy", x)
        stream = io.BytesIO()
        np.save(stream, Y)
        file.writestr("y.npy", stream.getvalue())


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (b"", "x is not an array"),
        (b"label,pixel\n", "x is not an array"),
        (header_of((4, 2)) + bytes(63), "x is not as long as its header says"),
        (header_of((4, 2)) + bytes(65), "x is not as long as its header says"),
        (header_of((2**40, 2**40)) + bytes(64), "x is not as long as its header says"),
        (b"\x93NUMPY\x07\x00" + header_of((4, 2))[8:], r"version \(7, 0\)"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535, "x is not an array"),
    ],
)
def test_malformed_arrays_cost_no_memory(tmp_path: Path, x: bytes, reason: str) -> None:
    archive(tmp_path / "train.npz", x)
    tracemalloc.start()
    with pytest.raises(FormatError, match=reason):
        read_folder(tmp_path, tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * 2**20


def test_files_that_are_damaged_are_refused(tmp_path: Path) -> None:
    archive(tmp_path / "train.npz", header_of((4, 2)) + np.ones(8).tobytes(), zipfile.ZIP_STORED)
    whole = (tmp_path / "train.npz").read_bytes()
    assert read_folder(tmp_path, tmp_path).x.sum() == 8
    flipped = bytearray(whole)
    flipped[200] ^= 1  # among the numbers
    for content in (whole[:-30], whole[: len(whole) // 2], bytes(flipped), b""):
        (tmp_path / "train.npz").write_bytes(content)
        with pytest.raises(FormatError, match=r"train\.npz"):
            read_folder(tmp_path, tmp_path)


def test_a_size_beyond_any_compression_is_not_believed(tmp_path: Path) -> None:
    archive(tmp_path / "train.npz", header_of((4, 2)) + bytes(64), zipfile.ZIP_STORED)
    content = (tmp_path / "train.npz").read_bytes()
    length = (len(header_of((4, 2))) + 64).to_bytes(4, "little")
    forged = content.replace(length * 2, length + (2**31).to_bytes(4, "little"))
    assert forged != content
    (tmp_path / "train.npz").write_bytes(forged)
    with pytest.raises(FormatError, match="more tightly than is possible"):
        read_folder(tmp_path, tmp_path)


def test_links_out_of_the_root_are_refused(tmp_path: Path) -> None:
    write_npz(tmp_path / "secret")
    (tmp_path / "root" / "toy").mkdir(parents=True)
    (tmp_path / "root" / "toy" / "train.npz").symlink_to(tmp_path / "secret" / "train.npz")
    with pytest.raises(FormatError, match="leads out of the data root"):
        read_folder(tmp_path / "root" / "toy", tmp_path / "root")
