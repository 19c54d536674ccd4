"""What the engine's benchmark trains on, made or real, and two multilayer perceptrons.

# N samples, D features
"""

from __future__ import annotations

import argparse
import gzip
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import TensorDataset

from ridgeline.search.engine import DeviceData, Mlp, RunConfig

NUM_CLASSES = 10
NUM_TEST = 16
"""The engine tests each run at its end, which no other contender does: so, on next to nothing."""

_UNSIGNED_BYTES = 0x08
_SEED = 20_26


@dataclass(frozen=True)
class Part:
    """Samples on the host: `x_ND` float32, of one dimension or more, and `y_N` int64."""

    x_ND: npt.NDArray[np.float32]
    y_N: npt.NDArray[np.int64]

    def dataset(self) -> TensorDataset:
        """The part as a user of torch's `DataLoader` has it."""
        return TensorDataset(torch.from_numpy(self.x_ND), torch.from_numpy(self.y_N))

    def first(self, count: int) -> Part:
        """So many of the samples."""
        return Part(self.x_ND[:count], self.y_N[:count])

    def shaped(self, *shape: int) -> Part:
        """With samples of another shape."""
        return Part(self.x_ND.reshape(-1, *shape), self.y_N)

    def __len__(self) -> int:
        return len(self.y_N)


@dataclass(frozen=True)
class Work:
    """A model, its data and the batch sizes it is trained with.

    Attributes:
        epochs: that each configuration is trained for.
        data: `made` or `mnist`.
        refill_batch_size: of the runs that stop at rungs.
    """

    name: str
    shape: Mlp
    batch_sizes: tuple[int, ...]
    refill_batch_size: int
    epochs: int
    data: str
    train: Part
    validation: Part

    def device_data(self, device: torch.device) -> DeviceData:
        """The data as the engine has it."""
        parts = [
            (part.x_ND, part.y_N)
            for part in (
                self.train,
                self.validation,
                self.validation.first(NUM_TEST),
            )
        ]
        return DeviceData.from_arrays(*parts, num_classes=NUM_CLASSES, device=device)


def digits_work(*, quick: bool) -> Work:
    """A 64-64-10 perceptron on data of the size of scikit-learn's digits."""
    train, validation = made(64, 1437, 360)
    return Work(
        name="digits",
        shape=Mlp(64, (64,), NUM_CLASSES),
        batch_sizes=(16, 128) if quick else (16, 32, 64, 128),
        refill_batch_size=64,
        epochs=2 if quick else 10,
        data="made",
        train=train,
        validation=validation,
    )


def mnist_work(folder: Path | None, *, quick: bool) -> Work:
    """A 784-128-10 perceptron on MNIST from a folder of IDX files, or on data of its size."""
    num_train, num_validation = (1_500, 300) if quick else (54_000, 6_000)
    if folder is None:
        train, validation = made(784, num_train, num_validation)
    else:
        train, validation = read_mnist(folder, num_train, num_validation)
    return Work(
        name="mnist",
        shape=Mlp(784, (128,), NUM_CLASSES),
        batch_sizes=(64, 512) if quick else (32, 64, 128, 256, 512),
        refill_batch_size=128,
        epochs=1,
        data="made" if folder is None else "mnist",
        train=train,
        validation=validation,
    )


def configurations(batch_size: int, *, count: int, epochs: int, dropout: bool) -> list[RunConfig]:
    """Runs over geometric learning rates, with l2 and, where asked for, dropout varied.

    Every other run has no l2.  `penalize="all"` makes it what Adam's `weight_decay=2·l2` is.
    """
    learning_rates = np.geomspace(1e-4, 1e-2, count)
    penalties = np.geomspace(1e-7, 1e-4, count)
    dropouts = np.linspace(0.1, 0.6, count)
    return [
        RunConfig(
            seed=i,
            learning_rate=float(learning_rates[i]),
            batch_size=batch_size,
            epochs=epochs,
            l2=float(penalties[i]) if i % 2 else 0.0,
            dropout=float(dropouts[i]) if dropout else 0.0,
            penalize="all",
        )
        for i in range(count)
    ]


def made(num_features: int, num_train: int, num_validation: int) -> tuple[Part, Part]:
    """Noise around a centre for each class, much of it clipped to 0."""
    generator = np.random.default_rng(_SEED)
    num_samples = num_train + num_validation
    centres = generator.uniform(0, 0.5, (NUM_CLASSES, num_features))
    y_N = generator.integers(0, NUM_CLASSES, num_samples)
    noise_ND = generator.standard_normal((num_samples, num_features), dtype=np.float32)
    x_ND = np.clip(centres[y_N] + 0.4 * noise_ND, 0, 1).astype(np.float32)
    return _split(x_ND, y_N, num_train, num_validation)


def _split(
    x_ND: npt.NDArray[np.float32], y_N: npt.NDArray[np.int64], num_train: int, num_validation: int
) -> tuple[Part, Part]:
    end = num_train + num_validation
    return (
        Part(x_ND[:num_train], y_N[:num_train]),
        Part(x_ND[num_train:end], y_N[num_train:end]),
    )


def mnist_folder(text: str) -> Path:
    """A folder of MNIST's IDX files, as an argument."""
    folder = Path(text)
    if not any(folder.glob("train-images-idx3-ubyte*")):
        raise argparse.ArgumentTypeError(f"there is no train-images-idx3-ubyte in {folder}")
    return folder


def read_mnist(folder: Path, num_train: int, num_validation: int) -> tuple[Part, Part]:
    """The training part of MNIST, divided; its test part is left alone."""
    images = read_idx(folder, "train-images-idx3-ubyte")
    labels = read_idx(folder, "train-labels-idx1-ubyte")
    x_ND = images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
    return _split(x_ND, labels.astype(np.int64), num_train, num_validation)


def read_idx(folder: Path, name: str) -> npt.NDArray[np.uint8]:
    """An IDX file of bytes, plain or gzipped; `tasks.formats.idx` reads those from strangers."""
    plain, packed = folder / name, folder / f"{name}.gz"
    content = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
    zeros, kind, num_dimensions = struct.unpack_from(">HBB", content)
    if zeros or kind != _UNSIGNED_BYTES:
        raise ValueError(f"{name} is not an IDX file of bytes")
    shape = struct.unpack_from(f">{num_dimensions}I", content, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * num_dimensions).reshape(shape)
