"""The tensors that augment the batches of a pack, and the tables in them.

With D numbers in a sample, draw j of row b has the index b·(16 + D) + j.  j is a `Draw`, or 16 + d
for the noise of number d.  So a draw is the same whichever other kinds are in use.

Sines, shares and normal numbers are read from tables.  A library's functions may round differently
at the end of a vector than within it, so their bits would depend on the slot.

# K slots, B rows of a batch, S steps of an epoch, G slots of a group, A kinds of augmentation,
# J draws, L tables of T places
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum
from typing import Final, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ridgeline.search.engine import rng
from ridgeline.search.engine.config import Augmentation, RunConfig
from ridgeline.search.engine.normal import normal_quantiles

KINDS: tuple[Augmentation, ...] = get_args(Augmentation)
MOVES = frozenset[Augmentation]({"shift", "flip", "rotation"})
NUM_PLACES: Final = 1024


class Draw(IntEnum):
    """What a row's draws are for.  The numbers are part of every result: never change one."""

    SHIFT_DOWN = 0
    SHIFT_RIGHT = 1
    FLIP = 2
    ROTATION = 3
    CUT_ROW = 4
    CUT_COLUMN = 5
    CONTRAST = 6
    BRIGHTNESS = 7
    MIXUP = 8


FIRST_NOISE_DRAW: Final = 16
"""The noise of a row's first number; past the `Draw`s, with some to spare."""

_DRAWS: dict[Augmentation, tuple[Draw, ...]] = {
    "shift": (Draw.SHIFT_DOWN, Draw.SHIFT_RIGHT),
    "flip": (Draw.FLIP,),
    "rotation": (Draw.ROTATION,),
    "cutout": (Draw.CUT_ROW, Draw.CUT_COLUMN),
    "contrast": (Draw.CONTRAST,),
    "brightness": (Draw.BRIGHTNESS,),
    "input_noise": (),
    "mixup": (Draw.MIXUP,),
}


class Table(IntEnum):
    """The tables of a slot; a kind that is not in use has zeros."""

    COSINE = 0
    SINE = 1
    SHARE = 2


class AugmentationMemory:
    """The tensors that augment the batches of a pack.

    Args:
        kinds: those in use, at least one.
        sizes: K, S and B, with the rows that only pad a batch.
        sample_shape: of one sample.
    """

    def __init__(
        self,
        kinds: Sequence[Augmentation],
        sizes: tuple[int, int, int],
        sample_shape: Sequence[int],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._kinds = kinds
        num_slots, num_steps, num_rows = sizes
        num_numbers = math.prod(sample_shape)
        self.keys_KS = torch.zeros(num_slots, num_steps, dtype=torch.int64, device=device)
        self._strengths_KA = torch.zeros(num_slots, len(KINDS), dtype=dtype, device=device)
        num_tables = len(Table) if {"rotation", "mixup"} & {*kinds} else 0
        self._tables_KLT = torch.zeros(
            num_slots, num_tables, NUM_PLACES, dtype=dtype, device=device
        )
        stride = FIRST_NOISE_DRAW + num_numbers
        counters_BJ = rng.counters(num_rows * stride, device).view(num_rows, stride)
        draws_J = torch.tensor(draws_of(kinds), dtype=torch.int64, device=device)
        self._draws_JB = counters_BJ[:, draws_J].t().contiguous()
        self._noise: dict[str, Tensor] = {}
        if "input_noise" in kinds:
            self._noise = {
                "noise": counters_BJ[:, FIRST_NOISE_DRAW:].contiguous(),
                "normal": torch.tensor(normal_quantiles(), dtype=dtype, device=device),
            }

    def by_slot(self) -> list[Tensor]:
        """All tensors whose first dimension is the slots."""
        return [self.keys_KS, self._strengths_KA, self._tables_KLT]

    def inputs(self) -> dict[str, Tensor]:
        """All that `Augmenting` reads."""
        tables = {"tables": self._tables_KLT} if self._tables_KLT.shape[1] else {}
        return {
            "keys": self.keys_KS,
            "strengths": self._strengths_KA,
            "draws": self._draws_JB,
            **tables,
            **self._noise,
        }

    def write_constants(self, slots_G: Tensor, configs: Sequence[RunConfig]) -> None:
        """Write what stays the same all through these runs."""
        device, dtype = self._strengths_KA.device, self._strengths_KA.dtype
        strengths = [[getattr(config, kind) for kind in KINDS] for config in configs]
        self._strengths_KA[slots_G] = torch.tensor(strengths, dtype=dtype, device=device)
        if self._tables_KLT.shape[1]:
            tables_GLT = torch.from_numpy(np.stack([_tables(config) for config in configs]))
            self._tables_KLT[slots_G] = tables_GLT.to(device, dtype)

    def write_keys(self, slots_G: Tensor, seeds: Sequence[int], first_steps: Sequence[int]) -> None:
        """Write the keys of an epoch of each, whose first step is counted over the run's life."""
        keys = [rng.stream_key(seed, rng.Stream.AUGMENTATION) for seed in seeds]
        num_steps, device = self.keys_KS.shape[1], self.keys_KS.device
        self.keys_KS[slots_G] = rng.step_keys(keys, first_steps, num_steps, device)


def draws_of(kinds: Sequence[Augmentation]) -> list[Draw]:
    """The draws that each row takes for these kinds, those of noise apart."""
    return [draw for kind in kinds for draw in _DRAWS[kind]]


def mixup_shares(alpha: float) -> NDArray[np.float64]:
    """The quantiles of min(λ, 1 - λ), λ from Beta(alpha, alpha), at the middles of 1,024 parts.

    The density of m = min(λ, 1 - λ) is in proportion to (m·(1 - m))**(alpha - 1), which has no
    bound at 0 where alpha is below 1.  In terms of t = (2m)**p with p = min(alpha, 1) it is
    m**(alpha - p)·(1 - m)**(alpha - 1), which has; that is added up by the trapezoidal rule.
    """
    power = min(alpha, 1.0)
    t = np.linspace(0, 1, 4 * NUM_PLACES + 1)
    m = t ** (1 / power) / 2
    density = (2 * m) ** (alpha - power) * (1 - m) ** (alpha - 1)
    distribution = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    middles = (np.arange(NUM_PLACES) + 0.5) / NUM_PLACES
    at = np.interp(middles, distribution / distribution[-1], t)
    shares: NDArray[np.float64] = at ** (1 / power) / 2
    return shares


def _tables(config: RunConfig) -> NDArray[np.float64]:
    """A run's `Table`s, [L, T]."""
    tables_LT = np.zeros((len(Table), NUM_PLACES))
    if config.rotation > 0:
        turns_T = 2 * (np.arange(NUM_PLACES) + 0.5) / NUM_PLACES - 1
        angles_T = np.radians(config.rotation * turns_T)
        tables_LT[Table.COSINE], tables_LT[Table.SINE] = np.cos(angles_T), np.sin(angles_T)
    if config.mixup > 0:
        tables_LT[Table.SHARE] = mixup_shares(config.mixup)
    return tables_LT


def augmentation_bytes(
    kinds: Sequence[Augmentation], sample_shape: Sequence[int], item: int
) -> int:
    """What augmenting one row takes at once, by the shapes above, with `item` bytes a number."""
    if not kinds:
        return 0
    num_numbers, num_pixels = math.prod(sample_shape), math.prod(sample_shape[1:])
    total = 3 * item * num_numbers
    if MOVES & {*kinds}:
        num_places = 4 if "rotation" in kinds else 1
        total += num_pixels * num_places * (item + 8) + num_numbers * num_places * item
    if "input_noise" in kinds:
        total += num_numbers * (8 + 8 + item)
    return total
