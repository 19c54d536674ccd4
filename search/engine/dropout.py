"""Dropout with a probability a slot and counted masks.

Inverted dropout (Srivastava et al., 2014), as torch's: a kept unit is scaled by 1/(1 - p) in
training, and evaluation changes nothing.  Unit u of row b in step t of a run's life is dropped
where `rng.uniform(seed, Stream.DROPOUT, t, …)[b·U + u] < p`.

# K slots, S steps of an epoch, B rows of a batch, U hidden units of all layers
"""

from __future__ import annotations

import torch
from torch import Tensor

from search.engine import rng
from search.engine.config import ModelShape, RunConfig


class Dropout:
    """The masks of K slots.  Costs nothing while no slot has a probability above 0."""

    def __init__(
        self,
        shape: ModelShape,
        *,
        width: int,
        num_rows: int,
        steps_per_epoch: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._num_units = sum(shape.hidden)
        self._num_rows = num_rows
        self._probabilities = [0.0] * width
        self._stream_keys = [0] * width
        self._thresholds_K1 = torch.zeros(width, 1, dtype=torch.int64, device=device)
        self._scales_K1 = torch.ones(width, 1, dtype=dtype, device=device)
        self._keys_KS = torch.zeros(width, steps_per_epoch, dtype=torch.int64, device=device)
        self._slots_K = torch.arange(width, device=device)
        self._zero = torch.zeros((), dtype=dtype, device=device)
        self._counters_N = torch.empty(0, dtype=torch.int64, device=device)

    def load(self, slot: int, config: RunConfig) -> None:
        """Take over a run's probability and seed."""
        self._probabilities[slot] = config.dropout
        self._stream_keys[slot] = rng.stream_key(config.seed, rng.Stream.DROPOUT)
        self._thresholds_K1[slot] = rng.threshold(config.dropout)
        self._scales_K1[slot] = 1 / (1 - config.dropout)

    def free(self, slot: int) -> None:
        """Stop drawing for a slot."""
        self._probabilities[slot] = 0.0

    def prepare_epoch(self, slot: int, first_step: int) -> None:
        """Compute the slot's keys for the steps of an epoch; `first_step` counts from the start."""
        num_steps = self._keys_KS.shape[1]
        self._keys_KS[slot] = rng.step_keys(
            self._stream_keys[slot], first_step, num_steps, self._keys_KS.device
        )

    def scales(self, step_K: Tensor | int) -> Tensor | None:
        """What to multiply each hidden unit with: 0 or 1/(1 - p), [K, B, U].

        Args:
            step_K: each slot's step in its epoch, int64, or one step that all have in common.

        Returns:
            None where no slot drops anything.
        """
        if self._num_units == 0 or not any(self._probabilities):
            return None
        if len(self._counters_N) == 0:
            num_draws = self._num_rows * self._num_units
            self._counters_N = rng.counters(num_draws, self._keys_KS.device)
        if isinstance(step_K, int):
            keys_K = self._keys_KS[:, step_K]
        else:
            keys_K = self._keys_KS[self._slots_K, step_K]
        kept_KN = rng.draw(keys_K, self._counters_N) >= self._thresholds_K1
        scales_KN = torch.where(kept_KN, self._scales_K1, self._zero)
        return scales_KN.view(-1, self._num_rows, self._num_units)
