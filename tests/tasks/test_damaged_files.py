"""Data sets whose files are damaged: each is refused by itself, whatever the damage is."""

from __future__ import annotations

import gzip
import io
import os
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy

from ridgeline.search.tasks.data import DatasetError
from ridgeline.search.tasks.data_root import DataRoot
from ridgeline.search.tasks.datasets import load
from tests.tasks.idx_files import encode, header, toy_arrays, write, write_folder
from tests.tasks.picture_files import write_pictures
from tests.tasks.table_files import (
    write_data_labels,
    write_mixed,
    write_npz,
    write_parquet,
    write_table,
    write_text_table,
    write_texts,
)

NUM_MUTATIONS = 60
"""Of each kind of file."""


def zipped(folder: Path, compression: int) -> None:
    images, labels = toy_arrays(12)
    folder.mkdir()
    with zipfile.ZipFile(folder / "train.npz", "w", compression) as archive:
        for name, array in (("x", images), ("y", labels)):
            content = io.BytesIO()
            np.save(content, array)
            archive.writestr(f"{name}.npy", content.getvalue())


WRITERS: dict[str, Callable[[Path], None]] = {
    "idx": lambda folder: write_folder(folder, test_part=False, num_rows=12),
    "idx gzipped": lambda folder: write_folder(folder, suffix=".gz", num_rows=12),
    "npz stored": lambda folder: zipped(folder, zipfile.ZIP_STORED),
    "npz deflated": lambda folder: write_npz(folder),
    "npz bzip2": lambda folder: zipped(folder, zipfile.ZIP_BZIP2),
    "npz lzma": lambda folder: zipped(folder, zipfile.ZIP_LZMA),
    "npz of numbers": lambda folder: write_npz(folder, kind="numbers", test_part=False),
    "table of numbers": write_table,
    "table of classes": lambda folder: write_table(folder, column="class"),
    "table with categories": write_mixed,
    "data and labels": write_data_labels,
    "table in parquet": write_parquet,
    "texts": write_texts,
    "table of texts": write_text_table,
}


def mutated(content: bytes, chance: random.Random) -> bytes:
    """A few bytes are changed, taken out or doubled; most often near an end, where headers are."""
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 8])):
        near = min(len(changed), 200)
        at = chance.choice([
            chance.randrange(near), len(changed) - 1 - chance.randrange(near),
            chance.randrange(len(changed)),
        ])  # fmt: skip
        match chance.randrange(4):
            case 0:
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                changed[at] = chance.randrange(256)
            case 2:
                del changed[at : at + chance.choice([1, 4, 1_000])]
            case 3:
                changed[at:at] = changed[at : at + chance.choice([1, 4, 100])]
        if not changed:
            break
    return bytes(changed)


@pytest.mark.parametrize("kind", [*WRITERS, "pictures"])
def test_nothing_but_a_dataset_error_comes_of_damage(tmp_path: Path, kind: str) -> None:
    {**WRITERS, "pictures": write_pictures}[kind](tmp_path / "one")
    load("one", tmp_path)
    chance = random.Random(kind)
    refused: list[str] = []
    files = sorted(path for path in (tmp_path / "one").rglob("*") if path.is_file())
    whole = {path: path.read_bytes() for path in files}
    for mutation in range(NUM_MUTATIONS):
        path = chance.choice(list(whole))
        path.write_bytes(mutated(whole[path], chance))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python's parser and numpy warn of odd headers
                load("one", tmp_path)
        except DatasetError as exc:
            refused.append(str(exc))
        except Exception as exc:
            pytest.fail(f"mutation {mutation} of {path.name}: {exc!r}")
        path.write_bytes(whole[path])
    assert refused
    assert max(map(len, refused)) < 1_000
    assert not any(str(tmp_path) in reason for reason in refused)


def npz(x_header: str, x: bytes = bytes(160)) -> bytes:
    """An archive whose x has this text as its header."""
    text = x_header.encode("latin1")
    x_npy = npy.magic(1, 0) + struct.pack("<H", len(text) + 1) + text + b"\n" + x
    y_npy = io.BytesIO()
    np.save(y_npy, np.arange(2))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", x_npy)
        archive.writestr("y.npy", y_npy.getvalue())
    return file.getvalue()


def npz_of_shape(shape: str) -> bytes:
    return npz(f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}")


def damaged_version() -> bytes:
    content = bytearray(npz_of_shape("(2, 10)"))
    content[content.index(b"PK\1\2") + 6] = 200  # the version needed to unpack
    return bytes(content)


def damaged_lzma(folder: Path) -> bytes:
    zipped(folder / "lzma", zipfile.ZIP_LZMA)
    content = bytearray((folder / "lzma" / "train.npz").read_bytes())
    content[60:80] = b"\xff" * 20
    (folder / "lzma" / "train.npz").unlink()
    (folder / "lzma").rmdir()
    return bytes(content)


HEADERS = {
    "cut short": "{'descr': '<f8', 'fortran_order': (",
    "many signs": "-" * 9_000 + "1",
    "many brackets": "(" * 9_000,
    "indented": "  1\n 2",
    "mixed keys": "{1: 2, 'a': 3}",
    "null": "\0",
    "number of many digits": "9" * 9_000,
}
SHAPES = {
    "71 dimensions": "(" + "1, " * 70 + "20)",
    "negative": "(-2, -10)",
    "flag": "(20, True)",
    "huge": "(0, 9" + "9" * 30 + ")",
    "zero and huge": f"(0, {2**63})",
}


@pytest.mark.parametrize(
    "content",
    [
        *(pytest.param(npz(text), id=f"header {name}") for name, text in HEADERS.items()),
        *(pytest.param(npz_of_shape(text), id=f"shape {name}") for name, text in SHAPES.items()),
        pytest.param(damaged_version(), id="version of the archive"),
    ],
)
def test_an_odd_archive_is_left_out_alone(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "odd" / "train.npz", content)
    assert_left_out_alone(tmp_path)


def test_damaged_lzma_is_left_out_alone(tmp_path: Path) -> None:
    write(tmp_path / "odd" / "train.npz", damaged_lzma(tmp_path))
    assert_left_out_alone(tmp_path)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_an_odd_idx_file_is_left_out_alone(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    most = 2**32 - 1
    images = header(0x08, (0, most, most, most, most, most, most, most))
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "train-images").write_bytes(pack(images))
    (tmp_path / "odd" / "train-labels").write_bytes(encode(np.zeros(0, np.uint8)))
    assert_left_out_alone(tmp_path)


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_pipe_is_no_file(
    tmp_path: Path, kind: str, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    WRITERS[kind](tmp_path / "odd")
    path = min((tmp_path / "odd").glob("*train*"))
    path.unlink()
    os.mkfifo(path)
    if not at_once:  # it was a file when it was looked for
        monkeypatch.setattr(Path, "is_file", lambda path: True)
    with pytest.raises(DatasetError, match=f"{path.name} .*is not a file"):
        load("odd", tmp_path)


def test_a_link_that_leads_nowhere_is_passed_over_alone(tmp_path: Path) -> None:
    write_folder(tmp_path / "sound")
    (tmp_path / "long").symlink_to("x" * 300)
    (tmp_path / "circle").symlink_to("circle")
    found = DataRoot(tmp_path).look()
    assert ([card.name for card in found.cards], found.left_out) == (["sound"], {})
    with pytest.raises(DatasetError, match="has no folder of that name"):
        load("long", tmp_path)


def assert_left_out_alone(root: Path) -> None:
    """Of the folder `odd`, while sound ones are seen, be they there before it or later."""
    write_folder(root / "sound")
    looking = DataRoot(root)
    found = looking.look()
    assert [card.name for card in found.cards] == ["sound"]
    (reason,) = found.left_out.values()
    assert reason.startswith("data set odd: ")
    assert len(reason) < 500
    write_folder(root / "later")
    assert [card.name for card in looking.look().cards] == ["later", "sound"]
    with pytest.raises(DatasetError, match="data set odd"):
        load("odd", root)
