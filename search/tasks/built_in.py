"""The data sets of scikit-learn, which is imported when one of them is read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ridgeline.search.tasks.formats.base import RawParts


def _digits() -> RawParts:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return RawParts(digits.images, digits.target, None, None)


def _breast_cancer() -> RawParts:
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer()
    names = found.target_names.tolist()
    return RawParts(found.data, found.target, None, None, class_names=names)


def _diabetes() -> RawParts:
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True, scaled=False)
    return RawParts(x, y, None, None, targets="numbers")


def _wine() -> RawParts:
    from sklearn.datasets import load_wine

    found = load_wine()
    names = found.target_names.tolist()
    return RawParts(found.data, found.target, None, None, class_names=names)


BUILT_IN: dict[str, Callable[[], RawParts]] = {
    "breast-cancer": _breast_cancer,
    "diabetes": _diabetes,
    "digits": _digits,
    "wine": _wine,
}
"""Data sets that scikit-learn's wheel carries."""


def _california_housing() -> RawParts:
    from sklearn.datasets import fetch_california_housing

    x, y = fetch_california_housing(return_X_y=True, download_if_missing=False)
    return RawParts(x, y, None, None, targets="numbers")


DOWNLOADED: dict[str, tuple[str, Callable[[], RawParts]]] = {
    "california-housing": ("cal_housing_py3.pkz", _california_housing),
}
"""Data sets that are there where somebody had scikit-learn download them: the names of its files,
and what reads them.  Nothing is ever downloaded from here."""


def is_downloaded(name: str) -> bool:
    """Whether a name is that of one of them that is here."""
    # Not scikit-learn's `get_data_home`, which makes the folder.
    home = Path(os.environ.get("SCIKIT_LEARN_DATA", "~/scikit_learn_data"))
    return name in DOWNLOADED and os.path.isfile(os.path.expanduser(home / DOWNLOADED[name][0]))
