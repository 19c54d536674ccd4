"""Texts as vectors: which tokens have a feature, what it holds, and of which rows it is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from ridgeline.search.tasks.any_settings import settings_of
from ridgeline.search.tasks.base import DataChoice
from ridgeline.search.tasks.data import Dataset, UnfitDataset
from ridgeline.search.tasks.datasets import load
from ridgeline.search.tasks.formats.text import tokens_of
from ridgeline.search.tasks.kinds import PADDING, UNKNOWN, Classes, Image, Tokens, Vector
from ridgeline.search.tasks.registry import task_named
from ridgeline.search.tasks.settings import Bag, Split
from ridgeline.search.tasks.splits import prepare, split_column, split_fingerprint
from tests.tasks.real_data import needs_real_data, real_messages
from tests.tasks.table_files import texts, write_texts

SPLIT = Split(seed=2)


@pytest.mark.parametrize(
    ("weights", "vectorizer"), [("tfidf", TfidfVectorizer), ("counts", CountVectorizer)]
)
def test_they_are_as_scikit_learn_would_make_them(
    tmp_path: Path, weights: Any, vectorizer: Any
) -> None:
    write_texts(tmp_path / "one")
    dataset = load("one", tmp_path)
    parts, rows = prepare(dataset, SPLIT, Bag(weights=weights)), split_column(dataset, SPLIT)
    raw = np.array([text for _, text in texts(60, 60)], object)
    other = vectorizer(analyzer=tokens_of, min_df=2).fit(raw[rows.train])
    given = [raw[rows.train], raw[rows.validation], [text for _, text in texts(30, 30)]]
    wanted = [other.transform(part).toarray() for part in given]
    found = [x for x, _ in (parts.train, parts.validation, parts.test)]
    assert len(other.vocabulary_) <= found[0].shape[1] == parts.features.shape[0]
    for found_ND, wanted_ND in zip(found, wanted, strict=True):
        assert found_ND.dtype == np.float32
        # Whatever the order of the features.
        np.testing.assert_allclose(
            found_ND @ found[0].T, wanted_ND @ wanted[0].T, rtol=1e-5, atol=1e-6
        )


def dataset_of(x: np.ndarray, vocabulary_size: int = 20) -> Dataset:
    tokens = Tokens(x.shape[1], vocabulary_size)
    y = np.arange(len(x)) % 2
    return Dataset.of("one", x, y, features=tokens, targets=Classes(2))


def rows_of_nothing() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Forty texts without tokens, and the numbers of training and of validation rows."""
    x = np.full((40, 4), PADDING)
    rows = split_column(dataset_of(x.copy()), SPLIT)
    return x, rows.train, rows.validation


def test_tokens_of_the_most_training_rows_are_the_vocabulary() -> None:
    x, train, validation = rows_of_nothing()
    x[train[:3], 0] = 7  # in three rows
    x[train[3:5], 1] = 9  # in two, and so is 8, which comes later
    x[train[5:7], 2] = 8
    x[train[8], :] = 6  # often, but in one row
    x[train[9:], 3] = UNKNOWN
    x[validation, 3] = 10
    x[validation[0]] = [9, 9, 7, 8]
    for vocabulary, wanted in ((1, [1]), (2, [1, 2]), (3, [1, 2, 1])):
        bag = Bag(weights="counts", vocabulary=vocabulary)
        parts = prepare(dataset_of(x.copy()), SPLIT, bag)
        assert parts.features == Vector(vocabulary)
        assert parts.validation[0][0].tolist() == wanted
        assert not parts.validation[0][1:].any()
    wide = prepare(dataset_of(x), SPLIT, Bag(weights="counts"))
    assert wide.features == Vector(18)
    assert not wide.train[0][:, 3:].any()


@pytest.mark.parametrize("weights", ["tfidf", "counts"])
def test_a_vocabulary_of_nothing_is_zeros(weights: Any) -> None:
    parts = prepare(dataset_of(rows_of_nothing()[0], 2), SPLIT, Bag(weights=weights))
    assert parts.features == Vector(1)
    assert not parts.train[0].any()


@pytest.mark.parametrize("weights", ["tfidf", "counts"])
def test_rows_outside_of_training_change_no_training_value(tmp_path: Path, weights: Any) -> None:
    write_texts(tmp_path / "one", test_part=False)
    dataset, bag = load("one", tmp_path), Bag(weights=weights, vocabulary=4)
    rows = split_column(dataset, SPLIT)
    held_out = np.concatenate([rows.validation, rows.test])
    x = dataset.x.copy()
    x[held_out] = 5
    changed = Dataset.of("one", x, dataset.y, features=dataset.features, targets=dataset.targets)
    before, after = (prepare(one, SPLIT, bag).train[0] for one in (dataset, changed))
    assert before.any()
    assert before.tobytes() == after.tobytes()


def test_each_bag_has_a_fingerprint() -> None:
    dataset = dataset_of(rows_of_nothing()[0])
    bags = None, Bag(), Bag(weights="counts"), Bag(vocabulary=7)
    found = [split_fingerprint(dataset, SPLIT, bag) for bag in bags]
    assert len(set(found)) == len(bags)
    assert [prepare(dataset, SPLIT, bag).fingerprint for bag in bags] == found


def test_a_bag_that_takes_too_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ridgeline.search.tasks.bags._MAX_CELLS", 99)
    with pytest.raises(
        UnfitDataset, match=r"24 texts by 18 tokens .*: at most 99; lower task\.bag"
    ):
        prepare(dataset_of(rows_of_nothing()[0]), Split(validation=0.25), Bag())


@pytest.mark.parametrize("name", ["mlp", "linear"])
def test_a_task_of_vectors_takes_texts_in_a_bag(name: str) -> None:
    task: Any = task_named(name)
    bags: list[dict[str, Any]] = [
        {},
        {"bag": {}},
        {"bag": {"weights": "counts", "vocabulary": 5}},
    ]
    settings = [settings_of({"name": name, "dataset": "one", **more}) for more in bags]
    plain, bag, small = settings
    tokens, classes = Tokens(9, 100), Classes(2)
    assert task.misfit(plain, tokens, classes) == (
        f"its features are tokens, but the task {name} needs image or vector: set task.bag to make "
        "vectors of its texts"
    )
    assert task.misfit(bag, tokens, classes) is None
    assert task.data(bag).features(tokens) == Vector(98)
    assert task.data(small).features(tokens) == Vector(5)
    assert task.data(plain) == DataChoice("one", Split())
    for features in (Vector(3), Image(1, 2, 2)):
        assert task.misfit(plain, features, classes) is None
        assert "but task.bag is for texts" in task.misfit(bag, features, classes)


@needs_real_data
def test_real_messages(tmp_path: Path) -> None:
    parts = prepare(real_messages(tmp_path), Split(), Bag())
    x, _ = parts.train
    assert x.shape == (3568, 2000)
    assert np.allclose(np.linalg.norm(x, axis=1)[x.any(axis=1)], 1, atol=1e-5)
