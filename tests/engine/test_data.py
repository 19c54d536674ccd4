"""Data on the device: samples of any shape, classes or numbers, and what tells them apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ridgeline.search.engine import DeviceData, Mlp
from ridgeline.search.engine.losses import LOSSES, Targets
from tests.engine.sets import CPU


def make(x: Any, y: Any, num_classes: int | None = 2, **others: Any) -> DeviceData:
    parts = [(x, y)] * 3
    return DeviceData.from_arrays(*parts, num_classes=num_classes, device=CPU, **others)


LABELS = np.array([0, 1, 0, 1])


@pytest.mark.parametrize("shape", [(3,), (1, 4, 5), (2, 3)])
def test_samples_have_any_shape(shape: tuple[int, ...]) -> None:
    data = make(np.ones((4, *shape), dtype=np.uint8), LABELS, dtype=torch.float64)
    assert data.sample_shape == shape
    assert data.train.x.dtype == data.dtype == torch.float64
    assert not data.are_ids
    assert data.targets == Targets.classes(2)


def test_samples_can_be_of_another_shape() -> None:
    images = make(np.arange(48).reshape(4, 3, 2, 2), LABELS)
    flat = images.shaped((12,))
    assert flat.sample_shape == (12,)
    assert flat.train.x.data_ptr() == images.train.x.data_ptr()
    assert torch.equal(flat.shaped((3, 2, 2)).test.x, images.test.x)
    assert flat.fingerprint == images.fingerprint
    assert images.shaped((3, 2, 2)) is images
    with pytest.raises(ValueError, match=r"of shape \(13,\), the data's are \(3, 2, 2\)"):
        images.shaped((13,))


def test_ids_stay_whole_numbers() -> None:
    data = make(np.arange(12).reshape(4, 3), LABELS, are_ids=True)
    assert (data.train.x.dtype, data.dtype) == (torch.int64, torch.float32)
    assert data.are_ids
    with pytest.raises(ValueError, match="samples of numbers, the data's are ids"):
        data.check(Mlp(3, (), 2), LOSSES["cross_entropy"])


def test_numbers_can_be_learned() -> None:
    data = make(np.ones((4, 3)), np.array([[0.5, -2], [1, 3], [0, 0], [1, 1]]), num_classes=None)
    assert data.targets == Targets("numbers", 2, -2.0, 3.0)
    assert data.train.y.dtype == torch.float32
    data.check(Mlp(3, (), 2), LOSSES["mean_squared_error"])
    with pytest.raises(ValueError, match="needs classes"):
        data.check(Mlp(3, (), 2), LOSSES["cross_entropy"])


def test_numbers_that_cannot_be_used_are_refused() -> None:
    x = np.ones((4, 3))
    with pytest.raises(ValueError, match="train: y has values that are not finite"):
        make(x, np.full((4, 1), np.inf), num_classes=None)
    with pytest.raises(ValueError, match="do not fit"):
        make(x, np.ones(4), num_classes=None)


def test_a_fingerprint_is_of_contents_and_split() -> None:
    x, y = np.arange(12.0).reshape(4, 3), LABELS
    first = make(x, y)
    assert make(x.copy(), y.copy()).fingerprint == first.fingerprint
    changed, moved = x.copy(), y.copy()
    changed[3, 2] = np.nextafter(changed[3, 2], 99)
    moved[[0, 1]] = moved[[1, 0]]
    divided = DeviceData.from_arrays((x, y), (x[:2], y[:2]), (x, y), num_classes=2, device=CPU)
    others = [make(changed, y), make(x, moved), divided, make(x.reshape(4, 1, 3), y)]
    assert len({data.fingerprint for data in (first, *others)}) == 5
    assert make(x, y, fingerprint="digits").fingerprint == "digits"
