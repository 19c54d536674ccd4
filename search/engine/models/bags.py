"""Networks for bags of tokens, as plain modules.

They know nothing of packs: `ModuleModel` trains them.

# B rows of a batch, L tokens of a row
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from ridgeline.search.engine.models.network_parts import Activation, linear_layers

Pooling = Literal["mean", "sum"]


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
    bag = nn.EmbeddingBag(vocabulary, embedding, mode=pooling, padding_idx=padding)
    return nn.Sequential(bag, *linear_layers(embedding, hidden, outputs, activation))
