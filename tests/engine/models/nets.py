"""Modules as people write them, for the tests of `search.engine.models.module`."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ridgeline.search.engine.models.bags import bag_of_tokens
from ridgeline.search.engine.models.convolutional import lenet, resnet


def convolutional(pool: str = "max") -> nn.Module:
    pools = {
        "max": nn.MaxPool2d(2),
        "average": nn.AvgPool2d(2),
        "adaptive": nn.AdaptiveAvgPool2d(3),
        "adaptive_max": nn.AdaptiveMaxPool2d((2, 3)),
        "overlapping": nn.MaxPool2d(3, stride=2, padding=1),
    }
    return nn.Sequential(
        nn.Conv2d(2, 5, 3, stride=1, padding=1),
        nn.ReLU(inplace=True),
        pools[pool],
        nn.Conv2d(5, 4, 2, bias=False),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(_features(pool), 3),
    )


def _features(pool: str) -> int:
    return 4 * {"max": 4, "average": 4, "adaptive": 4, "adaptive_max": 2, "overlapping": 4}[pool]


def lazy() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(3))


def batch_norm_1d(momentum: float | None = 0.1, affine: bool = True) -> nn.Module:
    return nn.Sequential(
        nn.Linear(5, 7, bias=False),
        nn.BatchNorm1d(7, momentum=momentum, affine=affine),
        nn.ReLU(),
        nn.Linear(7, 3),
    )


def batch_norm_2d() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1, bias=False),
        nn.BatchNorm2d(5, eps=1e-3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(5 * 36, 3),
    )


def layer_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.GELU(), nn.Linear(7, 3))


def layer_norm_of_images() -> nn.Module:
    return nn.Sequential(nn.LayerNorm([2, 6, 6]), nn.Conv2d(2, 3, 6), nn.Flatten())


def norms_alone() -> nn.Module:
    """Nothing in it is penalised."""
    return nn.Sequential(nn.BatchNorm1d(3), nn.Tanh(), nn.LayerNorm(3))


def group_norm() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.GroupNorm(2, 6), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 3),
    )  # fmt: skip


def embedding_bag(mode: str = "mean", padding_idx: int | None = 0) -> nn.Module:
    return nn.Sequential(
        nn.EmbeddingBag(11, 6, mode=mode, padding_idx=padding_idx), nn.Tanh(), nn.Linear(6, 3)
    )


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.gelu(self.first(x))
        x = x + functional.gelu(self.second(x), approximate="tanh")
        return self.last(x)


class ResidualBlock(nn.Module):
    def __init__(self, num_in: int, num_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_in, num_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(num_out)
        self.conv2 = nn.Conv2d(num_out, num_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(num_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or num_in != num_out:
            self.shortcut = nn.Conv2d(num_in, num_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        y += self.shortcut(x)
        return y.relu_()


def residual_net() -> nn.Module:
    return nn.Sequential(
        ResidualBlock(2, 4, 1), ResidualBlock(4, 6, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 3),
    )  # fmt: skip


class Drops(nn.Module):
    """One dropout layer used twice, and a call of the function."""

    def __init__(self, dropout: float = 0.4) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(6, 3)
        self.drop, self.dropout = nn.Dropout(dropout), dropout

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(torch.tanh(self.first(x)))
        x = self.drop(torch.tanh(self.second(x)))
        return self.last(functional.dropout(x, self.dropout / 2, self.training))


class SpatialDrops(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.drop = nn.Conv2d(2, 6, 3), nn.Dropout2d(0.3)
        self.line, self.drop_line = nn.Conv1d(6, 5, 3), nn.Dropout1d(0.5)
        self.last = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(functional.leaky_relu(self.conv(x)))
        x = self.drop_line(torch.tanh(self.line(x.flatten(2))))
        return self.last(x.mean(2))


class Tied(nn.Module):
    """Two layers with one weight, and one layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.inner, self.decode = nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.encode = nn.Linear(6, 3, bias=False)
        self.encode.weight = self.decode.weight

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.inner(torch.tanh(self.embed(x))))
        return self.decode(
            torch.tanh(self.inner(functional.linear(self.encode(x), x.new_ones(6, 3))))
        )


class WithBuffers(nn.Module):
    """Random features of its own, an average that it follows, positions, and a frozen layer."""

    mask: Tensor
    average: Tensor
    features: Tensor
    order: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("features", torch.randn(5, 8))
        self.register_buffer("average", torch.zeros(8))
        self.register_buffer("order", torch.arange(7, -1, -1))
        self.register_buffer("mask", torch.tensor([True, False] * 4), persistent=False)
        self.frozen = nn.Linear(8, 8)
        self.frozen.requires_grad_(False)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sin(x @ self.features)[:, self.order]
        if self.training:
            self.average = 0.9 * self.average + 0.1 * self.last.weight.detach().mean(0)
        x = torch.where(self.mask, x, torch.tanh(self.frozen(x))) - self.average
        return self.last(x)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(self.embed(x)).mean(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn, self.last = (
            nn.Embedding(11, 4),
            nn.GRU(4, 5, batch_first=True),
            nn.Linear(5, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.rnn(self.embed(x))[0][:, -1])


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.last = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.gate(x)
        if x.mean() > 0:
            x = torch.tanh(x)
        return self.last(x)


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.rand_like(x) if self.training else x


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.noise, self.last = Noise(), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.noise(x))


class SkipsLayers(nn.Module):
    """Stochastic depth by Python's own generator."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or random.random() < 0.5:
            x = torch.tanh(self.inner(x))
        return self.last(x)


class Centres(nn.Module):
    """Takes a mean over the rows of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x - x.mean(0))


class Counts(nn.Module):
    """Keeps count of its batches in a whole number."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.last = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return self.last(x) / self.count


class DropsWithMasks(Drops):
    """What `Drops` is to come to, with `kept` [rows, draws] for its dropout."""

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        masks = [1.0] * 3 if kept is None else kept.split([8, 6, 6], dim=1)
        x = torch.tanh(self.first(x)) * masks[0]
        x = torch.tanh(self.second(x)) * masks[1]
        return self.last(x * masks[2])


class SpatialDropsWithMasks(SpatialDrops):
    """What `SpatialDrops` is to come to, with `kept` [rows, draws] for its dropout."""

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        of_planes, of_lines = (x.new_ones(len(x), n) for n in (6, 5))
        if kept is not None:
            of_planes, of_lines = kept.split([6, 5], dim=1)
        x = functional.leaky_relu(self.conv(x)) * of_planes[:, :, None, None]
        x = torch.tanh(self.line(x.flatten(2))) * of_lines[:, :, None]
        return self.last(x.mean(2))


LENET: dict[str, Any] = {
    "image": (2, 6, 6),
    "outputs": 3,
    "channels": (3,),
    "blocks": 2,
    "hidden": (7,),
    "norm": "none",
    "activation": "tanh",
    "pooling": "average",
    "spatial_dropout": True,
}
RESNET: dict[str, Any] = {
    **LENET,
    "channels": (4, 6),
    "blocks": 1,
    "hidden": (),
    "norm": "group",
    "activation": "gelu",
}


BAG: dict[str, Any] = {
    "vocabulary": 11,
    "padding": 0,
    "outputs": 3,
    "embedding": 6,
    "hidden": (5,),
    "activation": "gelu",
    "pooling": "mean",
}


class SequenceWithMasks(nn.Sequential):
    """What a sequence is to come to, with `kept` [rows, draws] for the layers of dropout in it."""

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        start = 0
        for layer in self:
            if not isinstance(layer, nn.Dropout | nn.Dropout2d):
                x = layer(x)
            elif kept is not None:
                shape = x.shape[1:] if isinstance(layer, nn.Dropout) else (x.shape[1], 1, 1)
                end = start + math.prod(shape)
                x, start = x * kept[:, start:end].view(-1, *shape), end
        return x


def with_masks(factory: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    def make(**settings: Any) -> nn.Module:
        return SequenceWithMasks(*factory(**settings))

    return make


WITH_MASKS: dict[Callable[..., nn.Module], Callable[..., nn.Module]] = {
    Drops: DropsWithMasks,
    SpatialDrops: SpatialDropsWithMasks,
    lenet: with_masks(lenet),
    resnet: with_masks(resnet),
    bag_of_tokens: with_masks(bag_of_tokens),
}


def wrong_shape() -> nn.Module:
    return nn.Linear(5, 4)


def frozen() -> nn.Module:
    return nn.Linear(5, 3).requires_grad_(False)


def no_module() -> object:
    return "a module"
