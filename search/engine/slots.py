"""What a run brings into its slot: its start, and the tables of each of its epochs.

All of it is whole numbers, or worked out for each slot alone, so it does not matter who else is
written at the same time.

# K slots, P parameters a slot, S steps of an epoch, B rows of a batch, G slots of a group,
# N samples, E epochs
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from ridgeline.search.engine import rng
from ridgeline.search.engine.coefficients import constants_row, rate_tables
from ridgeline.search.engine.config import RunConfig
from ridgeline.search.engine.layout import Stacks
from ridgeline.search.engine.memory import PackMemory
from ridgeline.search.engine.spec import StepSpec

_NUMBERS_AT_ONCE, _RUNS_AT_ONCE = 2**20, 8
"""Whose starts are made at once: bounds the memory that it takes, and what models remember."""

_SAMPLES_AHEAD, _EPOCHS_AHEAD = 2**15, 8
"""For how many epochs of a run tables are made at once, on a CPU: a narrow pack of a small data set
spent as long on the calls of their operations as on the steps."""


class EpochTables(NamedTuple):
    """What a run's slot holds for one epoch: samples [S, B], dropout keys [S] and rates [S, C]."""

    samples: Tensor
    dropout_keys: Tensor
    rates: Tensor


@dataclass
class Occupant:
    """A run in a slot."""

    config: RunConfig
    epochs_done: int
    step: int | None
    """Steps taken in the current epoch; None before its first, so before it is prepared."""
    is_written: bool
    """Whether its start is in the slot's tensors."""
    ahead: dict[int, EpochTables] = field(default_factory=dict)
    """Tables of epochs to come, by how many epochs are done before."""


class SlotWriter:
    """Writes runs into the slots of a pack.

    Args:
        gradients: None where they are the program's own.
    """

    def __init__(self, spec: StepSpec, memory: PackMemory, gradients: Stacks | None) -> None:
        self._spec, self._memory, self._gradients = spec, memory, gradients
        self._device, self._dtype = memory.data.device, memory.data.dtype
        self._counters_N = rng.counters(spec.num_samples, self._device)

    def write_starts(self, runs: Mapping[int, Occupant]) -> None:
        """Write the starts of these runs, by slot."""
        memory, (device, dtype) = self._memory, (self._device, self._dtype)
        at_once = max(1, min(_RUNS_AT_ONCE, _NUMBERS_AT_ONCE // memory.layout.row_size))
        numbers = [*runs]
        for start in range(0, len(numbers), at_once):
            group = {slot: runs[slot] for slot in numbers[start : start + at_once]}
            group_G = torch.tensor([*group], device=device)
            seeds = [run.config.seed for run in group.values()]
            memory.parameters.put_rows(group_G, memory.layout.initial_rows(seeds, device, dtype))
            statistics_GQ = memory.statistics_layout.initial_rows(seeds, device, dtype)
            memory.statistics.put_rows(group_G, statistics_GQ)
            for stacks in memory.moments.values():
                stacks.clear_rows(group_G)
            self.write_constants(group)
        for run in runs.values():
            run.is_written = True

    def write_constants(self, runs: Mapping[int, Occupant]) -> None:
        """Write what stays the same all through these runs, by slot."""
        memory, configs = self._memory, [run.config for run in runs.values()]
        group_G = torch.tensor([*runs], device=self._device)
        self.clear_gradients([*runs])
        rows = [constants_row(config, self._spec.num_samples) for config in configs]
        memory.constants_KC[group_G] = torch.tensor(
            rows, dtype=memory.constants_KC.dtype, device=self._device
        )
        thresholds = [[rng.threshold(config.dropout)] for config in configs]
        memory.dropout_thresholds_K1[group_G] = torch.tensor(thresholds, device=self._device)
        if memory.class_weights_KC is not None:
            weights = [config.class_weights for config in configs]
            memory.class_weights_KC[group_G] = torch.tensor(
                weights, dtype=self._dtype, device=self._device
            )
        if memory.augmentation is not None:
            memory.augmentation.write_constants(group_G, configs)
        if memory.regularisers is not None:
            memory.regularisers.write_constants(group_G, configs)
        memory.occupied_K[group_G] = True

    def prepare_epochs(self, runs: Mapping[int, Occupant]) -> None:
        """Draw the order of the samples, and work out keys and coefficients, for an epoch each."""
        if not runs:
            return
        memory, num_steps, device = self._memory, self._spec.num_steps, self._device
        group_G, occupants = torch.tensor([*runs], device=device), [*runs.values()]
        self._draw_ahead([run for run in occupants if run.epochs_done not in run.ahead])
        its = [run.ahead.pop(run.epochs_done) for run in occupants]
        memory.samples_KSB[group_G] = torch.stack([tables.samples for tables in its])
        memory.rates_KSC[group_G] = torch.stack([tables.rates for tables in its])
        if self._spec.drops:
            keys_GS = torch.stack([tables.dropout_keys for tables in its])
            memory.dropout_keys_KS[group_G] = keys_GS
        first_steps = [run.epochs_done * num_steps for run in occupants]
        configs = [run.config for run in occupants]
        if memory.augmentation is not None:
            seeds = [config.seed for config in configs]
            memory.augmentation.write_keys(group_G, seeds, first_steps)
        if memory.regularisers is not None:
            memory.regularisers.write_epochs(group_G, configs, first_steps)
        memory.loss_sums_K[group_G] = 0
        memory.score_sums_K[group_G] = 0
        memory.step_K[group_G] = 0
        for run in occupants:
            run.step = 0

    def _draw_ahead(self, runs: list[Occupant]) -> None:
        """Make the tables of the next epochs of each."""
        if not runs:
            return
        memory, num_steps, device = self._memory, self._spec.num_steps, self._device
        epochs = [
            (run, run.epochs_done + further)
            for run in runs
            for further in range(self._num_at_once(run))
        ]
        configs = [run.config for run, _ in epochs]
        first_steps = [epoch * num_steps for _, epoch in epochs]
        orders_EN = rng.permutations(
            [(run.config.seed, epoch) for run, epoch in epochs], self._counters_N
        )
        samples = orders_EN[:, memory.positions_SB.view(-1)]
        samples_ESB = samples.view(-1, *memory.positions_SB.shape).int()
        keys = [rng.stream_key(config.seed, rng.Stream.DROPOUT) for config in configs]
        keys_ES = rng.step_keys(keys, first_steps, num_steps, device)
        rates = torch.from_numpy(rate_tables(configs, first_steps, self._spec))
        rates_ESC = rates.to(device, memory.rates_KSC.dtype)
        for (run, epoch), *tables in zip(epochs, samples_ESB, keys_ES, rates_ESC, strict=True):
            run.ahead[epoch] = EpochTables(*tables)

    def _num_at_once(self, run: Occupant) -> int:
        """For how many of a run's next epochs tables are made at once; at least one."""
        if self._device.type != "cpu":
            return 1
        num_left = run.config.epochs - run.epochs_done
        return max(1, min(_EPOCHS_AHEAD, _SAMPLES_AHEAD // self._spec.num_samples, num_left))

    def clear_gradients(self, slots: list[int]) -> None:
        """No step writes the gaps between parameters, and a run may have left NaN in them."""
        if self._gradients is not None:
            self._gradients.clear_rows(torch.tensor(slots, device=self._device))
