"""What the networks of built-in tasks are made of, as plain modules.

# B rows of a batch, N features
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from torch import nn

Activation = Literal["relu", "gelu", "tanh"]

ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}

ANY_PROBABILITY = 0.5
"""Of a dropout layer: where a run's own takes its place."""


def linear_layers(
    num_features: int, hidden: Sequence[int], outputs: int, activation: Activation
) -> list[nn.Module]:
    """From [B, N] to [B, outputs]: linear layers, with dropout before each."""
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [
            nn.Dropout(ANY_PROBABILITY),
            nn.Linear(num_features, width),
            ACTIVATIONS[activation](),
        ]
        num_features = width
    return [*layers, nn.Dropout(ANY_PROBABILITY), nn.Linear(num_features, outputs)]
