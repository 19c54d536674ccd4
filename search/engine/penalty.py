"""The penalties on the parameters.

Objective: loss + a·Σ|w| + b·Σw², with (a, b) = (l1, l2) for `lambda_convention="sum"` and
(l1, l2)/(2m) for `"half_per_sample"`, m being the number of training samples: the textbooks'
λ/(2m)·‖W‖² (Nielsen, "Neural networks and deep learning", ch. 3; Ng's notes).  torch's own
`weight_decay` of SGD and Adam adds weight_decay·w to the gradient, so it is b = weight_decay/2.

`weight_decay` here is the decoupled one of AdamW (Loshchilov and Hutter, 2019) for *every*
optimizer: w ← (1 - learning_rate·weight_decay)·w before the update, outside the objective.

The gradient of a·Σ|w| is the subgradient a·sign(w), 0 at 0, and hardly ever brings a weight to 0.
With `l1_update="proximal"` it is left out, and after each update the weights are soft-thresholded
by learning_rate·a (ISTA; Beck and Teboulle, 2009).  The threshold is the plain learning rate's for
Adam too, not scaled by its second moment.

# K slots, R numbers of a region
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from search.engine.config import RunConfig


@dataclass(frozen=True)
class PenaltyTerms:
    """What happens to a parameter w in each step, besides the gradient g of the loss.

    g ← g + l2·w + l1·sign(w);  w ← w·(1 - decay);  the update;  w ← soft-threshold(w, threshold).
    """

    l1: float = 0.0
    l2: float = 0.0
    decay: float = 0.0
    threshold: float = 0.0

    @classmethod
    def of(cls, config: RunConfig, num_train_samples: int) -> PenaltyTerms:
        """The terms for parameters that `config.penalize` selects."""
        scale = 1.0 if config.lambda_convention == "sum" else 1 / (2 * num_train_samples)
        proximal = config.l1_update == "proximal"
        return cls(
            l1=0.0 if proximal else config.l1 * scale,
            l2=2 * config.l2 * scale,
            decay=config.learning_rate * config.weight_decay,
            threshold=config.learning_rate * config.l1 * scale if proximal else 0.0,
        )


NO_PENALTY = PenaltyTerms()


class PenalizedRegion:
    """A stretch of every slot's row on which the same terms act.

    A term that is 0 in every slot costs nothing; where it is 0 in one slot only, it changes no
    value there, so a slot cannot tell which neighbours it has.

    Args:
        parameters_KR, gradients_KR, scratch_KR: views of one stretch of the packs' rows.
    """

    def __init__(self, parameters_KR: Tensor, gradients_KR: Tensor, scratch_KR: Tensor) -> None:
        self._parameters_KR = parameters_KR
        self._gradients_KR = gradients_KR
        self._scratch_KR = scratch_KR
        width = len(parameters_KR)
        self._terms = [NO_PENALTY] * width
        self._l1_K1, self._l2_K1, self._threshold_K1 = (
            parameters_KR.new_zeros(width, 1) for _ in range(3)
        )
        self._keep_K1 = parameters_KR.new_ones(width, 1)

    def set_terms(self, slot: int, terms: PenaltyTerms) -> None:
        """The terms of one slot from now on."""
        self._terms[slot] = terms
        self._l1_K1[slot] = terms.l1
        self._l2_K1[slot] = terms.l2
        self._keep_K1[slot] = 1 - terms.decay
        self._threshold_K1[slot] = terms.threshold

    def before_update(self) -> None:
        """Add the penalties' gradients, then decay the parameters."""
        if any(terms.l2 for terms in self._terms):
            torch.mul(self._parameters_KR, self._l2_K1, out=self._scratch_KR)
            self._gradients_KR.add_(self._scratch_KR)
        if any(terms.l1 for terms in self._terms):
            torch.sign(self._parameters_KR, out=self._scratch_KR)
            self._gradients_KR.add_(self._scratch_KR.mul_(self._l1_K1))
        if any(terms.decay for terms in self._terms):
            self._parameters_KR.mul_(self._keep_K1)

    def after_update(self) -> None:
        """Soft-threshold the parameters: w - clamp(w, -t, t)."""
        if any(terms.threshold for terms in self._terms):
            torch.minimum(self._parameters_KR, self._threshold_K1, out=self._scratch_KR)
            torch.maximum(self._scratch_KR, -self._threshold_K1, out=self._scratch_KR)
            self._parameters_KR.sub_(self._scratch_KR)
