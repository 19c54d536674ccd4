"""A data set on the device, once.

# N samples, C numbers to learn of each
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ridgeline.search.engine.losses import Loss, Targets, asked_metric
from ridgeline.search.engine.models.base import Model

Arrays = tuple[npt.NDArray[Any], npt.NDArray[Any]]


@dataclass(frozen=True)
class Split:
    """One part of a data set.

    `x` are samples of any shape, [N, …]: float, or int64 such as ids of tokens.  `y` are what is to
    be learned, see `Targets`: classes, int64 [N], or numbers, float [N, C].
    """

    x: Tensor
    y: Tensor

    @property
    def num_samples(self) -> int:
        """The number of rows."""
        return len(self.y)

    @cached_property
    def variance(self) -> float:
        """Of its targets, the mean over all that there are of a sample; waits for the device."""
        return float(self.y.double().var(dim=0, unbiased=False).mean())

    def class_counts(self, count: int) -> list[int]:
        """The number of rows of each of so many classes; waits for the device."""
        counts: list[int] = torch.bincount(self.y, minlength=count).tolist()
        return counts


@dataclass(frozen=True)
class DeviceData:
    """Train, validation and test data as tensors of one device.

    Attributes:
        dtype: the float dtype in which runs on these data compute, and of every float tensor.
        fingerprint: equal for equal data that are divided alike, and for no others.
        class_names: as messages call the classes; None: by their numbers.
        trains_on_validation: whether the validation rows are among the training rows.
    """

    train: Split
    validation: Split
    test: Split
    targets: Targets
    dtype: torch.dtype
    fingerprint: str
    class_names: tuple[str, ...] | None = None
    trains_on_validation: bool = False

    @classmethod
    def from_arrays(
        cls,
        train: Arrays,
        validation: Arrays,
        test: Arrays,
        *,
        num_classes: int | None,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        are_ids: bool = False,
        unit: float = 1.0,
        fingerprint: str | None = None,
        class_names: Sequence[str] | None = None,
        trains_on_validation: bool = False,
    ) -> DeviceData:
        """Copy (x, y) pairs of numpy arrays to the device.

        Args:
            train, validation, test: x numeric [N, …] of one sample shape; y whole numbers [N], or
                numbers [N, C] with the same C.
            num_classes: None where y are numbers.
            are_ids: whether x are whole numbers that name something, such as tokens.
            unit: see `Targets`; where y are numbers.
            fingerprint: of data and split; None makes one of the arrays.
            class_names: see above.
            trains_on_validation: whether the rows of validation are among those of train.

        Raises:
            ValueError: for an empty part, shapes that do not fit, values that are not finite, or
                labels outside 0 … num_classes - 1.
        """
        parts = {"train": train, "validation": validation, "test": test}
        for name, (x, y) in parts.items():
            _check_part(name, x, y, train, num_classes)

        # torch.tensor copies, so a read-only or memory-mapped array will do.
        def on_device(array: npt.NDArray[Any], dtype: torch.dtype) -> Tensor:
            return torch.tensor(np.ascontiguousarray(array), dtype=dtype, device=device)

        x_dtype = torch.int64 if are_ids else dtype
        y_dtype = dtype if num_classes is None else torch.int64
        splits = {
            name: Split(on_device(x, x_dtype), on_device(y, y_dtype))
            for name, (x, y) in parts.items()
        }
        if num_classes is None:
            of_all = [split.y for split in splits.values()]
            low, high = min(float(y.min()) for y in of_all), max(float(y.max()) for y in of_all)
            targets = Targets("numbers", train[1].shape[1], low, high, unit)
        else:
            targets = Targets.classes(num_classes)
        return cls(
            **splits,
            targets=targets,
            dtype=dtype,
            fingerprint=fingerprint or _fingerprint(parts),
            class_names=None if class_names is None else tuple(class_names),
            trains_on_validation=trains_on_validation,
        )

    def class_called(self, number: int) -> str:
        """A class as messages call it."""
        return str(number) if self.class_names is None else self.class_names[number]

    @cached_property
    def train_sample(self) -> Split:
        """Training rows at even distances, as many as there are validation rows, or all of them.

        What weights score on these beside what they score on as many others is their
        generalisation gap.  On the device; the rows are copied when they are first asked for.
        """
        count, of = min(self.validation.num_samples, self.train.num_samples), len(self.train.y)
        if count == of:
            return self.train
        rows_N = torch.arange(count, device=self.device) * of // count
        return Split(self.train.x[rows_N], self.train.y[rows_N])

    def shaped(self, sample_shape: tuple[int, ...]) -> DeviceData:
        """The same numbers, with samples of another shape.

        Raises:
            ValueError: samples of that shape have more numbers, or fewer.
        """
        if sample_shape == self.sample_shape:
            return self
        if math.prod(sample_shape) != math.prod(self.sample_shape):
            raise ValueError(self._other_shape(sample_shape))
        train, validation, test = (
            Split(part.x.view(-1, *sample_shape), part.y)
            for part in (self.train, self.validation, self.test)
        )
        return replace(self, train=train, validation=validation, test=test)

    def check(self, model: Model, loss: Loss) -> None:
        """Raise a ValueError where the model or the loss is not one for these data."""
        if model.takes_ids != self.are_ids:
            wanted, there = ("ids", "numbers") if model.takes_ids else ("numbers", "ids")
            raise ValueError(f"the model is for samples of {wanted}, the data's are {there}")
        if model.sample_shape != self.sample_shape:
            raise ValueError(self._other_shape(model.sample_shape))
        loss.check(self.targets, model.num_outputs)

    def check_monitor(self, loss: Loss, monitor: str) -> None:
        """Raise a ValueError where no run on these data can be judged so; waits for the device."""
        metric = asked_metric(loss, monitor)
        needs_two_rows = monitor in {f"validation_{name}" for name in loss.need_two_rows}
        for name, part in (("validation", self.validation), ("test", self.test)):
            if needs_two_rows and part.num_samples < 2:
                raise ValueError(
                    f"{monitor} needs two rows or more, of which targets can vary: there is one "
                    f"{name} row"
                )
            if metric is None or not metric.needs_every_class:
                continue
            if 0 in (counts := part.class_counts(self.targets.count)):
                raise ValueError(
                    f"{monitor} needs rows of every class: the {name} rows have none of class "
                    f"{self.class_called(counts.index(0))}"
                )

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return self.train.x.device

    @property
    def are_ids(self) -> bool:
        """Whether samples are ids rather than numbers."""
        return not self.train.x.is_floating_point()

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return tuple(self.train.x.shape[1:])

    def _other_shape(self, wanted: tuple[int, ...]) -> str:
        return f"the model is for samples of shape {wanted}, the data's are {self.sample_shape}"


def _check_part(
    name: str,
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    train: Arrays,
    num_classes: int | None,
) -> None:
    y_dimensions = 2 if num_classes is None else 1
    shapes_fit = x.shape[1:] == train[0].shape[1:] and y.shape[1:] == train[1].shape[1:]
    if x.ndim < 2 or y.ndim != y_dimensions or len(x) != len(y) or not shapes_fit:
        raise ValueError(f"{name}: x {x.shape} and y {y.shape} do not fit, or not the other parts")
    if len(x) == 0:
        raise ValueError(f"{name}: has no samples")
    if not np.isfinite(x).all():
        raise ValueError(f"{name}: x has values that are not finite")
    if num_classes is None:
        if not np.isfinite(y).all():
            raise ValueError(f"{name}: y has values that are not finite")
    elif not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= num_classes:
        raise ValueError(f"{name}: labels must be whole numbers from 0 to {num_classes - 1}")


def _fingerprint(parts: Mapping[str, Arrays]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, arrays in parts.items():
        for array in arrays:
            digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
