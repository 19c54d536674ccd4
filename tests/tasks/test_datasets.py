"""Data sets by name: cards, loading, fingerprints."""

from __future__ import annotations

import gzip
import logging
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import joblib  # type: ignore[import-untyped]
import numpy as np
import pytest

from ridgeline.search.tasks import datasets
from ridgeline.search.tasks.data import Dataset, DatasetCard, DatasetError
from ridgeline.search.tasks.data_root import DataRoot, Folders
from ridgeline.search.tasks.datasets import built_in_cards, load
from ridgeline.search.tasks.kinds import Classes, Image, Numbers, Vector
from tests.tasks.idx_files import encode, toy_arrays, write, write_folder
from tests.tasks.real_data import needs_real_data, real_root


def cards(data_root: Path | None) -> list[DatasetCard]:
    """All data sets of a machine, by name."""
    found = built_in_cards() + DataRoot(data_root).look().cards
    return sorted(found, key=lambda card: card.name)


def test_built_in_cards() -> None:
    # The fingerprints are pinned: were the rule or scikit-learn's data to change, workers of
    # different versions would no longer be given the same study.
    assert cards(None) == [
        DatasetCard(
            name="breast-cancer",
            fingerprint="25403a88388d26629ce2b396230f671cbcea15a57554c52d7c905e4209b1adff",
            num_rows=569,
            num_features=30,
            num_classes=2,
            has_test_part=False,
            smallest_class=212,
            features=Vector(30),
            targets=Classes(2),
            rarest_class="malignant",
            files="other",
        ),
        DatasetCard(
            name="diabetes",
            fingerprint="1a757f745b6b1a3771799e21d4fedd9068f95adefb1fd5c5742671036a166a8b",
            num_rows=442,
            num_features=10,
            num_classes=None,
            has_test_part=False,
            smallest_class=None,
            features=Vector(10),
            targets=Numbers(1),
            files="other",
        ),
        DatasetCard(
            name="digits",
            fingerprint="9d742638fd7c2d0fd97020cbdd6878d0c1ecba986d76ebfcf471a81ce29ecf85",
            num_rows=1797,
            num_features=64,
            num_classes=10,
            has_test_part=False,
            smallest_class=174,
            features=Image(1, 8, 8),
            targets=Classes(10),
            rarest_class="8",
            files="other",
        ),
        DatasetCard(
            name="wine",
            fingerprint="007d9ba935c13ddd483807b4d455f0f606cbb8dc0a1bd0696586a0370a317a81",
            num_rows=178,
            num_features=13,
            num_classes=3,
            has_test_part=False,
            smallest_class=48,
            features=Vector(13),
            targets=Classes(3),
            rarest_class="class_2",
            files="other",
        ),
    ]


def test_built_in_data_is_read_once_and_cannot_be_changed() -> None:
    digits = load("digits", None)
    assert load("digits", None) is digits
    assert digits.y.dtype == np.int64
    for array in (digits.x, digits.y):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


@pytest.fixture
def cache_of_scikit_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file in which scikit-learn would keep what it has downloaded, and which is not there."""
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "cache"))
    datasets._built_in.cache_clear()
    yield tmp_path / "cache" / "cal_housing_py3.pkz"
    datasets._built_in.cache_clear()


def test_what_scikit_learn_has_downloaded_is_a_data_set(cache_of_scikit_learn: Path) -> None:
    assert "california-housing" not in {card.name for card in cards(None)}
    with pytest.raises(DatasetError, match="there is no data set california-housing"):
        load("california-housing", None)
    assert not cache_of_scikit_learn.parent.exists()

    generator = np.random.Generator(np.random.PCG64(0))
    cache_of_scikit_learn.parent.mkdir()
    joblib.dump(generator.uniform(1, 1e6, (40, 9)), cache_of_scikit_learn, compress=6)
    card = {card.name: card for card in cards(None)}["california-housing"]
    assert (card.num_rows, card.features, card.targets) == (40, Vector(8), Numbers(1))
    assert replace(load("california-housing", None).card, files="other") == card


def test_a_damaged_download_is_left_out(
    cache_of_scikit_learn: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache_of_scikit_learn.parent.mkdir()
    joblib.dump(np.ones((40, 9)), cache_of_scikit_learn, compress=6)
    cache_of_scikit_learn.write_bytes(cache_of_scikit_learn.read_bytes()[:-20])
    assert "california-housing" not in {card.name for card in cards(None)}
    (message,) = caplog.messages
    assert "california-housing: cal_housing_py3.pkz of scikit-learn cannot be read" in message


def test_a_folder_may_have_the_name_of_what_was_not_downloaded(
    tmp_path: Path, cache_of_scikit_learn: Path
) -> None:
    write_folder(tmp_path / "root" / "california-housing")
    assert [card.name for card in DataRoot(tmp_path / "root").look().cards] == [
        "california-housing"
    ]
    assert load("california-housing", tmp_path / "root").targets == Classes(3)
    cache_of_scikit_learn.parent.mkdir()
    joblib.dump(np.ones((40, 9)), cache_of_scikit_learn)
    left_out = DataRoot(tmp_path / "root").look().left_out
    assert "has the name of a built-in" in left_out["california-housing"]


def test_folders_of_the_root_are_data_sets(tmp_path: Path) -> None:
    write_folder(tmp_path / "toy", suffix=".gz")
    write_folder(tmp_path / "alone", test_part=False)
    found = {card.name: card for card in cards(tmp_path)}
    assert list(found) == ["alone", "breast-cancer", "diabetes", "digits", "toy", "wine"]
    toy = load("toy", tmp_path)
    assert replace(toy.card, files="other") == found["toy"]
    assert (toy.card.num_rows, toy.card.num_features, toy.card.num_classes) == (90, 12, 3)
    assert toy.card.has_test_part
    assert not found["alone"].has_test_part
    assert found["alone"].num_rows == 60


def test_broken_folders_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_folder(tmp_path / "good")
    write_folder(tmp_path / "truncated")
    path = tmp_path / "truncated" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-5])
    write_folder(tmp_path / "bad name")
    write_folder(tmp_path / "digits")
    write_folder(tmp_path / ".hidden")
    (tmp_path / "empty").mkdir()
    (tmp_path / "README.md").write_text("not a folder")
    write_folder(tmp_path.parent / f"{tmp_path.name}-outside")
    (tmp_path / "leak").symlink_to(tmp_path.parent / f"{tmp_path.name}-outside")
    with caplog.at_level(logging.WARNING):
        names = [card.name for card in cards(tmp_path)]
    assert names == ["breast-cancer", "diabetes", "digits", "good", "wine"]
    warned = "\n".join(caplog.messages)
    assert len(caplog.messages) == 5
    assert "data set truncated: train-images-idx3-ubyte" in warned
    assert "'bad name' is not the name" in warned
    assert "the folder digits has the name of a built-in" in warned
    assert "data set empty: there are no files" in warned
    assert "data set leak: its folder is a link that leads out" in warned


def test_each_look_reads_only_what_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read: list[str] = []

    def noted(name: str, data_root: Path | None) -> Dataset:
        read.append(name)
        return load(name, data_root)

    monkeypatch.setattr(datasets, "load", noted)
    write_folder(tmp_path / "one")
    write_folder(tmp_path / "two")
    (tmp_path / "empty").mkdir()
    root = DataRoot(tmp_path)
    first = root.look()
    assert root.look() == first
    assert read == ["empty", "one", "two"]
    assert len(caplog.messages) == 1, "why a folder is left out is logged once"

    read.clear()
    write_folder(tmp_path / "empty", num_rows=45)
    write_folder(tmp_path / "two", num_rows=30)
    shutil.rmtree(tmp_path / "one")
    second = root.look()
    assert read == ["empty", "two"]
    assert [card.name for card in second.cards] == ["empty", "two"]
    assert second.left_out == {}
    assert second.cards[1].fingerprint != first.cards[1].fingerprint


class SlowReading:
    """A folder whose reading takes until `go_on`."""

    def __init__(self, slow: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._slow = slow
        self.read: list[str] = []
        self.has_begun, self._may_end = threading.Event(), threading.Event()
        monkeypatch.setattr(datasets, "load", self._load)

    def go_on(self) -> None:
        self._may_end.set()

    def _load(self, name: str, data_root: Path | None) -> Dataset:
        self.read.append(name)
        if name == self._slow:
            self.has_begun.set()
            assert self._may_end.wait(60)
        return load(name, data_root)


def test_a_folder_that_takes_long_to_be_read_keeps_no_other_look_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names(found: Folders) -> list[str]:
        return [card.name for card in found.cards]

    write_folder(tmp_path / "known")
    root = DataRoot(tmp_path)
    root.look()
    slow = SlowReading("large", monkeypatch)
    write_folder(tmp_path / "large")
    with ThreadPoolExecutor() as threads:
        first = threads.submit(root.look)
        assert slow.has_begun.wait(60)
        write_folder(tmp_path / "small")
        meanwhile = root.look(patience_seconds=0)
        assert names(meanwhile) == ["known", "small"]
        assert meanwhile.left_out == {"large": "it is not read yet: ask again in a while"}
        assert names(root.look(only=["small"])) == ["known", "small"]
        waits = threads.submit(root.look, only=["large"])
        slow.go_on()
        for each in (first, waits):
            assert "large" in names(each.result(60))
    assert sorted(slow.read) == ["large", "small"], "each is read once"


def test_only_the_folders_that_are_asked_for_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "one")
    write_folder(tmp_path / "two")
    slow = SlowReading("", monkeypatch)
    root = DataRoot(tmp_path)
    found = root.look(only=["two", "three"])
    assert ([card.name for card in found.cards], list(found.left_out)) == (["two"], ["one"])
    assert slow.read == ["two"]
    root.look()
    shutil.rmtree(tmp_path / "two")
    assert [card.name for card in root.look(only=[]).cards] == ["one"]


def test_root_that_is_not_there_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = DataRoot(tmp_path / "absent")
    for _ in range(2):
        assert root.look().cards == []
    (warning,) = caplog.messages
    assert "data root cannot be read" in warning
    write_folder(tmp_path / "absent" / "toy")
    assert [card.name for card in root.look().cards] == ["toy"]


@pytest.mark.parametrize(
    "name",
    [
        *("../secret", "..", ".", "toy/../../secret", "/etc", "a\\b", "%2e%2e", "toy\0", "toy\n"),
        *("", "_", "a.b", "é", "x" * 101),
    ],
)
def test_paths_and_other_tricks_are_no_names(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path / "secret")
    write_folder(tmp_path / "root" / "toy")
    with pytest.raises(DatasetError, match="is not the name of a data set"):
        load(name, tmp_path / "root")


def test_absolute_path_is_no_name(tmp_path: Path) -> None:
    write_folder(tmp_path / "secret")
    with pytest.raises(DatasetError, match="is not the name of a data set"):
        load(str(tmp_path / "secret"), tmp_path)


def test_unknown_names_say_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"breast-cancer, diabetes, digits, wine, .*RIDGELINE_DATA_ROOT\) is not"
    ):
        load("mnist", None)
    with pytest.raises(DatasetError, match="no folder of that name"):
        load("mnist", tmp_path)


def test_a_malformed_folder_says_what_is_wrong(tmp_path: Path) -> None:
    write_folder(tmp_path / "toy")
    write(tmp_path / "toy" / "train-labels-idx1-ubyte", b"no")
    with pytest.raises(DatasetError, match="data set toy: train-labels-idx1-ubyte is not an IDX"):
        load("toy", tmp_path)


def test_classes_are_numbered_by_their_labels(tmp_path: Path) -> None:
    images, labels = toy_arrays()
    odd_labels = np.array([-1, 5, 26], np.int32)[labels]
    write(tmp_path / "letters" / "train-images", encode(images))
    write(tmp_path / "letters" / "train-labels", encode(odd_labels))
    write(tmp_path / "plain" / "train-images", encode(images))
    write(tmp_path / "plain" / "train-labels", encode(labels))
    letters = load("letters", tmp_path)
    assert letters.targets == Classes(3)
    np.testing.assert_array_equal(letters.y, labels)
    assert letters.fingerprint == load("plain", tmp_path).fingerprint


def test_test_label_out_of_range_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "toy")
    labels = np.full(30, 1, np.uint8)
    labels[7] = 200
    write(tmp_path / "toy" / "t10k-labels-idx1-ubyte", encode(labels))
    with pytest.raises(DatasetError, match="test label 200 is out of range"):
        load("toy", tmp_path)


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path / "toy", test_part=False)
    write(tmp_path / "toy" / "train-labels-idx1-ubyte", encode(np.full(60, 4, np.uint8)))
    with pytest.raises(DatasetError, match="all rows have the label 4"):
        load("toy", tmp_path)


def test_fingerprint_is_of_the_numbers_not_of_the_files(tmp_path: Path) -> None:
    write_folder(tmp_path / "plain")
    write_folder(tmp_path / "zipped", suffix=".gz")
    write_folder(tmp_path / "rezipped", suffix=".gz")
    for path in (tmp_path / "rezipped").iterdir():
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1, mtime=7))
    names = ("plain", "zipped", "rezipped")
    assert len({load(name, tmp_path).fingerprint for name in names}) == 1


def test_fingerprint_changes_with_every_part_shape_and_type(tmp_path: Path) -> None:
    write_folder(tmp_path / "whole")
    seen = {load("whole", tmp_path).fingerprint}

    def variant(name: str, file: str, array: np.ndarray) -> None:
        shutil.copytree(tmp_path / "whole", tmp_path / name)
        write(tmp_path / name / file, encode(array))
        fingerprint = load(name, tmp_path).fingerprint
        assert fingerprint not in seen
        seen.add(fingerprint)

    images, labels = toy_arrays()
    changed = images.copy()
    changed[-1, -1, -1] ^= 1
    variant("x", "train-images-idx3-ubyte", changed)
    variant("y", "train-labels-idx1-ubyte", np.roll(labels, 1))
    test_images, test_labels = toy_arrays(30, seed=1)
    variant("test-x", "t10k-images-idx3-ubyte", test_images + np.uint8(1))
    variant("test-y", "t10k-labels-idx1-ubyte", np.roll(test_labels, 1))
    for name, shape, dtype in (("flat", (-1, 12), np.uint8), ("typed", (-1, 4, 3), np.int16)):
        write(tmp_path / name / "train-images", encode(images.reshape(shape).astype(dtype)))
        write(tmp_path / name / "train-labels", encode(labels))
        write(tmp_path / name / "test-images", encode(test_images.reshape(shape).astype(dtype)))
        write(tmp_path / name / "test-labels", encode(test_labels))
        assert load(name, tmp_path).fingerprint not in seen
    write_folder(tmp_path / "train-only", test_part=False)
    assert load("train-only", tmp_path).fingerprint not in seen


def test_neither_scikit_learn_nor_torch_is_imported_with_the_module() -> None:
    code = (
        "import sys, ridgeline.search.tasks.splits; print({'sklearn', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@needs_real_data
def test_real_mnist() -> None:
    mnist = load("mnist", real_root())
    assert mnist.x.shape == (60_000, 28, 28)
    assert mnist.x.dtype == np.uint8
    assert mnist.test_y is not None
    assert np.bincount(mnist.test_y).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    assert mnist.fingerprint == "811f2b0b5ebe79331e3095e5697551bde91e68dcd24a9affc1eab1221270b9ad"
