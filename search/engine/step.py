"""One optimizer step of every slot: the one function behind the eager and the compiled programs.

Everything is elementwise in the slots or a product a slot, so no slot sees another.  An eager step
leaves out the terms that no slot needs; what is left out is 0 or selects nothing, so a slot cannot
tell.  A compiled step has all of them, for little more than the memory it reads anyway; of the
regularisers it has those of its spec.

# K slots, B rows of a batch, D features, C classes, R numbers of a region
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ridgeline.search.engine import rng
from ridgeline.search.engine.augment import Augmenting, MixedLoss
from ridgeline.search.engine.batch import Batch
from ridgeline.search.engine.config import Regulariser
from ridgeline.search.engine.layout import Stacks
from ridgeline.search.engine.losses import (
    LOSSES,
    Judged,
    Loss,
    SmoothedLoss,
    WeighedCrossEntropy,
    targets_of,
)
from ridgeline.search.engine.memory import MOMENTS, Constant, PackMemory, Rate, under
from ridgeline.search.engine.models.base import Rows
from ridgeline.search.engine.optim import adam, clip_factors, sgd
from ridgeline.search.engine.penalty import add_gradients, soft_threshold
from ridgeline.search.engine.regularise import Regularising
from ridgeline.search.engine.spec import StepSpec


@dataclass(frozen=True)
class Terms:
    """Which optional terms a step works out, and of how many slots.

    Attributes:
        num_slots: of the first so many, by native steps; None of all, as other steps always do.
        regularises: those of the spec that a slot needs; None all of them.
    """

    num_slots: int | None = None
    padding: bool = True
    frozen: bool = True
    l1: bool = True
    l2: bool = True
    decay: bool = True
    threshold: bool = True
    momentum: bool = True
    regularises: frozenset[Regulariser] | None = None


ALL_TERMS = Terms()


@dataclass(frozen=True)
class Region:
    """A stretch of every slot's parameters with one set of coefficients; tensors [K, …].

    `is_penalised` is as of a model's `Parameter`s, and so is `num_units`; each of these has
    `num_incoming` numbers, one unit after the other from the first number on.
    """

    parameters: Tensor
    gradients: Tensor
    scratch: Tensor
    moments: tuple[Tensor, ...]
    is_penalised: bool
    num_units: int = 0
    num_incoming: int = 0


def stretches(memory: PackMemory, gradients: Stacks) -> list[Region]:
    """The stretches of a pack's parameters, and what belongs to them, as few regions."""
    moments = [moment.stretches_KR for moment in memory.moments.values()]
    num_penalised, units = len(memory.layout.penalised), memory.layout.units
    return [
        Region(
            parameters,
            gradients.stretches_KR[i],
            torch.empty_like(parameters),
            tuple(stretches_KR[i] for stretches_KR in moments),
            i < num_penalised,
            *(units[i] if i < num_penalised else ()),
        )
        for i, parameters in enumerate(memory.parameters.stretches_KR)
    ]


class Step:
    """The step over one set of tensors.

    Args:
        inputs: of `PackMemory.inputs`.
        gradients: by the names of the parameters; filled in each step.
        regions: all parameters, their gradients and moments, in stretches.
        batch_of: gives the batch of every slot's next step; told whether rows may only pad it.
        dropout_factors: gives what to multiply each unit with, [K, U, B]; None has torch do so.
        update: penalties, clipping, noise, the optimizer's update and bounds on norms, of the
            occupied slots alone; counts the step.  None has torch do so.
    """

    def __init__(
        self,
        spec: StepSpec,
        inputs: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        regions: Sequence[Region],
        batch_of: Callable[[bool], Batch],
        dropout_factors: Callable[[], Tensor] | None = None,
        update: Callable[[], None] | None = None,
    ) -> None:
        self._spec = spec
        self._inputs = inputs
        self._regions = regions
        self._batch_of = batch_of
        self._dropout_factors, self._update = dropout_factors, update
        parameters, statistics = under(inputs, "parameters."), under(inputs, "statistics.")
        self._statistics = list(statistics.values())
        self._model = spec.model.bind(parameters, gradients, statistics)
        self._loss = LOSSES[spec.loss]
        if spec.weighs:
            self._loss = WeighedCrossEntropy(inputs["class_weights"])
        self._augmenting: Augmenting | None = None
        if spec.augments:
            self._augmenting = Augmenting(
                spec.augments, spec.model.sample_shape, under(inputs, "augmentation.")
            )
        self._regularising: Regularising | None = None
        if spec.regularises:
            self._regularising = Regularising(
                spec.model, under(inputs, "regularisers."), parameters, gradients
            )
        step_K = inputs["step"]
        self._slots_K = torch.arange(step_K.shape[0], device=step_K.device)

    def __call__(self, terms: Terms) -> None:
        """Change the state of every occupied slot."""
        inputs, step_K = self._inputs, self._inputs["step"]
        at = (self._slots_K, step_K)
        x_KB, y_KB, invalid_KB, num_valid_K = self._batch_of(terms.padding)
        targets_KB = targets_of(y_KB)
        rows = Rows(invalid_KB, num_valid_K.view(-1, 1, 1))
        regularising, kinds = self._regularising, self._regularisers(terms)
        loss: Loss = self._loss
        if regularising is not None and "label_smoothing" in kinds:
            loss = SmoothedLoss(loss, regularising.smoothing_K)
        if self._augmenting is not None:
            x_KB, mixture = self._augmenting(at, x_KB, rows)
            if mixture is not None:
                others_KB = y_KB[self._slots_K[:, None], mixture.partners_KB]
                loss = MixedLoss(loss, targets_of(others_KB), mixture.shares_KB)
        if regularising is not None and "input_dropout" in kinds:
            x_KB = regularising.drop_inputs(at, x_KB)
        changing = self._changing() if terms.frozen else []
        before = [tensor.clone() for tensor in changing]

        dropout_KUB = self._dropout(at)
        judged = self._model.loss_gradients(x_KB, targets_KB, rows, dropout_KUB, loss)
        self._count(judged, invalid_KB)
        if self._update is None:
            self._update_by_torch(at, terms)
        for tensor, old in zip(changing, before, strict=True):
            tensor.copy_(torch.where(_per_slot(inputs["occupied"], tensor), tensor, old))
        if self._update is None:
            step_K.add_(inputs["occupied"])
        else:
            self._update()

    def repeat(self, terms: Terms, count: int) -> None:
        """So many steps."""
        for _ in range(count):
            self(terms)

    def _regularisers(self, terms: Terms) -> Collection[Regulariser]:
        """Those that a slot needs."""
        return self._spec.regularises if terms.regularises is None else terms.regularises

    def _changing(self) -> list[Tensor]:
        """What torch writes in slots without a run too, until it is taken back."""
        if self._update is not None:
            return self._statistics
        state = [t for region in self._regions for t in (region.parameters, *region.moments)]
        return [*state, *self._statistics]

    def _dropout(self, at: tuple[Tensor, Tensor]) -> Tensor | None:
        """What to multiply each unit with, [K, U, B]: 0, or 1/(1 - p) where it is kept.

        Inverted dropout (Srivastava et al., 2014).  Unit u of row b is dropped where
        `rng.uniform(seed, Stream.DROPOUT, step)[b·U + u] < p`, the steps counted over a run's life.
        """
        if not self._spec.drops:
            return None
        if self._dropout_factors is not None:
            return self._dropout_factors()
        keys_K = self._inputs["dropout_keys"][at]
        draws_KUB = rng.draw(keys_K, self._inputs["dropout_counters"])
        scale_K11 = self._inputs["constants"][:, Constant.DROPOUT_SCALE, None, None]
        kept_KUB = draws_KUB >= self._inputs["dropout_thresholds"][:, :, None]
        return torch.where(kept_KUB, scale_K11, torch.zeros_like(scale_K11))

    def _count(self, judged: Judged, invalid_KB: Tensor | None) -> None:
        """Add up losses and scores: finite only if the loss of every sample was."""
        losses_KB, scores_KB = judged.losses_KB, judged.scores_KB
        if invalid_KB is not None:
            losses_KB = losses_KB.masked_fill(invalid_KB, 0)
            scores_KB = scores_KB.masked_fill(invalid_KB, 0)
        inputs = self._inputs
        inputs["loss_sums"].add_(losses_KB.sum(dim=1, dtype=torch.float64))
        score_sums_K = inputs["score_sums"]
        score_sums_K.add_(scores_KB.sum(dim=1, dtype=score_sums_K.dtype))

    def _update_by_torch(self, at: tuple[Tensor, Tensor], terms: Terms) -> None:
        rates_KC, constants_KC = self._inputs["rates"][at], self._inputs["constants"]
        regularising, kinds = self._regularising, self._regularisers(terms)

        def of(table_KC: Tensor, column: Rate | Constant, region: Region) -> Tensor:
            # The column of what is not penalised follows that of what is.
            return _per_slot(table_KC[:, column + (not region.is_penalised)], region.parameters)

        for region in self._regions:
            add_gradients(
                region.parameters,
                region.gradients,
                region.scratch,
                l1=of(constants_KC, Constant.L1, region) if terms.l1 else None,
                l2=of(constants_KC, Constant.L2, region) if terms.l2 else None,
            )
        if self._spec.clips:
            factor_K = clip_factors(
                [region.gradients for region in self._regions],
                constants_KC[:, Constant.CLIP_NORM],
            )
            for region in self._regions:
                region.gradients.mul_(_per_slot(factor_K, region.gradients))
        if regularising is not None and "gradient_noise" in kinds:
            regularising.add_noise(at)
        for region in self._regions:
            if terms.decay:
                region.parameters.mul_(of(rates_KC, Rate.KEEP, region))
            scale = _per_slot(rates_KC[:, Rate.SCALE], region.parameters)
            if self._spec.family == "sgd":
                momentum, nesterov = (
                    _per_slot(constants_KC[:, column], region.parameters)
                    for column in (Constant.MOMENTUM, Constant.NESTEROV)
                )
                sgd(
                    region.parameters,
                    region.gradients,
                    region.scratch,
                    region.moments[0],
                    scale,
                    momentum=momentum if terms.momentum else None,
                    nesterov=nesterov,
                )
            else:
                epsilon = _per_slot(rates_KC[:, Rate.EPSILON], region.parameters)
                adam(
                    region.parameters,
                    region.gradients,
                    region.scratch,
                    region.moments[0],
                    region.moments[1],
                    scale,
                    epsilon,
                )
            if terms.threshold:
                threshold = of(rates_KC, Rate.THRESHOLD, region)
                soft_threshold(region.parameters, region.scratch, threshold)
        if regularising is not None and "max_norm" in kinds:
            regularising.bound_norms()


class TracedStep(torch.nn.Module):
    """The step as a function of its inputs alone, as a compiler takes it.

    The batch is among the inputs, in place of the tables that tell of it.
    Where it updates, every parameter is a stretch of its own: its gradient is then used up where it
    is made.

    Args:
        updates: whether it does; otherwise it ends with the gradients.  It writes those that are
            among its inputs, and gives the others, so that they need not be copied.
    """

    def __init__(self, spec: StepSpec, *, updates: bool) -> None:
        super().__init__()
        self._spec, self._updates = spec, updates

    def forward(self, inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """One step; changes the inputs in place.

        Returns:
            gradients that it was not given, in the order of the parameters.
        """
        spec, batch = self._spec, Batch(**under(inputs, "batch."))

        def batch_of(padding: bool) -> Batch:
            return batch

        parameters, gradients = under(inputs, "parameters."), under(inputs, "gradients.")
        made = {
            name: torch.empty(t.shape, dtype=t.dtype, device=t.device)
            for name, t in parameters.items()
            if name not in gradients
        }
        gradients |= made
        if not self._updates:
            Step(spec, inputs, gradients, (), batch_of, update=lambda: None)(ALL_TERMS)
            return (*made.values(),)
        described = spec.model.parameters()
        regions = [
            Region(
                parameter,
                gradients[name],
                torch.empty(parameter.shape, dtype=parameter.dtype, device=parameter.device),
                tuple(inputs[f"{moment}.{name}"] for moment in MOMENTS[spec.family]),
                is_penalised=described[name].is_penalised,
            )
            for name, parameter in parameters.items()
        ]
        Step(spec, inputs, gradients, regions, batch_of)(ALL_TERMS)
        return ()


def _per_slot(values_K: Tensor, like: Tensor) -> Tensor:
    """One value a slot, shaped to be broadcast over `like` [K, …]."""
    return values_K.view(-1, *(1,) * (like.dim() - 1))
