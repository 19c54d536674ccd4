"""Regularisers of which each slot has strengths of its own; 0 means none, and changes no bit.

* `max_norm` c: after each update, and after the proximal step of l1, a unit's incoming weights w
  with ‖w‖ > c become w·c/‖w‖ (Srivastava et al., "Dropout: a simple way to prevent neural networks
  from overfitting", 2014, section 5.1).  Units are the first dimension of what is penalised and has
  two or more: a linear layer's units, a convolution's output channels, each gate of a recurrent
  unit.  An embedding has a bound for each of its vectors, as `max_norm` of `torch.nn.Embedding`.
  A norm that is not finite is left as it is, which shows that a run has diverged.
* `input_dropout` p: each number of a sample is 0 with probability p and otherwise divided by 1 - p,
  after augmentation (ibid., section 4: in training alone).  Not for ids, of which no fraction
  can be taken.
* `label_smoothing`: see `losses.Loss.judge`.  As in torch and timm the loss of training is of the
  smoothed targets, and that of evaluation of the targets as they are.
* `gradient_noise` η: normal noise with variance η/(1 + t)**0.55 in step t, counted from 0 over the
  run's life, is added to each number of the gradient of the objective (Neelakantan et al., "Adding
  gradient noise improves learning for very deep networks", 2015, equation 1).  After clipping, as
  published implementations of their memory networks do: its variance is what the formula says,
  whatever the gradient's norm was.

`regulariser_memory` tells which draw has which index.

# K slots, B rows of a batch, D numbers of a sample, H units, I incoming weights of each
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ridgeline.search.engine import rng
from ridgeline.search.engine.layout import layouts
from ridgeline.search.engine.models.base import Model
from ridgeline.search.engine.normal import normal_numbers


class Regularising:
    """Regularises the slots of a pack by torch's operations.

    Args:
        tensors: of `RegulariserMemory.inputs`.
        parameters, gradients: stacks [K, …] by name.
    """

    def __init__(
        self,
        model: Model,
        tensors: Mapping[str, Tensor],
        parameters: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
    ) -> None:
        self._tensors, self._gradients = tensors, gradients
        self._counters: dict[str, Tensor] = {}
        if "noise_counters" in tensors:
            counters_1P = tensors["noise_counters"][None]
            views = layouts(model)[0].views(counters_1P)
            self._counters = {name: view[0] for name, view in views.items()}
        self._weights_KHI = [
            parameters[name].flatten(2)
            for name, parameter in model.parameters().items()
            if parameter.num_units
        ]

    @property
    def smoothing_K(self) -> Tensor:
        """The share of each slot's targets that is spread over the classes."""
        return self._tensors["smoothing"]

    def drop_inputs(self, at: tuple[Tensor, Tensor], x_KB: Tensor) -> Tensor:
        """Samples [K, B, …] without the numbers that are dropped."""
        draws_KBD = rng.draw(self._tensors["input_keys"][at], self._tensors["input_counters"])
        kept_KBD = draws_KBD >= self._tensors["input_thresholds"][:, :, None]
        scaled_KBD = x_KB.flatten(2) * self._tensors["input_scales"][:, :, None]
        return torch.where(kept_KBD, scaled_KBD, 0).view_as(x_KB)

    def add_noise(self, at: tuple[Tensor, Tensor]) -> None:
        """Add noise to the gradients."""
        keys_K, scales_K = (self._tensors[name][at] for name in ("noise_keys", "noise_scales"))
        for name, gradient in self._gradients.items():
            draws = rng.draw(keys_K, self._counters[name])
            scales = scales_K.view(-1, *(1,) * (gradient.dim() - 1))
            noise = normal_numbers(draws, self._tensors["normal"]).mul_(scales)
            # By selection: -0 + 0 is 0, and a slot without noise is to keep its bits.
            gradient.copy_(torch.where(scales > 0, gradient + noise, gradient))

    def bound_norms(self) -> None:
        """Shorten the incoming weights of units that are too long."""
        bounds_K1 = self._tensors["max_norms"][:, None]
        for weights_KHI in self._weights_KHI:
            norms_KH = weights_KHI.square().sum(dim=2).sqrt_()
            is_long = (bounds_K1 > 0) & (norms_KH > bounds_K1) & (norms_KH < math.inf)
            factors_KH = torch.where(is_long, bounds_K1 / norms_KH, 1)
            weights_KHI.mul_(factors_KH[:, :, None])
