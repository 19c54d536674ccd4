"""The oracle of the regularisers: unit by unit, and by functions of torch where there are any.

Of the engine it takes the uniform numbers and the table of normal ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ridgeline.search.engine import RunConfig, rng
from ridgeline.search.engine.normal import normal_quantiles


def uniform_of(config: RunConfig, stream: rng.Stream, step: int, count: int) -> Tensor:
    """The first draws of a run's step."""
    (uniform,) = rng.uniform(
        [config.seed], stream, step, count, device=torch.device("cpu"), dtype=torch.float64
    )
    return uniform


def without_dropped_inputs(config: RunConfig, step: int, x: Tensor) -> Tensor:
    if config.input_dropout == 0:
        return x
    uniform = uniform_of(config, rng.Stream.INPUT_DROPOUT, step, x.numel()).view(x.shape)
    return x * (uniform >= config.input_dropout) / (1 - config.input_dropout)


def add_gradient_noise(config: RunConfig, step: int, parameters: list[nn.Parameter]) -> None:
    """Parameters come in the order of the draws."""
    sizes = [parameter.numel() for parameter in parameters]
    uniform = uniform_of(config, rng.Stream.GRADIENT_NOISE, step, sum(sizes))
    normal = torch.tensor(normal_quantiles())[(uniform * 4096).long()]
    deviation = math.sqrt(config.gradient_noise / (1 + step) ** 0.55)
    for parameter, noise in zip(parameters, normal.split(sizes), strict=True):
        assert parameter.grad is not None
        parameter.grad += deviation * noise.view_as(parameter)


def bound_norms(max_norm: float, parameters: list[nn.Parameter]) -> None:
    with torch.no_grad():
        for parameter in parameters:
            for weights in parameter if parameter.dim() > 1 else ():
                norm = weights.norm().item()
                if norm > max_norm:
                    weights *= max_norm / norm
