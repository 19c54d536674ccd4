"""A pack: K slots in one set of stacked tensors, all stepped at once.

A slot's result is the same bits whatever its neighbours are, whatever sat in it before, and
whenever it was loaded.  Loading overwrites everything that a slot has; every operation of a step is
a slot's own or the same kernel over all slots at aligned strides; a slot without a run is frozen by
selection.

# K slots, P parameters a slot, Q statistics a slot, S steps of an epoch, B rows of a batch
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from search.engine.config import ModelShape, OptimizerName, RunConfig
from search.engine.data import DeviceData, Split
from search.engine.dropout import Dropout
from search.engine.evaluation import loss_and_accuracy
from search.engine.layers import StackedMlp
from search.engine.layout import ParameterLayout, StatisticsLayout
from search.engine.optim import make_update
from search.engine.penalty import NO_PENALTY, PenalizedRegion, PenaltyTerms
from search.engine.program import ProgramIdentity
from search.engine.schedule import Schedule

NEAR_ZERO = 1e-3
"""A weight of a smaller magnitude counts as near zero."""


@dataclass
class _Occupant:
    config: RunConfig
    epochs_done: int
    step: int | None
    """Steps taken in the current epoch; None before its first, so before it is prepared."""


@dataclass(frozen=True)
class SlotState:
    """All that training changes in a slot, at the end of an epoch.

    `tensors` are rows: `parameters` [P], `statistics` [Q] and the optimizer's moments [P].
    """

    tensors: dict[str, Tensor]
    epochs_done: int


@dataclass(frozen=True)
class Weights:
    """A copy of one slot's weights: `parameters_P` and the running `statistics_Q`."""

    parameters_P: Tensor
    statistics_Q: Tensor


class Pack:
    """K slots over one model shape, data set, batch size and family of optimizers.

    The float dtype and the device are those of the data.

    Raises:
        ValueError: where the shape's features or classes are not the data's.
    """

    def __init__(
        self,
        shape: ModelShape,
        data: DeviceData,
        *,
        width: int,
        batch_size: int,
        optimizer: OptimizerName,
    ) -> None:
        if shape.num_features != data.num_features:
            raise ValueError(f"num_features is {shape.num_features}, data: {data.num_features}")
        if shape.num_classes != data.num_classes:
            raise ValueError(f"num_classes is {shape.num_classes}, data: {data.num_classes}")
        device, dtype = data.device, data.dtype
        self.program = ProgramIdentity.current("eager", width, device, dtype)
        self._shape, self._data, self._width = shape, data, width
        self._batch_size, self._optimizer = batch_size, optimizer
        self._layout = ParameterLayout(shape)
        self._statistics_layout = StatisticsLayout(shape)
        self._occupants: list[_Occupant | None] = [None] * width

        self._parameters_KP = torch.zeros(width, self._layout.row_size, dtype=dtype, device=device)
        gradients_KP = torch.zeros_like(self._parameters_KP)
        self._statistics_KQ = torch.zeros(
            width, self._statistics_layout.row_size, dtype=dtype, device=device
        )
        self._model = StackedMlp(shape, self._parameters_KP, gradients_KP, self._statistics_KQ)
        self._schedule = Schedule(data.train, width=width, batch_size=batch_size, dtype=dtype)
        num_steps, num_rows = self._schedule.num_steps, self._schedule.num_rows
        self._dropout = Dropout(
            shape,
            width=width,
            num_rows=num_rows,
            steps_per_epoch=num_steps,
            device=device,
            dtype=dtype,
        )
        scratch_KP = torch.empty_like(gradients_KP)
        self._update = make_update(
            optimizer, self._parameters_KP, gradients_KP, scratch_KP, num_steps
        )
        end = self._layout.matrices_end
        self._matrices, self._others = (
            PenalizedRegion(
                self._parameters_KP[:, part], gradients_KP[:, part], scratch_KP[:, part]
            )
            for part in (slice(0, end), slice(end, None))
        )

        self._x_KBD = torch.zeros(width, num_rows, shape.num_features, dtype=dtype, device=device)
        self._losses_KSB = torch.zeros(width, num_steps, num_rows, dtype=dtype, device=device)
        self._guesses_KSB = torch.zeros_like(self._losses_KSB, dtype=torch.int64)
        self._slots_K = torch.arange(width, device=device)
        self._step_K = torch.zeros(width, dtype=torch.int64, device=device)
        self._occupied_K1 = torch.zeros(width, 1, dtype=torch.bool, device=device)

    @property
    def width(self) -> int:
        """The number of slots."""
        return self._width

    @property
    def steps_per_epoch(self) -> int:
        """The number of ticks that a slot's epoch takes."""
        return self._schedule.num_steps

    def load(self, slot: int, config: RunConfig, state: SlotState | None = None) -> None:
        """Put a run into a free slot: fresh, or from a state of the same run.

        Raises:
            ValueError: where the run's batch size or optimizer are not the pack's.
        """
        assert self._occupants[slot] is None, f"slot {slot} is taken"
        if config.batch_size != self._batch_size:
            raise ValueError(f"batch_size is {config.batch_size}, the pack's {self._batch_size}")
        if config.optimizer != self._optimizer:
            raise ValueError(f"optimizer is {config.optimizer}, the pack's {self._optimizer}")
        if state is None:
            state = self._fresh_state(config)
        for name, rows in self._rows_of_state().items():
            rows[slot] = state.tensors[name]
        num_samples = self._data.train.num_samples
        terms = PenaltyTerms.of(config, num_samples)
        self._matrices.set_terms(slot, terms)
        self._others.set_terms(slot, terms if config.penalize == "all" else NO_PENALTY)
        self._dropout.load(slot, config)
        self._update.load(slot, config)
        self._occupants[slot] = _Occupant(config, state.epochs_done, step=None)
        self._occupied_K1[slot] = True

    def free(self, slot: int) -> None:
        """Take the run out of a slot.  Its weights stay until the next `load`."""
        self._occupants[slot] = None
        self._occupied_K1[slot] = False
        self._step_K[slot] = 0
        self._matrices.set_terms(slot, NO_PENALTY)
        self._others.set_terms(slot, NO_PENALTY)
        self._dropout.free(slot)
        self._update.free(slot)

    def tick(self) -> None:
        """One optimizer step of every occupied slot; a slot at the end of an epoch starts the next.

        Queues work on the device and never waits for it.
        """
        occupants = {k: run for k, run in enumerate(self._occupants) if run is not None}
        if not occupants:
            return
        for slot, run in occupants.items():
            if run.step is None:
                self._prepare_epoch(slot, run)
        steps = [0 if run is None else run.step or 0 for run in self._occupants]
        # With all slots at one step a view of each table does; the values are the same.
        step_K = steps[0] if len(set(steps)) == 1 else self._step_K
        frozen = None if len(occupants) == self._width else self._copies()

        self._step(step_K, padded=any(self._schedule.is_padded(step) for step in set(steps)))

        if frozen is not None:
            self._restore_unoccupied(frozen)
        self._step_K.add_(self._occupied_K1[:, 0])
        for run in occupants.values():
            assert run.step is not None
            run.step += 1
            if run.step == self._schedule.num_steps:
                run.step, run.epochs_done = None, run.epochs_done + 1

    def at_epoch_end(self, slot: int) -> bool:
        """Whether the slot's run has just finished an epoch, and not yet begun another."""
        run = self._run(slot)
        return run.step is None and run.epochs_done > 0

    def epochs_done(self, slot: int) -> int:
        """Epochs that the slot's run has finished."""
        return self._run(slot).epochs_done

    def training_metrics(self, slot: int) -> Tensor:
        """Mean loss and accuracy over the samples of the epoch that has just ended.

        Each sample counts as it was met: in training mode (with dropout and the batch's own
        statistics), before the step that learned from it, without penalties.

        Returns:
            float64 [2] on the device: train_loss, train_accuracy.  The loss is finite only if
            that of every step was.
        """
        assert self.at_epoch_end(slot)
        invalid_SB = self._schedule.invalid_SB
        losses_SB = self._losses_KSB[slot].masked_fill(invalid_SB, 0)
        right_SB = self._guesses_KSB[slot] == self._schedule.targets_of(slot)
        sums = [losses_SB.sum(dtype=torch.float64), (right_SB & ~invalid_SB).sum().double()]
        return torch.stack(sums).div_(self._data.train.num_samples)

    def weight_metrics(self, slot: int) -> Tensor:
        """The norm √Σw² over the weight matrices, and the share of entries below NEAR_ZERO.

        Returns:
            float64 [2] on the device: weight_norm, near_zero_share.
        """
        matrices_R = self._parameters_KP[slot, : self._layout.matrices_end]
        num_entries = self._layout.num_matrix_entries
        gaps = len(matrices_R) - num_entries  # Zeros, all of them below any bound.
        near_zero = (matrices_R.abs() < NEAR_ZERO).sum().double().sub_(gaps).div_(num_entries)
        # In float64: squares of float32 overflow long before the weights do.
        return torch.stack([torch.linalg.vector_norm(matrices_R, dtype=torch.float64), near_zero])

    def evaluate(self, weights: Weights, split: Split) -> Tensor:
        """Mean loss and accuracy of weights in evaluation mode: float64 [2] on the device."""
        return loss_and_accuracy(self._shape, weights.parameters_P, weights.statistics_Q, split)

    def weights(self, slot: int) -> Weights:
        """The slot's weights as they are: views that the next tick changes.  See `copy_weights`."""
        return Weights(self._parameters_KP[slot], self._statistics_KQ[slot])

    def copy_weights(self, slot: int) -> Weights:
        """A copy of the slot's weights, on the device."""
        return Weights(self._parameters_KP[slot].clone(), self._statistics_KQ[slot].clone())

    def named(self, weights: Weights) -> dict[str, Tensor]:
        """Parameters and running statistics by their names in the layouts, on the CPU."""
        views = {
            **self._layout.views(weights.parameters_P[None]),
            **self._statistics_layout.views(weights.statistics_Q[None]),
        }
        return {name: view[0].detach().cpu().clone() for name, view in views.items()}

    def state(self, slot: int) -> SlotState:
        """A copy of all that a run needs to go on, on the CPU; only between epochs."""
        run = self._run(slot)
        assert run.step is None, "a state is taken between epochs"
        tensors = {
            name: rows[slot].detach().cpu().clone() for name, rows in self._rows_of_state().items()
        }
        return SlotState(tensors, run.epochs_done)

    def state_sizes(self) -> dict[str, int]:
        """The length of each tensor of a `SlotState`."""
        return {name: rows.shape[1] for name, rows in self._rows_of_state().items()}

    def _step(self, step_K: Tensor | int, *, padded: bool) -> None:
        batch = self._schedule.batch(step_K, padded=padded)
        torch.index_select(
            self._data.train.x,
            0,
            batch.samples_KB.reshape(-1),
            out=self._x_KBD.view(-1, self._shape.num_features),
        )
        log_p_KBC = self._model.loss_gradients(
            self._x_KBD, batch.target_KB, batch.rows, self._dropout.scales(step_K)
        )
        losses_KB = log_p_KBC.gather(2, batch.target_KB[:, :, None])[:, :, 0].neg_()
        at: tuple[Tensor | slice, Tensor | int]
        at = (slice(None), step_K) if isinstance(step_K, int) else (self._slots_K, step_K)
        self._losses_KSB[at] = losses_KB
        self._guesses_KSB[at] = log_p_KBC.argmax(dim=2)

        self._matrices.before_update()
        self._others.before_update()
        self._update.step(step_K)
        self._matrices.after_update()
        self._others.after_update()

    def _prepare_epoch(self, slot: int, run: _Occupant) -> None:
        first_step = run.epochs_done * self._schedule.num_steps
        self._schedule.prepare_epoch(slot, run.config.seed, run.epochs_done)
        self._dropout.prepare_epoch(slot, first_step)
        self._update.prepare_epoch(slot, first_step)
        run.step = 0
        self._step_K[slot] = 0

    def _fresh_state(self, config: RunConfig) -> SlotState:
        device, dtype = self._data.device, self._data.dtype
        moments = {name: torch.zeros_like(rows[0]) for name, rows in self._update.moments.items()}
        parameters_P = self._layout.initial_row(config.seed, device, dtype)
        statistics_Q = self._statistics_layout.initial_row(device, dtype)
        return SlotState(
            {"parameters": parameters_P, "statistics": statistics_Q, **moments}, epochs_done=0
        )

    def _rows_of_state(self) -> dict[str, Tensor]:
        """Everything that `tick` changes for good, each [K, …]."""
        return {
            "parameters": self._parameters_KP,
            "statistics": self._statistics_KQ,
            **self._update.moments,
        }

    def _copies(self) -> dict[str, Tensor]:
        return {name: rows.clone() for name, rows in self._rows_of_state().items()}

    def _restore_unoccupied(self, copies: dict[str, Tensor]) -> None:
        for name, rows in self._rows_of_state().items():
            rows.copy_(torch.where(self._occupied_K1, rows, copies[name]))

    def _run(self, slot: int) -> _Occupant:
        run = self._occupants[slot]
        assert run is not None, f"slot {slot} has no run"
        return run
