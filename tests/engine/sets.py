"""Small data sets and configurations for the engine's tests."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ridgeline.search.engine import DeviceData, Mlp, Pack, RunConfig
from ridgeline.search.engine.models.base import Model
from ridgeline.search.engine.spec import StepSpec

CPU = torch.device("cpu")


def blobs(
    *,
    num_train: int = 100,
    num_features: int = 6,
    num_classes: int = 3,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> DeviceData:
    """Overlapping clouds, one a class: learnable, but not to 100 %."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(num_classes, num_features))

    def part(num_samples: int) -> tuple[Any, Any]:
        y = generator.integers(0, num_classes, num_samples)
        return centres[y] + generator.normal(size=(num_samples, num_features)), y

    return DeviceData.from_arrays(
        part(num_train), part(57), part(43), num_classes=num_classes, device=CPU, dtype=dtype
    )


def samples(model: Model, *, num_train: int, dtype: torch.dtype) -> DeviceData:
    """Random samples that a model can be trained with, of as many classes as it has outputs."""
    generator = np.random.default_rng(0)

    def part(num_samples: int) -> tuple[Any, Any]:
        y = generator.integers(0, model.num_outputs, num_samples)
        return generator.normal(size=(num_samples, *model.sample_shape)), y

    return DeviceData.from_arrays(
        part(num_train), part(57), part(43), num_classes=model.num_outputs, device=CPU, dtype=dtype
    )


def on_device(data: DeviceData, device: torch.device) -> DeviceData:
    """The same data on another device."""
    if data.device == device:
        return data
    train, validation, test = (
        replace(part, x=part.x.to(device), y=part.y.to(device))
        for part in (data.train, data.validation, data.test)
    )
    return replace(data, train=train, validation=validation, test=test)


def shape_for(data: DeviceData, **changes: Any) -> Mlp:
    """A model of one hidden layer for the data, with changes."""
    settings: dict[str, Any] = {"hidden": (8,), **changes}
    return Mlp(
        num_features=math.prod(data.sample_shape), num_outputs=data.targets.count, **settings
    )


def config(**changes: Any) -> RunConfig:
    """A run of three epochs of Adam, with changes."""
    settings: dict[str, Any] = {
        "seed": 7,
        "learning_rate": 0.01,
        "batch_size": 16,
        "epochs": 3,
        **changes,
    }
    return RunConfig(**settings)


def step_spec(run_config: RunConfig, shape: Model, data: DeviceData) -> StepSpec:
    """The step that trains a run."""
    dtype = str(data.dtype).removeprefix("torch.")
    return StepSpec.of(run_config, shape, data.train.num_samples, dtype)


def fill(pack: Pack, slot: int, value: float) -> None:
    """Write a number into everything that training changes in a slot."""
    for stacks in pack._memory.state.values():
        for stretch in stacks.stretches_KR:
            stretch[slot] = value
