"""A model unlike those of the engine, to hold the port to what it says of every model.

Its samples are images, a penalised parameter has four dimensions and another only one, and its
matrix is not penalised: nobody can tell from a shape what a penalty acts on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ridgeline.search.engine.losses import Judged, Loss
from ridgeline.search.engine.models.base import BoundModel, Model, Parameter, Rows, Statistic


@dataclass(frozen=True)
class Toy(Model):
    """matrix · (kernel · x + bias), with dropout before the matrix."""

    kind: ClassVar[str] = "toy"

    image: tuple[int, int, int]
    num_outputs: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "image", tuple(self.image))

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.image

    @property
    def num_draws(self) -> int:
        return self.num_outputs

    @property
    def numbers_per_row(self) -> int:
        return math.prod(self.image) + 5 * self.num_outputs

    def parameters(self) -> dict[str, Parameter]:
        c = self.num_outputs
        return {
            "matrix": Parameter((c, c), False, bound=0.5, start=0.1),
            "kernel": Parameter((c, *self.image), True, bound=0.3),
            "bias": Parameter((c,), True, bound=0.1),
        }

    def statistics(self) -> dict[str, Statistic]:
        return {}

    def bind(
        self,
        parameters: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        statistics: Mapping[str, Tensor],
    ) -> BoundModel:
        return _BoundToy(parameters, gradients)

    def outputs(
        self, parameters: Mapping[str, Tensor], statistics: Mapping[str, Tensor], x: Tensor
    ) -> Tensor:
        stack = x[None].expand(parameters["bias"].shape[0], *(-1 for _ in x.shape))
        return torch.bmm(parameters["matrix"], _features(parameters, stack))

    def forward_flops(self, num_rows: int) -> int:
        return 2 * num_rows * self.num_outputs * (math.prod(self.image) + self.num_outputs)

    def step_flops(self, num_rows: int) -> int:
        of_images = 2 * num_rows * self.num_outputs * math.prod(self.image)
        return 3 * self.forward_flops(num_rows) - of_images


class _BoundToy(BoundModel):
    def __init__(self, parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        self._parameters, self._gradients = parameters, gradients

    def loss_gradients(
        self,
        x_KB: Tensor,
        targets_KB: Tensor,
        rows: Rows,
        dropout_KUB: Tensor | None,
        loss: Loss,
    ) -> Judged:
        features = _features(self._parameters, x_KB)
        if dropout_KUB is not None:
            features = features * dropout_KUB
        matrix = self._parameters["matrix"]
        judged = loss.judge(torch.bmm(matrix, features), targets_KB, rows)
        gradient = judged.gradient_KCB
        # Multiplied and added up, so that no product has slots that begin off a line of memory.
        self._gradients["matrix"].copy_((gradient[:, :, None] * features[:, None]).sum(dim=3))
        gradient = (matrix[:, :, :, None] * gradient[:, :, None]).sum(dim=1)
        if dropout_KUB is not None:
            gradient = gradient * dropout_KUB
        flat = x_KB.flatten(2)
        kernel = self._gradients["kernel"]
        kernel.copy_((gradient[:, :, :, None] * flat[:, None]).sum(dim=2).view(kernel.shape))
        self._gradients["bias"].copy_(gradient.sum(dim=2))
        return judged


def _features(parameters: Mapping[str, Tensor], x_KB: Tensor) -> Tensor:
    kernel_KCD = parameters["kernel"].flatten(2)
    flow = torch.bmm(kernel_KCD, x_KB.flatten(2).transpose(1, 2))
    return flow + parameters["bias"][:, :, None]


class PlainToy(nn.Module):
    def __init__(self, model: Toy) -> None:
        super().__init__()
        c = model.num_outputs
        self.matrix = nn.Parameter(torch.zeros(c, c))
        self.kernel = nn.Parameter(torch.zeros(c, *model.image))
        self.bias = nn.Parameter(torch.zeros(c))

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        features = torch.tensordot(x, self.kernel, dims=([1, 2, 3], [1, 2, 3])) + self.bias
        return (features if kept is None else features * kept) @ self.matrix.T
