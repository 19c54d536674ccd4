"""Convolutional networks for images, from LeNet to a small ResNet, as plain modules.

They know nothing of packs: `ModuleModel` trains them.

# B rows of a batch, C channels, H and W pixels
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from ridgeline.search.engine.models.network_parts import (
    ACTIVATIONS,
    ANY_PROBABILITY,
    Activation,
    linear_layers,
)

Norm = Literal["none", "batch", "group", "layer"]
Pooling = Literal["max", "average"]

_NUM_GROUPS = 4


def lenet(
    image: Sequence[int],
    outputs: int,
    channels: Sequence[int],
    blocks: int,
    hidden: Sequence[int],
    norm: Norm,
    activation: Activation,
    pooling: Pooling,
    spatial_dropout: bool,
) -> nn.Module:
    """Convolutions of 5×5 that keep the size, each stage followed by pooling that halves it.

    After LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to document
    recognition" (1998): with channels [6, 16], hidden [120, 84], tanh and average pooling it is
    LeNet-5, but for padding, and for connections and scales that nobody has used since.

    Args:
        image: the shape of a sample, [C, H, W]; H and W are at least 2 to the power of the stages.
        channels: of each stage.
        blocks: convolutions of a stage, each with its norm and activation.
        hidden: widths of the linear layers before the last, each with an activation.
        spatial_dropout: whether whole channels are dropped after each stage.
    """
    num_channels, height, width = image
    layers: list[nn.Module] = []
    for num_out in channels:
        for _ in range(blocks):
            layers += [
                nn.Conv2d(num_channels, num_out, 5, padding=2, bias=norm != "batch"),
                *_norm(norm, num_out),
                ACTIVATIONS[activation](),
            ]
            num_channels = num_out
        layers.append(nn.MaxPool2d(2) if pooling == "max" else nn.AvgPool2d(2))
        height, width = height // 2, width // 2
        layers += _spatial(spatial_dropout)
    layers.append(nn.Flatten())
    num_features = num_channels * height * width
    return nn.Sequential(*layers, *linear_layers(num_features, hidden, outputs, activation))


def resnet(
    image: Sequence[int],
    outputs: int,
    channels: Sequence[int],
    blocks: int,
    hidden: Sequence[int],
    norm: Norm,
    activation: Activation,
    pooling: Pooling,
    spatial_dropout: bool,
) -> nn.Module:
    """Residual blocks of convolutions of 3×3, each stage after the first at half the size.

    After He, Zhang, Ren and Sun, "Deep residual learning for image recognition" (2016), section
    4.2; where the shape changes, the shortcut is a convolution of 1×1.

    Args:
        image: the shape of a sample, [C, H, W].
        channels: of each stage.
        blocks: of a stage, two convolutions each.
        hidden: as of `lenet`; after pooling over the whole image.
        spatial_dropout: whether whole channels are dropped after each stage.
    """
    num_channels = channels[0]
    layers: list[nn.Module] = [
        nn.Conv2d(image[0], num_channels, 3, padding=1, bias=norm != "batch"),
        *_norm(norm, num_channels),
        ACTIVATIONS[activation](),
    ]
    for stage, num_out in enumerate(channels):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(ResidualBlock(num_channels, num_out, stride, norm, activation))
            num_channels = num_out
        layers += _spatial(spatial_dropout)
    layers += [
        nn.AdaptiveMaxPool2d(1) if pooling == "max" else nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ]
    return nn.Sequential(*layers, *linear_layers(num_channels, hidden, outputs, activation))


class ResidualBlock(nn.Module):
    """Two convolutions of 3×3 with their norms, added to what came in."""

    def __init__(
        self, num_in: int, num_out: int, stride: int, norm: Norm, activation: Activation
    ) -> None:
        super().__init__()
        bias = norm != "batch"
        self.inner = nn.Sequential(
            nn.Conv2d(num_in, num_out, 3, stride, padding=1, bias=bias),
            *_norm(norm, num_out),
            ACTIVATIONS[activation](),
            nn.Conv2d(num_out, num_out, 3, padding=1, bias=bias),
            *_norm(norm, num_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or num_in != num_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(num_in, num_out, 1, stride, bias=bias), *_norm(norm, num_out)
            )
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """[B, num_out, H / stride, W / stride], rounded up."""
        result: Tensor = self.activation(self.inner(x_BCHW) + self.shortcut(x_BCHW))
        return result


def _norm(norm: Norm, num_channels: int) -> list[nn.Module]:
    """Over the batch, over groups of channels, or over all of a row; Wu and He (2018)."""
    if norm == "batch":
        return [nn.BatchNorm2d(num_channels)]
    if norm == "group":
        return [nn.GroupNorm(math.gcd(_NUM_GROUPS, num_channels), num_channels)]
    return [nn.GroupNorm(1, num_channels)] if norm == "layer" else []


def _spatial(is_wanted: bool) -> list[nn.Module]:
    return [nn.Dropout2d(ANY_PROBABILITY)] if is_wanted else []
