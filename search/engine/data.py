"""A data set on the device, once.

# N samples, D features
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ridgeline.search.engine.config import ModelShape

Arrays = tuple[npt.NDArray[Any], npt.NDArray[Any]]


@dataclass(frozen=True)
class Split:
    """One part of a data set: `x` float [N, D], `y` int64 [N] in 0 … num_classes - 1."""

    x: Tensor
    y: Tensor

    @property
    def num_samples(self) -> int:
        """The number of rows."""
        return len(self.y)


@dataclass(frozen=True)
class DeviceData:
    """Train, validation and test data as tensors of one device and one float dtype."""

    train: Split
    validation: Split
    test: Split
    num_classes: int

    @classmethod
    def from_arrays(
        cls,
        train: Arrays,
        validation: Arrays,
        test: Arrays,
        *,
        num_classes: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> DeviceData:
        """Copy (x, y) pairs of numpy arrays to the device.

        Args:
            train, validation, test: x numeric [N, D] with the same D, y whole numbers [N].

        Raises:
            ValueError: for an empty part, shapes that do not fit, values that are not finite, or
                labels outside 0 … num_classes - 1.
        """
        parts = {"train": train, "validation": validation, "test": test}
        for name, (x, y) in parts.items():
            _check_part(name, x, y, train[0].shape[1:], num_classes)
        splits = {
            name: Split(
                # torch.tensor copies, so a read-only or memory-mapped array will do.
                x=torch.tensor(np.ascontiguousarray(x), dtype=dtype, device=device),
                y=torch.tensor(np.ascontiguousarray(y), dtype=torch.int64, device=device),
            )
            for name, (x, y) in parts.items()
        }
        return cls(**splits, num_classes=num_classes)

    def check(self, shape: ModelShape) -> None:
        """Raise a ValueError where the shape's features or classes are not these data's."""
        if shape.num_features != self.num_features:
            raise ValueError(f"num_features is {shape.num_features}, data: {self.num_features}")
        if shape.num_classes != self.num_classes:
            raise ValueError(f"num_classes is {shape.num_classes}, data: {self.num_classes}")

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return self.train.x.device

    @property
    def dtype(self) -> torch.dtype:
        """The float dtype of every `x`, in which runs on this data compute."""
        return self.train.x.dtype

    @property
    def num_features(self) -> int:
        """The number of columns of every `x`."""
        return self.train.x.shape[1]


def _check_part(
    name: str,
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    feature_shape: tuple[int, ...],
    num_classes: int,
) -> None:
    if x.ndim != 2 or y.ndim != 1 or len(x) != len(y) or x.shape[1:] != feature_shape:
        raise ValueError(f"{name}: x {x.shape} and y {y.shape} do not fit, or not the other parts")
    if len(x) == 0:
        raise ValueError(f"{name}: has no samples")
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= num_classes:
        raise ValueError(f"{name}: labels must be whole numbers from 0 to {num_classes - 1}")
    if not np.isfinite(x).all():
        raise ValueError(f"{name}: x has values that are not finite")
