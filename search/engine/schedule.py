"""What each step of an epoch takes: the rows in order, their labels and their validity.

Everything that a step needs and that can be known beforehand is computed for a whole epoch, so a
step itself is free of bookkeeping.

# K slots, S steps of an epoch, B rows of a batch (padded), N training samples
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from search.engine import rng
from search.engine.data import Split
from search.engine.layers import Rows
from search.engine.layout import round_up


@dataclass(frozen=True)
class Batch:
    """The rows of one step of every slot."""

    samples_KB: Tensor
    target_KB: Tensor
    rows: Rows


class Schedule:
    """The order of the samples in every slot's current epoch.

    Every sample comes once an epoch.  The last batch may be partial: it is padded with its first
    row, and `Rows` tells what counts.  A padded row repeats a real one rather than being zero so
    that nothing comes up in it that does not come up in the batch itself.

    In packs wider than one, batches are padded to a multiple of 16 rows, so that every slot's part
    of every activation begins on a 64-byte line and the same kernels run for each, to the bit.
    """

    def __init__(self, train: Split, *, width: int, batch_size: int, dtype: torch.dtype) -> None:
        device, num_samples = train.x.device, train.num_samples
        rows_per_batch = min(batch_size, num_samples)
        self.num_rows = rows_per_batch if width == 1 else round_up(rows_per_batch)
        self.num_steps = -(-num_samples // rows_per_batch)
        self._train = train
        self._counters_N = rng.counters(num_samples, device)
        table = (width, self.num_steps, self.num_rows)
        self._samples_KSB = torch.zeros(table, dtype=torch.int64, device=device)
        self._target_KSB = torch.zeros(table, dtype=torch.int64, device=device)
        self._slots_K = torch.arange(width, device=device)

        starts_S = torch.arange(self.num_steps, device=device) * rows_per_batch
        num_valid_S = (num_samples - starts_S).clamp(max=rows_per_batch)
        rows_B = torch.arange(self.num_rows, device=device)
        self.invalid_SB = rows_B >= num_valid_S[:, None]
        self._num_valid_S = num_valid_S.to(dtype)
        self._positions_SB = starts_S[:, None] + torch.where(self.invalid_SB, 0, rows_B)
        # Known on the host, so that a step without padding need not look at the masks.
        self._is_padded = [bool(padded) for padded in self.invalid_SB.any(dim=1).tolist()]

    def is_padded(self, step: int) -> bool:
        """Whether rows of this step do not count."""
        return self._is_padded[step]

    def prepare_epoch(self, slot: int, seed: int, epoch: int) -> None:
        """Draw the slot's order of samples for an epoch, counted from 0."""
        order_N = rng.permutation(seed, epoch, self._counters_N)
        samples_SB = order_N[self._positions_SB]
        self._samples_KSB[slot] = samples_SB
        self._target_KSB[slot] = self._train.y[samples_SB]

    def targets_of(self, slot: int) -> Tensor:
        """The labels of the slot's current epoch, int64 [S, B]."""
        return self._target_KSB[slot]

    def batch(self, step_K: Tensor | int, *, padded: bool) -> Batch:
        """The rows of a step.

        Args:
            step_K: each slot's step in its epoch, int64, or one step that all have in common.
            padded: whether any slot has rows that do not count.
        """
        at: tuple[Tensor | slice, Tensor | int]
        at = (slice(None), step_K) if isinstance(step_K, int) else (self._slots_K, step_K)
        invalid_KB1 = self.invalid_SB[step_K].view(-1, self.num_rows, 1) if padded else None
        rows = Rows(invalid_KB1, self._num_valid_S[step_K].view(-1, 1, 1))
        return Batch(self._samples_KSB[at], self._target_KSB[at], rows)
