"""The optimizers' updates, written once for all slots: elementwise, with a coefficient a slot.

torch's optimizers have one learning rate for all the models of a stack (functorch issue 782), and
one step count.  Here both are a slot's own.  Every update expects penalties in the gradients
already; decoupled weight decay is the penalties' too, so Adam and AdamW are one update here.

All tensors are [K, …], K being the slots; coefficients are shaped to be broadcast over them.

# G runs, S steps of an epoch
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

ADAM_BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-8
CLIP_EPSILON = 1e-6
"""As `torch.nn.utils.clip_grad_norm_` has it."""

# A step of less changes no weight, but its inverse would overflow float32.
_SMALLEST_RATE = 1e-30


def sgd(
    parameters: Tensor,
    gradients: Tensor,
    scratch: Tensor,
    buffer: Tensor,
    rate: Tensor,
    *,
    momentum: Tensor | None,
    nesterov: Tensor,
) -> None:
    """b ← momentum·b + g;  w ← w - rate·(g + momentum·b if nesterov, else b).

    As `torch.optim.SGD` without dampening; the buffer starts as 0, so the first one is g, as there.
    A slot without momentum gets 0·b + g = g, the value it has where `momentum` is None.
    """
    if momentum is None:
        torch.mul(gradients, rate, out=scratch)
    else:
        # Where there is no momentum the buffer stays 0, whether or not a neighbour has one.
        buffer.copy_(torch.where(momentum == 0, buffer, buffer * momentum + gradients))
        ahead = torch.where(nesterov != 0, gradients + buffer * momentum, buffer)
        torch.mul(torch.where(momentum == 0, gradients, ahead), rate, out=scratch)
    parameters.sub_(scratch)


def adam(
    parameters: Tensor,
    gradients: Tensor,
    scratch: Tensor,
    first: Tensor,
    second: Tensor,
    factor: Tensor,
    epsilon: Tensor,
) -> None:
    """Adam (Kingma and Ba, 2015), algorithm 1; `factor` and `epsilon` are `adam_coefficients`."""
    first.lerp_(gradients, 1 - ADAM_BETAS[0])
    second.mul_(ADAM_BETAS[1]).addcmul_(gradients, gradients, value=1 - ADAM_BETAS[1])
    # mul_ and add_ rather than one addcmul: with broadcast coefficients that one is not
    # vectorised on a CPU (454 against 300 µs for the whole update of 407,000 parameters).
    denominator = torch.sqrt(second, out=scratch)
    denominator.mul_(factor).add_(epsilon)
    parameters.addcdiv_(first, denominator, value=-1)


def adam_coefficients(
    rates_GS: npt.NDArray[np.float64], first_steps: Sequence[int]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The factor and the epsilon of steps first_step, first_step + 1, … of runs, each [G, S].

    With r = rate/(1 - β₁ᵗ) and c = √(1 - β₂ᵗ), w ← w - r·m/(√v/c + ε) is written as
    w ← w - m/(√v·1/(c·r) + ε/r): two coefficients a step, and one pass less.
    """
    corrections = [_bias_corrections(first, rates_GS.shape[1]) for first in first_steps]
    first_GS, second_GS = (np.stack(rows) for rows in zip(*corrections, strict=True))
    r_GS = np.maximum(rates_GS, _SMALLEST_RATE) / first_GS
    return 1 / (np.sqrt(second_GS) * r_GS), ADAM_EPSILON / r_GS


@lru_cache(maxsize=64)
def _bias_corrections(
    first_step: int, num_steps: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """1 - βᵗ of both betas; most slots of a pack ask for the same."""
    # Python's powers are torch.optim's; numpy's vectorised ones are some last bits off.
    steps = range(first_step + 1, first_step + num_steps + 1)
    first_S, second_S = (np.array([1 - beta**t for t in steps]) for beta in ADAM_BETAS)
    return first_S, second_S


def clip_factors(gradients: Sequence[Tensor], max_norm_K: Tensor) -> Tensor:
    """What to multiply each slot's gradients with, so that their norm is at most `max_norm_K`.

    min(1, max_norm/(‖g‖ + 1e-6)), the norm over all the tensors given, as
    `torch.nn.utils.clip_grad_norm_`.  A norm that is not finite is not clipped to a finite one.

    Returns:
        [K].
    """
    first, *others = [gradient.square().flatten(1).sum(dim=1) for gradient in gradients]
    # One by one: torch's sum over a dimension of five or more is in another order in some slots.
    for squares_K in others:
        first = first + squares_K
    norm_K = first.sqrt()
    return (max_norm_K / (norm_K + CLIP_EPSILON)).clamp(max=1)
