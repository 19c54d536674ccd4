"""A pack: K slots in one set of stacked tensors, all stepped at once.

A slot's result is the same bits whatever its neighbours are, whatever sat in it before, and
whenever it was loaded.  Loading overwrites everything that a slot has; every operation of a step is
a slot's own or the same kernel over all slots at aligned strides; a slot without a run is frozen by
selection.  Where a slot's products do not depend on how many slots are multiplied at once, a pack
that nothing refills computes its runs alone; see `narrow`.

# K slots, P parameters a slot, Q statistics a slot, S steps of an epoch, G slots of a group
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ridgeline.search.engine.compiled import CompiledProgram
from ridgeline.search.engine.config import Regulariser, RunConfig
from ridgeline.search.engine.data import DeviceData, Split
from ridgeline.search.engine.eager import eager_steps
from ridgeline.search.engine.evaluation import (
    BindEvaluation,
    PackEvaluation,
    rows_at_once,
    slots_at_once,
)
from ridgeline.search.engine.graphs import recorded_evaluation, records
from ridgeline.search.engine.layout import Stacks
from ridgeline.search.engine.losses import LOSSES, Loss, asked_metric, epoch_metrics
from ridgeline.search.engine.measures import Measures, gaps, looked_at
from ridgeline.search.engine.memory import PackMemory
from ridgeline.search.engine.metrics import OutputMetric
from ridgeline.search.engine.native import Kernels
from ridgeline.search.engine.products import has_choice, multiplies_with_onednn, products
from ridgeline.search.engine.program import Form, ProgramIdentity
from ridgeline.search.engine.slots import Occupant, SlotWriter
from ridgeline.search.engine.spec import StepSpec
from ridgeline.search.engine.step import Terms
from ridgeline.search.engine.threads import computing

_ROWS_JUDGED_BY = 25
"""Of native steps, whose library follows from the model alone: packs of two libraries cannot train
side by side, and a search has lanes of many batch sizes.  So few rows, since oneDNN makes a kernel
for each number of slots, and gains no more than a tenth on models of 128 units."""


@dataclass(frozen=True)
class SlotState:
    """All that training changes in a slot, at the end of an epoch.

    `tensors` are rows: `parameters` [P], `statistics` [Q] and the optimizer's moments [P]; their
    sizes are `memory.state_sizes`.
    """

    tensors: dict[str, Tensor]
    epochs_done: int


@dataclass(frozen=True)
class Weights:
    """A copy of one slot's weights on the device, with the running `statistics_Q`."""

    parameters_P: Tensor
    statistics_Q: Tensor


class Pack:
    """K slots of one training step, over one data set.

    The float dtype and the device are those of the data.

    Attributes:
        program: its identity.
        metrics: the names of what `epoch_metrics` tells of every run, in order.
        with_onednn: whether oneDNN multiplies rather than MKL; None where there is no choice.
            Packs that compute at the same time must agree, see `products`.

    Args:
        spec: with the regularisers that the pack begins with; an eager one adds those of each run.
        threads: of a CPU that it computes on, whichever thread calls; not read elsewhere.
        compiled: the program for this spec, data and threads; None steps eagerly.
        kernels: for the eager steps of a pack on one thread of a CPU; None has torch alone.

    Raises:
        ValueError: where the model or the loss is not one for the data.
    """

    def __init__(
        self,
        spec: StepSpec,
        data: DeviceData,
        *,
        width: int,
        threads: int = 1,
        compiled: CompiledProgram | None = None,
        kernels: Kernels | None = None,
    ) -> None:
        self._loss = loss = LOSSES[spec.loss]
        data.check(spec.model, loss)
        assert compiled is None or kernels is None, "a pack has one program"
        assert kernels is None or threads == 1, "the kernels compute on one thread"
        self.spec = spec
        form: Form = "eager" if kernels is None else "native"
        self._threads = threads if data.device.type == "cpu" else 0
        self.program = ProgramIdentity.current(
            form if compiled is None else "compiled",
            width,
            data.device,
            data.dtype,
            self._threads,
            () if compiled is None else spec.regularises,
            spec.model.source,
        )
        self.data = data
        parts = {"train": data.train, "validation": data.validation}
        lacking = {
            f"{of}_{name}"
            for of, part in parts.items()
            for name, _ in loss.metrics
            if not _has(loss, name, part)
        }
        self.metrics = tuple(name for name in epoch_metrics(loss) if name not in lacking)
        self._memory = PackMemory(spec, width, data)
        self._native = None if kernels is None else spec.native()
        num_rows = width * spec.num_rows(width) if self._native is None else _ROWS_JUDGED_BY
        flops = spec.model.step_flops(num_rows)
        device, dtype = data.device, data.dtype
        self._products = products(flops, device, dtype)
        self.with_onednn = (
            multiplies_with_onednn(flops, device, dtype) if has_choice(device, dtype) else None
        )
        self._occupants: list[Occupant | None] = [None] * width
        self._can_narrow: bool | None = None
        """None until the first tick tries it."""
        self._kernels = kernels
        self._num_computed = width if self._native is None else 0
        self._steps: Callable[[Terms, int], None]
        evaluation: BindEvaluation | None = None
        fixed: tuple[int, int] | None = None
        self._is_compiled = compiled is not None
        self._gradients: Stacks | None = None
        if compiled is None or not compiled.updates:
            self._gradients = Stacks(self._memory.layout, width, device=device, dtype=dtype)
        if compiled is None:
            assert self._gradients is not None
            self._steps = eager_steps(spec, self._memory, self._gradients, kernels)
            if kernels is not None and self._native is not None:
                evaluation = partial(self._native.bind_evaluation, kernels)
            elif records(spec, device):
                evaluation = partial(recorded_evaluation, spec)
        else:
            sizes = compiled.sizes
            if sizes is not None:
                mine = width, spec.batch_size
                assert mine == (sizes.width, sizes.batch_size), "a program of other sizes"
                fixed = sizes.evaluation_rows, sizes.evaluation_slots
            self._steps = compiled.bind_step(spec, self._memory, self._gradients)
            evaluation = compiled.bind_evaluation
        self._evaluation = PackEvaluation(spec, evaluation, self._memory, fixed)
        self._writer = SlotWriter(spec, self._memory, self._gradients)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """All that its numbers come from is computed within, by the same kernels each time."""
        with computing(self._threads), self._products:
            yield

    @property
    def width(self) -> int:
        """The number of slots."""
        return len(self._occupants)

    @property
    def device(self) -> torch.device:
        """Where it trains."""
        return self.data.device

    @property
    def can_narrow(self) -> bool:
        """Whether it computes no free slots; False before the first tick."""
        return self._can_narrow is True

    @property
    def num_computed(self) -> int:
        """Of its first slots, with and without runs, how many each tick computes."""
        return self._num_computed

    @property
    def steps_per_epoch(self) -> int:
        """The number of ticks that a slot's epoch takes."""
        return self.spec.num_steps

    @property
    def ticks_to_epoch_end(self) -> int:
        """How many ticks it takes until a slot is at the end of an epoch; at least one is taken."""
        steps = [run.step or 0 for run in self._taken().values()]
        return self.spec.num_steps - max(steps)

    def load(self, slot: int, config: RunConfig, state: SlotState | None = None) -> None:
        """Put a run into a free slot: fresh, or from a state of the same run.

        Fresh ones are written when the pack goes on, all that have come meanwhile at once.

        Raises:
            ValueError: where the run is not one that this pack's step trains.
        """
        assert self._occupants[slot] is None, f"slot {slot} is taken"
        self._num_computed = max(self._num_computed, slot + 1)
        spec = StepSpec.of(config, self.spec.model, self.spec.num_samples, self.spec.dtype)
        for name in ("batch_size", "family", "drops", "clips", "loss", "augments", "weighs"):
            mine, its = getattr(self.spec, name), getattr(spec, name)
            if mine != its:
                raise ValueError(f"{name} is {its}, the pack's {mine}")
        self.data.check_monitor(self._loss, config.monitor)
        self._add_regularisers(config.regularisers)
        if state is None:
            self._occupants[slot] = Occupant(config, 0, step=None, is_written=False)
            return
        for name, stacks in self._memory.state.items():
            stacks.set_row(slot, state.tensors[name])
        self._occupants[slot] = Occupant(config, state.epochs_done, step=None, is_written=True)
        self._writer.write_constants({slot: self._run(slot)})

    def takes(self, config: RunConfig) -> bool:
        """Whether the step can have the regularisers of a run."""
        return not self._is_compiled or {*config.regularisers} <= {*self.spec.regularises}

    def free(self, slot: int) -> None:
        """Take the run out of a slot.  Its weights stay until the next `load`."""
        self._occupants[slot] = None
        self._memory.occupied_K[slot] = False
        self._memory.step_K[slot] = 0

    def narrows(self) -> bool:
        """Whether `narrow` can do something; tried, so that nothing else may compute meanwhile."""
        with self._computing():
            return self._native is not None and not self._counts_show()

    def narrow(self) -> dict[int, int]:
        """Compute no free slots until the next `load`, where that shows in no bit of a run.

        Runs in the last slots move into free ones before them.  Does nothing before the first tick.

        Returns:
            the new slots of those that moved, by the old ones.
        """
        taken = [*self._taken()]
        if not self._can_narrow or not taken:
            return {}
        gaps = [slot for slot in range(len(taken)) if self._occupants[slot] is None]
        moved = dict(zip(taken[len(taken) - len(gaps) :], gaps, strict=True))
        for source, target in moved.items():
            self.take_over(target, self, source)
        self._num_computed = self._rounded(len(taken))
        return moved

    def tick(self, count: int = 1) -> None:
        """Optimizer steps of every occupied slot; a slot at an epoch's end starts the next first.

        Queues work on the device and never waits for it.

        Args:
            count: of steps, at most `ticks_to_epoch_end`.
        """
        runs = [*self._taken().values()]
        if not runs:
            return
        self._write_starts()
        if self._can_narrow is None:
            self._can_narrow = self._evaluation.is_exact = self.narrows()
            loaded = self._rounded(self._num_computed)
            self._num_computed = loaded if self._can_narrow else self.width
        with self._computing():
            self._writer.prepare_epochs(
                {slot: run for slot, run in self._taken().items() if run.step is None}
            )
            assert count <= self.ticks_to_epoch_end
            self._steps(self._terms(), count)
        for run in runs:
            assert run.step is not None
            run.step += count
            if run.step == self.spec.num_steps:
                run.step, run.epochs_done = None, run.epochs_done + 1

    def at_epoch_end(self, slot: int) -> bool:
        """Whether the slot's run has just finished an epoch, and not yet begun another."""
        run = self._run(slot)
        return run.step is None and run.epochs_done > 0

    def epochs_done(self, slot: int) -> int:
        """Epochs that the slot's run has finished."""
        return self._run(slot).epochs_done

    def epoch_metrics(self, slots: Sequence[int]) -> list[list[float]]:
        """What the epochs that have just ended in these slots came to.

        Of training each sample counts as it was met: in training mode (with dropout and the batch's
        own statistics), before the step that learned from it, without penalties.  A train_loss is
        finite only if that of every step was.  The one place where the host waits for the device.

        Returns:
            for each slot the values of `metrics`; then, where its run is judged by what is not
            among them, the value of that.
        """
        assert all(self.at_epoch_end(slot) for slot in slots)
        memory, data, num_samples = self._memory, self.data, self.spec.num_samples
        asked = {slot: self._asked(self._run(slot).config) for slot in slots}
        group_G = torch.tensor(slots, device=data.device)
        train_G2 = torch.stack(
            [memory.loss_sums_K[group_G], memory.score_sums_K[group_G].double()], dim=1
        ).div_(num_samples)
        with self._computing():
            validation_G2, weights_G2 = self._evaluation.validate(slots, group_G)
            judged = {
                slot: self._evaluation.judge(slot, metric)
                for slot, metric in asked.items()
                if metric is not None
            }
        squares_G, near_zero_G = weights_G2.unbind(dim=1)
        shares_G = near_zero_G / max(memory.layout.num_penalised, 1)
        weights_G2 = torch.stack([squares_G.sqrt(), shares_G], dim=1)
        means: list[list[float]] = torch.cat([train_G2, validation_G2, weights_G2], 1).tolist()
        return [
            [
                *self._told(row[:2], data.train).values(),
                *self._told(row[2:4], data.validation).values(),
                *row[4:],
                *([judged[slot].item()] if slot in judged else ()),
            ]
            for slot, row in zip(slots, means, strict=True)
        ]

    def metrics_of(self, config: RunConfig) -> tuple[str, ...]:
        """The names of what `epoch_metrics` tells of a run, in order."""
        is_told = self._asked(config) is None
        return self.metrics if is_told else (*self.metrics, config.monitor)

    def test(self, weights: Sequence[Weights]) -> Tensor:
        """Means of loss and score of weights on the test data: float64 [G, 2] on the device."""
        with self._computing():
            return self._evaluation.test(*_stacked(weights))

    def tested(
        self, weights: Sequence[Weights], configs: Sequence[RunConfig]
    ) -> list[dict[str, float]]:
        """The test metrics of the weights of runs by name; the host waits for the device.

        Of runs that are judged by what is worked out for them alone, all of that kind are told.
        """
        if not weights:
            return []
        means_G = self.test(weights).tolist()
        return [self._with_names(*one) for one in zip(means_G, weights, configs, strict=True)]

    def _with_names(
        self, means: Sequence[float], weights: Weights, config: RunConfig
    ) -> dict[str, float]:
        """The test metrics of weights, from the means of losses and scores."""
        tested = self._told(means, self.data.test)
        if self._asked(config) is not None:
            with self._computing():
                judged = self._evaluation.judge_on_test(weights.parameters_P, weights.statistics_Q)
            tested |= {name: value.item() for name, value in judged.items()}
        return {f"test_{name}": value for name, value in tested.items()}

    def measured(
        self,
        weights: Sequence[Weights],
        configs: Sequence[RunConfig],
        metrics: Sequence[Mapping[str, float]],
    ) -> list[Measures]:
        """What can be seen of the weights of runs; the host waits for the device.

        Args:
            metrics: of each run, those of the epoch that ended with these weights.
        """
        if not weights:
            return []
        rows = _stacked(weights)
        with self._computing():
            means_G = self._evaluation.train(*rows).tolist()
            seen = looked_at(self.spec.model, *rows, self.data.validation.x)
        gaps_of = map(self._gaps, means_G, weights, configs, metrics)
        return [Measures(gaps, *its) for gaps, its in zip(gaps_of, seen, strict=True)]

    def _gaps(
        self,
        means: Sequence[float],
        weights: Weights,
        config: RunConfig,
        metrics: Mapping[str, float],
    ) -> dict[str, float]:
        """Those of weights, from their means on the training rows."""
        data, asked = self.data, self._asked(config)
        if data.trains_on_validation:
            return {}  # no row is left to see a gap by
        train = self._told(means, data.train_sample)
        directions = dict(self._loss.metrics)
        if asked is not None:
            with self._computing():
                value = self._evaluation.judge_on_train(
                    weights.parameters_P, weights.statistics_Q, asked
                )
            train[asked.name] = value.item()
            directions[asked.name] = asked.direction
        return gaps(directions, train, metrics)

    def weights(self, slot: int) -> Weights:
        """The slot's weights as they are now."""
        self._write_starts()
        return Weights(self._memory.parameters.row(slot), self._memory.statistics.row(slot))

    def named(self, weights: Weights) -> dict[str, Tensor]:
        """Parameters and running statistics by their names in the layouts, on the CPU."""
        views = {
            **self._memory.layout.views(weights.parameters_P[None]),
            **self._memory.statistics_layout.views(weights.statistics_Q[None]),
        }
        return {name: view[0].detach().cpu().clone() for name, view in views.items()}

    def state(self, slot: int) -> SlotState:
        """A copy of all that a run needs to go on, on the CPU; only between epochs."""
        run = self._run(slot)
        assert run.step is None, "a state is taken between epochs"
        self._write_starts()
        tensors = {name: stacks.row(slot).cpu() for name, stacks in self._memory.state.items()}
        return SlotState(tensors, run.epochs_done)

    def _write_starts(self) -> None:
        """Write the starts of the runs that were loaded since the last call."""
        unwritten = {slot: run for slot, run in self._taken().items() if not run.is_written}
        self._writer.write_starts(unwritten)

    def _terms(self) -> Terms:
        """What the runs in the slots need of an eager step."""
        configs = [run.config for run in self._taken().values()]
        proximal = [config.l1 > 0 and config.l1_update == "proximal" for config in configs]
        return Terms(
            num_slots=self._num_computed,
            padding=self._memory.has_padding,
            frozen=len(configs) < self.width,
            l1=any(c.l1 > 0 and not p for c, p in zip(configs, proximal, strict=True)),
            l2=any(config.l2 > 0 for config in configs),
            decay=any(config.weight_decay > 0 for config in configs),
            threshold=any(proximal),
            momentum=any(config.momentum > 0 for config in configs),
            regularises=frozenset(kind for config in configs for kind in config.regularisers),
        )

    def _add_regularisers(self, kinds: Sequence[Regulariser]) -> None:
        """Have the step regularise in these ways too, from the next tick on."""
        spec = self.spec.regularising(kinds)
        if spec == self.spec:
            return
        if self._is_compiled:
            has = self.spec.regularises
            raise ValueError(f"regularisers are {kinds}, those of the compiled program {has}")
        assert self._gradients is not None
        self.spec = spec
        self._memory.add_regularisers(kinds)
        self._steps = eager_steps(spec, self._memory, self._gradients, self._kernels)

    def take_over(self, slot: int, source: Pack, its_slot: int) -> None:
        """Move a run here from a slot of this pack, or another one of the same program and step.

        At any tick.
        """
        self._num_computed = max(self._num_computed, slot + 1)
        self._occupants[slot] = source._run(its_slot)
        self._memory.copy_slot(slot, source._memory, its_slot)
        self._writer.clear_gradients([slot])
        source.free(its_slot)

    def _counts_show(self) -> bool:
        """Whether bits of a slot depend on how many slots are computed at once."""
        assert self._native is not None
        spec, width, num_samples = self.spec, self.width, self.data.validation.num_samples
        return self._native.counts_show(
            spec,
            width,
            rows_at_once(num_samples),
            slots_at_once(spec.model, num_samples, width, self.device),
            with_onednn=self.with_onednn,
        )

    def _rounded(self, num_slots: int) -> int:
        """How many slots to compute for so many."""
        if self.with_onednn:  # it compiles a kernel for each number, in half a millisecond
            num_slots = 2 ** (num_slots - 1).bit_length()
        return min(num_slots, self.width)

    def _asked(self, config: RunConfig) -> OutputMetric | None:
        """What is worked out for a run besides, since it is judged by it."""
        return asked_metric(self._loss, config.monitor)

    def _told(self, means: Sequence[float], part: Split) -> dict[str, float]:
        """The metrics that a part of the data has, from the means of losses and scores."""
        # Of classes no loss asks for the variance.
        variance = part.variance if self.data.targets.kind == "numbers" else 0.0
        told = self._loss.told(means, variance, self.data.targets.unit)
        return {
            name: value
            for (name, _), value in zip(self._loss.metrics, told, strict=True)
            if _has(self._loss, name, part)
        }

    def _taken(self) -> dict[int, Occupant]:
        """The runs, by slot."""
        return {slot: run for slot, run in enumerate(self._occupants) if run is not None}

    def _run(self, slot: int) -> Occupant:
        run = self._occupants[slot]
        assert run is not None, f"slot {slot} has no run"
        return run


def _has(loss: Loss, name: str, part: Split) -> bool:
    """Whether a part of the data has a metric of the loss."""
    return part.num_samples > 1 or name not in loss.need_two_rows


def _stacked(weights: Sequence[Weights]) -> tuple[Tensor, Tensor]:
    """Rows of parameters and of statistics, [G, P] and [G, Q]."""
    parameters_GP = torch.stack([one.parameters_P for one in weights])
    return parameters_GP, torch.stack([one.statistics_Q for one in weights])
