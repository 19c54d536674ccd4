"""The data sets behind the tables, each small enough for thousands of runs in minutes.

Three come with scikit-learn.  The others are read from a folder with `mnist` (IDX files), `madelon`
(`.data` and `.labels`) and `sms-spam` (tab-separated text).

# N samples, D features
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn import datasets
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from ridgeline.search.engine import DeviceData
from ridgeline.search.tasks.formats.idx import read_idx

Arrays = tuple[npt.NDArray[Any], npt.NDArray[Any]]

_SEED = 0
_NUM_TEST = 16
"""The engine tests each run at its end, which no sampler sees: so, on next to nothing."""
_NUM_ROWS = 1_200
_NUM_WORDS = 300


def load(name: str, folder: Path, num_rows: int = _NUM_ROWS) -> DeviceData:
    """A data set of READERS: 60 % of its rows to train, 40 % to validate, features standardised.

    Args:
        num_rows: used at most, drawn without replacement.
    """
    x_ND, y_N = READERS[name](folder)
    rows = np.random.default_rng(_SEED).permutation(len(y_N))[:num_rows]
    x_ND, y_N = x_ND[rows], y_N[rows]
    train_x, rest_x, train_y, rest_y = train_test_split(
        x_ND, y_N, test_size=0.4, random_state=_SEED, stratify=y_N
    )
    scaler = StandardScaler().fit(train_x)
    train = scaler.transform(train_x), train_y
    validation = scaler.transform(rest_x), rest_y
    test = validation[0][:_NUM_TEST], validation[1][:_NUM_TEST]
    num_classes = int(y_N.max()) + 1
    return DeviceData.from_arrays(
        train, validation, test, num_classes=num_classes, device=torch.device("cpu")
    )


def _mnist(folder: Path) -> Arrays:
    images = read_idx(next((folder / "mnist").glob("train-images*")))
    labels = read_idx(next((folder / "mnist").glob("train-labels*")))
    x_ND = images[:, ::2, ::2].reshape(len(images), -1)
    return x_ND.astype(np.float64), labels.astype(np.int64)


def _madelon(folder: Path) -> Arrays:
    labels = np.loadtxt(folder / "madelon" / "madelon_train.labels")
    return np.loadtxt(folder / "madelon" / "madelon_train.data"), (labels > 0).astype(np.int64)


def _sms_spam(folder: Path) -> Arrays:
    text = (folder / "sms-spam" / "SMSSpamCollection").read_text("utf-8")
    rows = [line.split("\t", 1) for line in text.splitlines()]
    words = TfidfVectorizer(max_features=_NUM_WORDS).fit_transform([text for _, text in rows])
    return words.toarray(), np.array([label == "spam" for label, _ in rows]).astype(np.int64)


READERS: dict[str, Callable[[Path], Arrays]] = {
    "digits": lambda folder: datasets.load_digits(return_X_y=True),
    "breast-cancer": lambda folder: datasets.load_breast_cancer(return_X_y=True),
    "wine": lambda folder: datasets.load_wine(return_X_y=True),
    "mnist": _mnist,
    "madelon": _madelon,
    "sms-spam": _sms_spam,
}
