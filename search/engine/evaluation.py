"""What a slot's weights are worth on a part of the data.

# P, Q numbers a slot, B rows of a chunk, D units in, H units out
"""

from __future__ import annotations

import torch
from torch import Tensor

from search.engine.config import ModelShape
from search.engine.data import Split
from search.engine.layers import NORM_EPSILON
from search.engine.layout import ParameterLayout, StatisticsLayout

EVALUATION_ROWS = 2048
"""Rows evaluated at once: bounds the memory; fixed, since sums in chunks depend on it."""


def loss_and_accuracy(
    shape: ModelShape, parameters_P: Tensor, statistics_Q: Tensor, split: Split
) -> Tensor:
    """Mean cross-entropy and accuracy in evaluation mode, summed in float64.

    Looks at one slot's rows alone, so it cannot depend on the pack.

    Returns:
        float64 [2] on the device; the caller decides when to wait for it.
    """
    parameters = _views(ParameterLayout(shape), parameters_P)
    statistics = _views(StatisticsLayout(shape), statistics_Q)
    totals = torch.zeros(2, dtype=torch.float64, device=parameters_P.device)
    chunks = zip(
        torch.split(split.x, EVALUATION_ROWS), torch.split(split.y, EVALUATION_ROWS), strict=True
    )
    for x_BD, y_B in chunks:
        logits_BC = _logits(shape, parameters, statistics, x_BD)
        losses_B1 = -torch.log_softmax(logits_BC, dim=1).gather(1, y_B[:, None])
        totals[0] += losses_B1.sum(dtype=torch.float64)
        totals[1] += (logits_BC.argmax(dim=1) == y_B).sum()
    return totals.div_(split.num_samples)


def _views(layout: ParameterLayout | StatisticsLayout, row: Tensor) -> dict[str, Tensor]:
    return {name: view[0] for name, view in layout.views(row[None]).items()}


def _logits(
    shape: ModelShape, parameters: dict[str, Tensor], statistics: dict[str, Tensor], flow: Tensor
) -> Tensor:
    for i in range(len(shape.hidden)):
        flow = torch.addmm(
            parameters[f"layers.{i}.bias"], flow, parameters[f"layers.{i}.weight"].t()
        )
        if shape.batch_norm:
            scale_H = (
                parameters[f"norms.{i}.weight"]
                / (statistics[f"norms.{i}.running_var"] + NORM_EPSILON).sqrt_()
            )
            shift_H = (
                parameters[f"norms.{i}.bias"] - statistics[f"norms.{i}.running_mean"] * scale_H
            )
            flow = flow.mul_(scale_H).add_(shift_H)
        flow = flow.relu_() if shape.activation == "relu" else flow.tanh_()
    last = len(shape.hidden)
    return torch.addmm(
        parameters[f"layers.{last}.bias"], flow, parameters[f"layers.{last}.weight"].t()
    )
