"""Networks for bags of tokens, as plain modules.

They know nothing of packs: `ModuleModel` trains them.

# B rows of a batch, L tokens of a row
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from torch import nn

Activation = Literal["relu", "gelu", "tanh"]
Pooling = Literal["mean", "sum"]

_ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
}

_ANY_PROBABILITY = 0.5
"""Of a dropout layer: where a run's own takes its place."""


def bag_of_tokens(
    vocabulary: int,
    padding: int,
    outputs: int,
    embedding: int,
    hidden: Sequence[int],
    activation: Activation,
    pooling: Pooling,
) -> nn.Module:
    """The mean or the sum of the embeddings of a row's tokens, then linear layers.

    After Joulin, Grave, Bojanowski and Mikolov, "Bag of tricks for efficient text classification"
    (2017), which has no hidden layers.

    Args:
        vocabulary: the number of ids.
        padding: the id that counts for nothing.
        embedding: numbers that a token becomes.
        hidden: widths of the linear layers before the last, each with an activation.
    """
    layers: list[nn.Module] = [
        nn.EmbeddingBag(vocabulary, embedding, mode=pooling, padding_idx=padding)
    ]
    num_features = embedding
    for width in hidden:
        layers += [
            nn.Dropout(_ANY_PROBABILITY),
            nn.Linear(num_features, width),
            _ACTIVATIONS[activation](),
        ]
        num_features = width
    return nn.Sequential(*layers, nn.Dropout(_ANY_PROBABILITY), nn.Linear(num_features, outputs))
