"""The tensors by which the slots of a pack are regularised, each by strengths of its own.

A slot whose run does not use a kind has numbers that change nothing: no bound, no smoothing, a
probability and a variance of 0.

With D numbers in a sample, number d of row b is dropped by draw b·D + d of `Stream.INPUT_DROPOUT`.
The noise of a parameter's number is drawn by its place in the parameters: those that are penalised
come first, then the others, each in the model's order.

# K slots, S steps of an epoch, B rows of a batch, D numbers of a sample, P numbers of a slot's row
# of parameters, G slots of a group
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ridgeline.search.engine import rng
from ridgeline.search.engine.config import Regulariser, RunConfig
from ridgeline.search.engine.layout import ParameterLayout, layouts
from ridgeline.search.engine.models.base import Model
from ridgeline.search.engine.normal import normal_quantiles

NOISE_DECAY = 0.55
"""γ of Neelakantan et al. (2015), equation 1, in all their experiments."""


class RegulariserMemory:
    """The tensors of the kinds in use; none at first.

    Args:
        sizes: K, S and B, with the rows that only pad a batch.
    """

    def __init__(
        self, model: Model, sizes: tuple[int, int, int], device: torch.device, dtype: torch.dtype
    ) -> None:
        self._model, self._sizes = model, sizes
        self._device, self._dtype = device, dtype
        self._by_slot: dict[str, Tensor] = {}
        self._shared: dict[str, Tensor] = {}
        self._kinds: set[Regulariser] = set()

    def add(self, kinds: Iterable[Regulariser]) -> None:
        """Make the tensors of more kinds; all slots are as those of runs that do not use them."""
        num_slots, num_steps, num_rows = self._sizes
        device, dtype = self._device, self._dtype
        # In one order, which is that of the inputs of a program compiled in another process.
        kinds = {*kinds} - self._kinds
        for kind in [kind for kind in get_args(Regulariser) if kind in kinds]:
            if kind == "max_norm":
                self._by_slot["max_norms"] = torch.zeros(num_slots, dtype=dtype, device=device)
            elif kind == "label_smoothing":
                self._by_slot["smoothing"] = torch.zeros(num_slots, dtype=dtype, device=device)
            elif kind == "input_dropout":
                self._by_slot |= {
                    "input_keys": self._keys(num_slots, num_steps),
                    "input_thresholds": torch.full(
                        (num_slots, 1), rng.threshold(0.0), dtype=torch.int64, device=device
                    ),
                    "input_scales": torch.ones(num_slots, 1, dtype=dtype, device=device),
                }
                num_numbers = math.prod(self._model.sample_shape)
                counters = rng.counters(num_rows * num_numbers, device)
                self._shared["input_counters"] = counters.view(num_rows, num_numbers)
            else:
                self._by_slot |= {
                    "noise_keys": self._keys(num_slots, num_steps),
                    "noise_scales": torch.zeros(num_slots, num_steps, dtype=dtype, device=device),
                }
                self._shared |= {
                    "noise_counters": noise_counters(layouts(self._model)[0], device),
                    "normal": torch.tensor(normal_quantiles(), dtype=dtype, device=device),
                }
            self._kinds.add(kind)

    def by_slot(self) -> list[Tensor]:
        """All tensors whose first dimension is the slots, in an order that tells nothing of when.

        Packs of one step may have been told of its kinds in different orders.
        """
        return [self._by_slot[name] for name in sorted(self._by_slot)]

    def inputs(self) -> dict[str, Tensor]:
        """All that a step reads."""
        return {**self._by_slot, **self._shared}

    def write_constants(self, slots_G: Tensor, configs: Sequence[RunConfig]) -> None:
        """Write what stays the same all through these runs."""

        def numbers(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=self._dtype, device=self._device)

        tensors = self._by_slot
        if "max_norm" in self._kinds:
            tensors["max_norms"][slots_G] = numbers([config.max_norm for config in configs])
        if "label_smoothing" in self._kinds:
            tensors["smoothing"][slots_G] = numbers([config.label_smoothing for config in configs])
        if "input_dropout" in self._kinds:
            rates = [config.input_dropout for config in configs]
            thresholds = [[rng.threshold(rate)] for rate in rates]
            tensors["input_thresholds"][slots_G] = torch.tensor(thresholds, device=self._device)
            tensors["input_scales"][slots_G, 0] = numbers([1 / (1 - rate) for rate in rates])

    def write_epochs(
        self, slots_G: Tensor, configs: Sequence[RunConfig], first_steps: Sequence[int]
    ) -> None:
        """Write what an epoch of each needs, whose first step is counted over the run's life."""
        seeds, num_steps = [config.seed for config in configs], self._sizes[1]
        for kind, name, stream in (
            ("input_dropout", "input_keys", rng.Stream.INPUT_DROPOUT),
            ("gradient_noise", "noise_keys", rng.Stream.GRADIENT_NOISE),
        ):
            if kind in self._kinds:
                keys = [rng.stream_key(seed, stream) for seed in seeds]
                keys_GS = rng.step_keys(keys, first_steps, num_steps, self._device)
                self._by_slot[name][slots_G] = keys_GS
        if "gradient_noise" in self._kinds:
            scales_GS = np.stack(
                [
                    noise_scales(config.gradient_noise, first, num_steps)
                    for config, first in zip(configs, first_steps, strict=True)
                ]
            )
            scales = torch.from_numpy(scales_GS).to(self._device, self._dtype)
            self._by_slot["noise_scales"][slots_G] = scales

    def _keys(self, num_slots: int, num_steps: int) -> Tensor:
        return torch.zeros(num_slots, num_steps, dtype=torch.int64, device=self._device)


def noise_counters(layout: ParameterLayout, device: torch.device) -> Tensor:
    """The counters of the draws of a slot's row of parameters, int64 [P]; 0 in its gaps.

    A counter is never 0 elsewhere, since γ is odd.
    """
    counters_P = torch.zeros(layout.row_size, dtype=torch.int64, device=device)
    views = layout.views(counters_P[None])
    counters = rng.counters(sum(view.numel() for view in views.values()), device)
    sizes = [view.numel() for view in views.values()]
    for view, its in zip(views.values(), torch.split(counters, sizes), strict=True):
        view.copy_(its.view_as(view))
    return counters_P


def noise_scales(variance: float, first_step: int, num_steps: int) -> NDArray[np.float64]:
    """The standard deviations √(variance/(1 + t)**γ) of some steps t, [S]."""
    # A quotient and a root, which are rounded alike wherever a number stands.
    scales: NDArray[np.float64] = np.sqrt(variance / _decays(first_step, num_steps))
    return scales


@lru_cache(maxsize=64)
def _decays(first_step: int, num_steps: int) -> NDArray[np.float64]:
    # Python's powers: numpy's vectorised ones are some last bits off.
    steps = range(first_step + 1, first_step + num_steps + 1)
    return np.array([float(step) ** NOISE_DECAY for step in steps])


def regulariser_bytes(kinds: Iterable[Regulariser], model: Model, num_rows: int, item: int) -> int:
    """What these take of a slot in a step at once, with `item` bytes a number.

    What is drawn, compared and multiplied: of a batch, and of the largest parameter.
    """
    kinds = {*kinds}
    num_numbers = num_rows * math.prod(model.sample_shape)
    largest = max(math.prod(parameter.shape) for parameter in model.parameters().values())
    total = 0
    if "input_dropout" in kinds:
        total += num_numbers * (8 + 8 + item)
    if "gradient_noise" in kinds:
        total += largest * (8 + 8 + 2 * item)
    if "max_norm" in kinds:
        total += largest * item
    if "label_smoothing" in kinds:
        total += num_rows * model.num_outputs * item
    return total
