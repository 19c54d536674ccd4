"""The optimizers' updates, written once for all slots: elementwise, with a coefficient a slot.

torch's optimizers have one learning rate for all the models of a stack (functorch issue 782), and
one step count.  Here both are a slot's own.  Every method that takes gradients expects penalties in
them already; decoupled weight decay is the penalties' too, so Adam and AdamW are one update here.

# K slots, P numbers a slot, S steps of an epoch
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from search.engine.config import OptimizerName, RunConfig

ADAM_BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-8

# A step of less changes no weight, but its inverse would overflow float32.
_SMALLEST_RATE = 1e-30


class Update(ABC):
    """One family of optimizers over rows of parameters and gradients.

    Attributes:
        moments: the optimizer's state, by name, each [K, P]; all zero for a fresh run.
    """

    moments: dict[str, Tensor]

    @abstractmethod
    def load(self, slot: int, config: RunConfig) -> None:
        """Take over the coefficients of a run.  The caller fills the slot's moments."""

    @abstractmethod
    def free(self, slot: int) -> None:
        """Stop working for a slot."""

    @abstractmethod
    def prepare_epoch(self, slot: int, first_step: int) -> None:
        """Compute the slot's coefficients for the steps of an epoch.

        Args:
            first_step: steps that the slot's run has taken before.
        """

    @abstractmethod
    def step(self, step_K: Tensor | int) -> None:
        """Change the parameters of every slot.

        Args:
            step_K: each slot's step in its epoch, int64, or one step that all have in common.
        """


def make_update(
    optimizer: OptimizerName,
    parameters_KP: Tensor,
    gradients_KP: Tensor,
    scratch_KP: Tensor,
    steps_per_epoch: int,
) -> Update:
    """The update of a family, with fresh state."""
    if optimizer == "sgd":
        return SgdUpdate(parameters_KP, gradients_KP, scratch_KP)
    return AdamUpdate(parameters_KP, gradients_KP, scratch_KP, steps_per_epoch)


@final
class SgdUpdate(Update):
    """b ← momentum·b + g;  w ← w - learning_rate·b, as `torch.optim.SGD` without dampening.

    The buffer starts as 0, so the first one is g, as in torch.
    """

    def __init__(self, parameters_KP: Tensor, gradients_KP: Tensor, scratch_KP: Tensor) -> None:
        self._parameters_KP = parameters_KP
        self._gradients_KP = gradients_KP
        self._scratch_KP = scratch_KP
        self._momentum_KP = torch.zeros_like(parameters_KP)
        self._momentum_of_slot = [0.0] * len(parameters_KP)
        self._momentum_K1 = parameters_KP.new_zeros(len(parameters_KP), 1)
        self._rate_K1 = parameters_KP.new_zeros(len(parameters_KP), 1)
        self.moments = {"momentum": self._momentum_KP}

    def load(self, slot: int, config: RunConfig) -> None:
        self._momentum_of_slot[slot] = config.momentum
        self._momentum_K1[slot] = config.momentum
        self._rate_K1[slot] = config.learning_rate

    def free(self, slot: int) -> None:
        self._momentum_of_slot[slot] = 0.0

    def prepare_epoch(self, slot: int, first_step: int) -> None:
        pass

    def step(self, step_K: Tensor | int) -> None:
        if any(self._momentum_of_slot):
            # A slot without momentum gets 0·b + g = g, the value it has without this branch.
            self._momentum_KP.mul_(self._momentum_K1).add_(self._gradients_KP)
            torch.mul(self._momentum_KP, self._rate_K1, out=self._scratch_KP)
            if not all(self._momentum_of_slot):
                # Its buffer stays 0 too, whether or not a neighbour brought it here.
                self._momentum_KP.masked_fill_(self._momentum_K1 == 0, 0)
        else:
            torch.mul(self._gradients_KP, self._rate_K1, out=self._scratch_KP)
        self._parameters_KP.sub_(self._scratch_KP)


@final
class AdamUpdate(Update):
    """Adam (Kingma and Ba, 2015), algorithm 1, with bias correction by the slot's own step count.

    With r = learning_rate/(1 - β₁ᵗ) and c = √(1 - β₂ᵗ), w ← w - r·m/(√v/c + ε) is written as
    w ← w - m/(√v·1/(c·r) + ε/r): two coefficients a step, and one pass less.
    """

    def __init__(
        self, parameters_KP: Tensor, gradients_KP: Tensor, scratch_KP: Tensor, steps_per_epoch: int
    ) -> None:
        width = len(parameters_KP)
        self._parameters_KP = parameters_KP
        self._gradients_KP = gradients_KP
        self._scratch_KP = scratch_KP
        self._first_KP = torch.zeros_like(parameters_KP)
        self._second_KP = torch.zeros_like(parameters_KP)
        self._rates = [0.0] * width
        self._factors_KS = parameters_KP.new_ones(width, steps_per_epoch)
        self._epsilons_KS = parameters_KP.new_ones(width, steps_per_epoch)
        self._slots_K = torch.arange(width, device=parameters_KP.device)
        self.moments = {"first_moment": self._first_KP, "second_moment": self._second_KP}

    def load(self, slot: int, config: RunConfig) -> None:
        self._rates[slot] = max(config.learning_rate, _SMALLEST_RATE)

    def free(self, slot: int) -> None:
        pass

    def prepare_epoch(self, slot: int, first_step: int) -> None:
        factors_S, epsilons_S = self._factors_KS[slot], self._epsilons_KS[slot]
        t_S = torch.arange(
            first_step + 1,
            first_step + len(factors_S) + 1,
            dtype=torch.float64,
            device=factors_S.device,
        )
        corrections_S = [1 - beta**t_S for beta in ADAM_BETAS]
        rate_S = self._rates[slot] / corrections_S[0]
        factors_S.copy_(1 / (corrections_S[1].sqrt() * rate_S))
        epsilons_S.copy_(ADAM_EPSILON / rate_S)

    def step(self, step_K: Tensor | int) -> None:
        if isinstance(step_K, int):
            factor_K1 = self._factors_KS[:, step_K, None]
            epsilon_K1 = self._epsilons_KS[:, step_K, None]
        else:
            factor_K1 = self._factors_KS[self._slots_K, step_K][:, None]
            epsilon_K1 = self._epsilons_KS[self._slots_K, step_K][:, None]
        gradients_KP = self._gradients_KP
        self._first_KP.lerp_(gradients_KP, 1 - ADAM_BETAS[0])
        self._second_KP.mul_(ADAM_BETAS[1]).addcmul_(
            gradients_KP, gradients_KP, value=1 - ADAM_BETAS[1]
        )
        # mul_ and add_ rather than one addcmul: with broadcast coefficients that one is not
        # vectorised on a CPU (454 against 300 µs for the whole update of 407,000 parameters).
        denominator_KP = torch.sqrt(self._second_KP, out=self._scratch_KP)
        denominator_KP.mul_(factor_K1).add_(epsilon_K1)
        self._parameters_KP.addcdiv_(self._first_KP, denominator_KP, value=-1)
