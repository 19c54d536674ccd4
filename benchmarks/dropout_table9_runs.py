"""The arms of the table: what each searches, the data they have, and their runs in the engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.engine_data import (
    NUM_CLASSES,
    NUM_TEST,
    Part,
    made,
    read_idx,
    read_mnist,
)
from ridgeline.search.engine import (
    Began,
    DeviceData,
    LaneOptions,
    Lanes,
    Mlp,
    Outcome,
    Over,
    Reported,
    RunConfig,
)

NUM_FEATURES = 784

PUBLISHED = {
    "none": None,
    "l2": 1.62,
    "l2+l1": 1.60,
    "max_norm": 1.35,
    "dropout+l2": 1.25,
    "dropout+max_norm": 1.05,
}
"""The arms, and the test error in % that table 9 tells of each; of `none` it tells nothing."""

RANGES = {
    "learning_rate": (2e-4, 4e-3),
    "l1": (0.01, 3.0),
    "l2": (0.1, 30.0),
    "max_norm": (0.6, 4.0),
}
"""What is searched, all of it logarithmically: the first by every arm, the others by name.

Penalties are the textbooks' λ, of λ/(2m)·Σ for m rows, so that one range is for any number of them.
"""

RATES = {"dropout": 0.5, "input_dropout": 0.2}
"""Those of the paper (appendix A.1), of all arms with dropout."""

SEARCH_SEED = 0
"""Of all runs that choose; the fresh ones count from 1."""


@dataclass(frozen=True)
class Size:
    """How much is trained.

    Attributes:
        train, validation: rows to choose by.
        joins: whether a winner is trained on the rows for validation too, as in the paper.
        configs: of each arm's search.
        search_epochs, epochs: of a run that chooses, and of one with a fresh seed.
        seeds: fresh ones, of each arm.
    """

    hidden: tuple[int, ...]
    train: int
    validation: int
    joins: bool
    batch_size: int
    configs: int
    search_epochs: int
    seeds: int
    epochs: int


def configurations(arm: str, size: Size) -> list[dict[str, float]]:
    """Of an arm's random search.

    Draws are stratified: of as many equal parts of a range as there are configurations each has
    one.  Arms that search the same parameter draw the same values, so no arm has luckier learning
    rates than another.
    """
    columns: dict[str, list[float]] = {}
    count = size.configs
    for i, (name, (low, high)) in enumerate(RANGES.items()):
        if name == "learning_rate" or name in arm.split("+"):
            generator = np.random.default_rng([SEARCH_SEED, i])
            shares = (generator.permutation(count) + generator.random(count)) / count
            unit = 1 / (2 * size.train) if name in ("l1", "l2") else 1.0
            columns[name] = (low * unit * (high / low) ** shares).tolist()
    rates = RATES if "dropout" in arm.split("+") else {}
    return [
        {**dict(zip(columns, values, strict=True)), **rates}
        for values in zip(*columns.values(), strict=True)
    ]


@dataclass(frozen=True)
class Parts:
    """MNIST, or data of its shape: rows to train on, to choose by, and the test images."""

    train: Part
    validation: Part
    test: Part

    @classmethod
    def read(cls, folder: Path | None, size: Size) -> Parts:
        """From IDX files; None makes data."""
        if folder is None:
            rows, test = made(NUM_FEATURES, size.train + size.validation, 4 * size.validation)
            validation = Part(rows.x_ND[size.train :], rows.y_N[size.train :])
            return cls(rows.first(size.train), validation, test)
        images, labels = (read_idx(folder, f"t10k-{name}") for name in _FILES)
        x_ND = images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
        test = Part(x_ND, labels.astype(np.int64))
        return cls(*read_mnist(folder, size.train, size.validation), test)

    def to_choose(self, device: torch.device) -> DeviceData:
        """Without the test images, which nothing may be chosen by."""
        return _on(device, self.train, self.validation, self.validation.first(NUM_TEST))

    def to_tell(self, device: torch.device, *, joins: bool) -> DeviceData:
        """With the test images to judge by.

        Args:
            joins: see `Size`.
        """
        rows = self.train
        if joins:
            rows = Part(
                np.concatenate([self.train.x_ND, self.validation.x_ND]),
                np.concatenate([self.train.y_N, self.validation.y_N]),
            )
        return _on(device, rows, self.validation.first(NUM_TEST), self.test)


class Trainer:
    """Trains runs of the table's perceptron, beside each other.

    Args:
        cache: of compiled kernels, on a CPU.
        deadline: of `time.monotonic`; None for no end.
    """

    def __init__(
        self,
        size: Size,
        device: torch.device,
        cache: Path,
        deadline: float | None,
        tell: Callable[[str], None],
    ) -> None:
        self._size, self._device, self._cache = size, device, cache
        self._deadline, self._tell = deadline, tell
        self._model = Mlp(NUM_FEATURES, size.hidden, NUM_CLASSES)

    def train(
        self, name: str, runs: Sequence[tuple[int, dict[str, float]]], data: DeviceData, epochs: int
    ) -> list[Outcome]:
        """What has become of runs of a seed and a configuration each.

        Raises:
            TimeoutError: the deadline passed before the last of them ended.
            RuntimeError: one failed.
        """
        on_cpu = self._device.type == "cpu"
        # On a GPU one pack of just these runs: a free slot would be computed, and taken back.
        options = LaneOptions(
            width=None if on_cpu else len(runs),
            compile=on_cpu,
            cache=self._cache if on_cpu else None,
            threads=torch.get_num_threads() if on_cpu else 1,
            save_seconds=None,
        )
        lanes = Lanes(self._device, options)
        for key, (seed, config) in enumerate(runs):
            lanes.add(key, self._config(seed, config, epochs), self._model, data)
        outcomes: dict[object, Outcome] = {}
        start = told = time.monotonic()
        num_done, num_epochs = 0, epochs * len(runs)
        while not lanes.is_idle:
            for event in lanes.advance():
                if isinstance(event, Over):
                    assert isinstance(event.outcome, Outcome)
                    outcomes[event.key] = event.outcome
                elif isinstance(event, Reported):
                    num_done += 1
                elif not isinstance(event, Began):
                    raise RuntimeError(f"a run went wrong: {event}")
            now = time.monotonic()
            if self._deadline is not None and now > self._deadline and not lanes.is_idle:
                raise TimeoutError(f"{name}: {num_done} of {num_epochs} epochs when time was up")
            if now - told > 10:
                told = now
                self._tell(f"{name}: {num_done} of {num_epochs} epochs in {now - start:.0f} s")
        self._tell(f"{name}: {num_epochs} epochs in {time.monotonic() - start:.1f} s")
        return [outcomes[key] for key in range(len(runs))]

    def _config(self, seed: int, config: dict[str, Any], epochs: int) -> RunConfig:
        batch_size = self._size.batch_size
        return RunConfig(
            seed=seed, batch_size=batch_size, epochs=epochs, schedule="cosine", **config
        )


_FILES = ("images-idx3-ubyte", "labels-idx1-ubyte")


def _on(device: torch.device, *parts: Part) -> DeviceData:
    train, validation, test = ((part.x_ND, part.y_N) for part in parts)
    return DeviceData.from_arrays(train, validation, test, num_classes=NUM_CLASSES, device=device)
