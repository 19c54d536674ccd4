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

# All tensors are [K, …], K being the slots; coefficients are shaped to be broadcast over them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ridgeline.search.engine.config import RunConfig


def lambda_scale(config: RunConfig, num_train_samples: int) -> float:
    """What l1 and l2 are multiplied with to become a and b."""
    return 1.0 if config.lambda_convention == "sum" else 1 / (2 * num_train_samples)


def add_gradients(
    parameters: Tensor,
    gradients: Tensor,
    scratch: Tensor,
    *,
    l1: Tensor | None,
    l2: Tensor | None,
) -> None:
    """g ← g + l2·w + l1·sign(w), with l2 = 2b and l1 = a; None leaves a term out."""
    if l2 is not None:
        # By selection: 0·w is NaN where w is infinite, and a slot without l2 is to see none of it.
        torch.mul(parameters, l2, out=scratch).masked_fill_(l2 == 0, 0)
        gradients.add_(scratch)
    if l1 is not None:
        torch.sign(parameters, out=scratch)
        gradients.add_(scratch.mul_(l1))


def soft_threshold(parameters: Tensor, scratch: Tensor, threshold: Tensor) -> None:
    """w ← w - clamp(w, -threshold, threshold)."""
    torch.minimum(parameters, threshold, out=scratch)
    torch.maximum(scratch, -threshold, out=scratch)
    parameters.sub_(scratch)
