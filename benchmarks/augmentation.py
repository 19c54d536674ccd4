"""What augmentation is worth where samples are few: MNIST's first 1,000 training images.

    python -m benchmarks.augmentation --mnist FOLDER

FOLDER has MNIST's IDX files, gzipped.  A perceptron 784-128-10 is trained with no augmentation, and
with shifts of up to 2 pixels and rotations of up to 15 degrees, by 5 seeds each that are one pack.
Both have the same configuration otherwise, and neither chooses an epoch: what is told is the
accuracy on the 10,000 test images after the last one.

# N images of H rows and W columns
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from benchmarks.engine_data import NUM_CLASSES, mnist_folder, read_idx
from ridgeline.search.engine import DeviceData, Pack, RunConfig
from ridgeline.search.engine.models.module import ModuleModel
from ridgeline.search.engine.spec import StepSpec

NUM_TRAIN, NUM_VALIDATION = 1_000, 1_000
NUM_SEEDS = 5
STRENGTHS: dict[str, dict[str, Any]] = {
    "none": {},
    "shift and rotation": {"shift": 2.0, "rotation": 15.0},
}


def perceptron() -> nn.Module:
    """One hidden layer on images as they are, so that they can be moved."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(28 * 28, 128), nn.ReLU(), nn.Linear(128, NUM_CLASSES)
    )


def images(folder: Path) -> DeviceData:
    """Standardised by one mean and one deviation, those of the training images."""
    parts: dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]] = {}
    for name in ("train", "t10k"):
        x_NHW = read_idx(folder, f"{name}-images-idx3-ubyte").astype(np.float32)
        labels = read_idx(folder, f"{name}-labels-idx1-ubyte").astype(np.int64)
        parts[name] = x_NHW[:, None], labels
    x, y = parts["train"]
    mean, deviation = x[:NUM_TRAIN].mean(), x[:NUM_TRAIN].std()
    x, x_test = ((part - mean) / deviation for part in (x, parts["t10k"][0]))
    end = NUM_TRAIN + NUM_VALIDATION
    return DeviceData.from_arrays(
        (x[:NUM_TRAIN], y[:NUM_TRAIN]),
        (x[NUM_TRAIN:end], y[NUM_TRAIN:end]),
        (x_test, parts["t10k"][1]),
        num_classes=NUM_CLASSES,
        device=torch.device("cpu"),
    )


def test_accuracies(data: DeviceData, epochs: int, strengths: dict[str, Any]) -> list[float]:
    """Of each seed's run."""
    configs = [
        RunConfig(seed=seed, learning_rate=1e-3, batch_size=50, epochs=epochs, **strengths)
        for seed in range(NUM_SEEDS)
    ]
    model = ModuleModel.of(perceptron, (1, 28, 28), NUM_CLASSES)
    pack = Pack(StepSpec.of(configs[0], model, NUM_TRAIN, "float32"), data, width=NUM_SEEDS)
    for slot, config in enumerate(configs):
        pack.load(slot, config)
    for _ in range(epochs):
        pack.tick(pack.ticks_to_epoch_end)
    means = pack.test([pack.weights(slot) for slot in range(NUM_SEEDS)])
    return [float(accuracy) for accuracy in means[:, 1]]


def main() -> None:
    """Print the accuracies of each and what lies between their means."""
    parser = argparse.ArgumentParser(description="What augmentation is worth on 1,000 images.")
    parser.add_argument("--mnist", type=mnist_folder, required=True, help="of MNIST's files")
    parser.add_argument("--epochs", type=int, default=60, help="that each run trains")
    arguments = parser.parse_args()
    data, means = images(arguments.mnist), []
    for name, strengths in STRENGTHS.items():
        found = test_accuracies(data, arguments.epochs, strengths)
        means.append(float(np.mean(found)))
        each = ", ".join(f"{accuracy:.4f}" for accuracy in found)
        print(f"{name}: mean {means[-1]:.4f} of {each}")
    print(f"gained: {100 * (means[1] - means[0]):.2f} points")


if __name__ == "__main__":
    main()
