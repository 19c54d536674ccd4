"""One optimizer step of every slot: the one function behind the eager and the compiled programs.

Everything is elementwise in the slots or a product a slot, so no slot sees another.  An eager step
leaves out the terms that no slot needs; what is left out is 0 or selects nothing, so a slot cannot
tell.  A compiled step has all of them, for little more than the memory it reads anyway.

# K slots, B rows of a batch, D features, C classes, R numbers of a region
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ridgeline.search.engine import rng
from ridgeline.search.engine.layers import Rows, StackedMlp
from ridgeline.search.engine.layout import Stacks
from ridgeline.search.engine.memory import MOMENTS, Constant, PackMemory, Rate
from ridgeline.search.engine.native import Kernels
from ridgeline.search.engine.native_steps import NativeMlp, NativeStep, has_native_steps
from ridgeline.search.engine.optim import adam, clip_factors, sgd
from ridgeline.search.engine.penalty import add_gradients, soft_threshold
from ridgeline.search.engine.spec import StepSpec


@dataclass(frozen=True)
class Terms:
    """Which optional terms a step works out, and of how many slots.

    Attributes:
        num_slots: of the first so many, by native steps; None of all, as other steps always do.
    """

    num_slots: int | None = None
    padding: bool = True
    frozen: bool = True
    l1: bool = True
    l2: bool = True
    decay: bool = True
    threshold: bool = True
    momentum: bool = True


ALL_TERMS = Terms()


@dataclass(frozen=True)
class Region:
    """A stretch of every slot's parameters with one set of coefficients; tensors [K, …]."""

    parameters: Tensor
    gradients: Tensor
    scratch: Tensor
    moments: tuple[Tensor, ...]
    is_matrices: bool


class Step:
    """The step over one set of tensors.

    Args:
        inputs: of `PackMemory.inputs`.
        gradients: by the names of the parameters; filled in each step.
        regions: all parameters, their gradients and moments, in stretches.
        rows_of: gives the rows of `x` [N, D] that `samples_KB` names, [K, B, D].
        native: the kernels that draw dropout and update the parameters; None has torch do so.
    """

    def __init__(
        self,
        spec: StepSpec,
        inputs: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        regions: Sequence[Region],
        rows_of: Callable[[Tensor, Tensor], Tensor],
        native: NativeStep | None = None,
    ) -> None:
        self._spec = spec
        self._inputs = inputs
        self._regions = regions
        self._rows_of = rows_of
        self._native = native
        parameters, statistics = _under(inputs, "parameters."), _under(inputs, "statistics.")
        self._statistics = list(statistics.values())
        self._model = StackedMlp(spec.shape, parameters, gradients, statistics)
        step_K = inputs["step"]
        self._slots_K = torch.arange(step_K.shape[0], device=step_K.device)

    def __call__(self, terms: Terms) -> None:
        """Change the state of every occupied slot."""
        inputs, step_K = self._inputs, self._inputs["step"]
        at = (self._slots_K, step_K)
        samples_KB = inputs["samples"][at]
        batch_KBD, target_KB = self._rows_of(inputs["x"], samples_KB), inputs["y"][samples_KB]
        invalid_KB = inputs["invalid"][step_K] if terms.padding else None
        rows = Rows(invalid_KB, inputs["num_valid"][step_K].view(-1, 1, 1))
        changing = self._changing() if terms.frozen else []
        before = [tensor.clone() for tensor in changing]

        log_p_KCB = self._model.loss_gradients(batch_KBD, target_KB, rows, self._dropout(at))
        self._count(log_p_KCB, target_KB, invalid_KB)
        if self._native is None:
            self._update(inputs["rates"][at], terms)
        for tensor, old in zip(changing, before, strict=True):
            tensor.copy_(torch.where(_per_slot(inputs["occupied"], tensor), tensor, old))
        if self._native is None:
            step_K.add_(inputs["occupied"])
        else:
            self._native.update()

    def repeat(self, terms: Terms, count: int) -> None:
        """So many steps."""
        for _ in range(count):
            self(terms)

    def _changing(self) -> list[Tensor]:
        """What torch writes in slots without a run too, until it is taken back."""
        if self._native is not None:
            return self._statistics
        state = [t for region in self._regions for t in (region.parameters, *region.moments)]
        return [*state, *self._statistics]

    def _dropout(self, at: tuple[Tensor, Tensor]) -> Tensor | None:
        """What to multiply each hidden unit with, [K, U, B]: 0, or 1/(1 - p) where it is kept.

        Inverted dropout (Srivastava et al., 2014).  Unit u of row b is dropped where
        `rng.uniform(seed, Stream.DROPOUT, step)[b·U + u] < p`, the steps counted over a run's life.
        """
        if not self._spec.drops:
            return None
        if self._native is not None:
            return self._native.dropout_factors()
        keys_K = self._inputs["dropout_keys"][at]
        draws_KUB = rng.draw(keys_K, self._inputs["dropout_counters"])
        scale_K11 = self._inputs["constants"][:, Constant.DROPOUT_SCALE, None, None]
        kept_KUB = draws_KUB >= self._inputs["dropout_thresholds"][:, :, None]
        return torch.where(kept_KUB, scale_K11, torch.zeros_like(scale_K11))

    def _count(self, log_p_KCB: Tensor, target_KB: Tensor, invalid_KB: Tensor | None) -> None:
        """Add up losses and right guesses: finite only if the loss of every sample was."""
        losses_KB = log_p_KCB.gather(1, target_KB[:, None])[:, 0].neg()
        right_KB = log_p_KCB.argmax(dim=1) == target_KB
        if invalid_KB is not None:
            losses_KB = losses_KB.masked_fill(invalid_KB, 0)
            right_KB = right_KB & ~invalid_KB
        self._inputs["loss_sums"].add_(losses_KB.sum(dim=1, dtype=torch.float64))
        self._inputs["num_right"].add_(right_KB.sum(dim=1))

    def _update(self, rates_KC: Tensor, terms: Terms) -> None:
        constants_KC = self._inputs["constants"]

        def of(table_KC: Tensor, column: Rate | Constant, region: Region) -> Tensor:
            # The column of what is no matrix follows that of what is one.
            return _per_slot(table_KC[:, column + (not region.is_matrices)], region.parameters)

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


def stretches(memory: PackMemory, gradients: Stacks) -> list[Region]:
    """The stretches of a pack's parameters, and what belongs to them, as few regions."""
    moments = [moment.stretches_KR for moment in memory.moments.values()]
    return [
        Region(
            parameters,
            gradients.stretches_KR[i],
            torch.empty_like(parameters),
            tuple(stretches_KR[i] for stretches_KR in moments),
            is_matrices=i < memory.layout.num_matrices,
        )
        for i, parameters in enumerate(memory.parameters.stretches_KR)
    ]


def eager_steps(
    spec: StepSpec, memory: PackMemory, gradients: Stacks, kernels: Kernels | None = None
) -> Callable[[Terms, int], None]:
    """So many steps of a pack's tensors, with a region for each of their stretches.

    Args:
        gradients: laid out as the parameters; the gaps between them must hold zeros.
        kernels: for a CPU: of whole steps where they have the model, or else of the update and
            dropout; None has torch alone.
    """
    regions = stretches(memory, gradients)
    inputs, views = memory.inputs(), gradients.views()
    num_slots, _, num_rows = memory.samples_KSB.shape
    if kernels is not None and has_native_steps(spec.shape):
        native = NativeMlp(kernels, spec, inputs, views, regions)
        return lambda terms, count: native.run(terms.num_slots or num_slots, count)
    batch_KBD = memory.data.train.x.new_zeros(num_slots, num_rows, spec.shape.num_features)

    def rows_of(x_ND: Tensor, samples_KB: Tensor) -> Tensor:
        # Into the same memory each time, and two to three times as fast as x_ND[samples_KB].
        torch.index_select(x_ND, 0, samples_KB.view(-1), out=batch_KBD.view(-1, x_ND.shape[1]))
        return batch_KBD

    parts = None if kernels is None else NativeStep(kernels, spec, inputs, regions)
    return Step(spec, inputs, views, regions, rows_of, parts).repeat


class TracedStep(torch.nn.Module):
    """The step as a function of its inputs alone, as a compiler takes it.

    Every parameter is a stretch of its own: its gradient is then used up where it is made.

    Args:
        is_beyond_cache: whether rows of data come from memory, not from a CPU's cache.
    """

    def __init__(self, spec: StepSpec, *, is_beyond_cache: bool) -> None:
        super().__init__()
        self._spec = spec
        self._rows_of = _rows_ahead if is_beyond_cache else _rows

    def forward(self, inputs: dict[str, Tensor]) -> tuple[()]:
        """One step; changes the inputs in place."""
        spec = self._spec
        parameters = _under(inputs, "parameters.")
        gradients = {
            name: torch.empty(t.shape, dtype=t.dtype, device=t.device)
            for name, t in parameters.items()
        }
        regions = [
            Region(
                parameter,
                gradients[name],
                torch.empty(parameter.shape, dtype=parameter.dtype, device=parameter.device),
                tuple(inputs[f"{moment}.{name}"] for moment in MOMENTS[spec.family]),
                is_matrices=parameter.dim() == 3,
            )
            for name, parameter in parameters.items()
        ]
        Step(spec, inputs, gradients, regions, self._rows_of)(ALL_TERMS)
        return ()


def _rows(x_ND: Tensor, samples_KB: Tensor) -> Tensor:
    # Indexed by slot and row: an index_select over both is compiled to a division a number.
    return x_ND[samples_KB]


def _rows_ahead(x_ND: Tensor, samples_KB: Tensor) -> Tensor:
    # As bags of one row: that kernel is called as it is, and fetches ahead.  An index is compiled
    # to a loop that takes twice as long for rows of MNIST, though less in the cache.
    rows = functional.embedding_bag(samples_KB.view(-1, 1), x_ND, mode="sum")
    return rows.view(*samples_KB.shape, -1)


def _per_slot(values_K: Tensor, like: Tensor) -> Tensor:
    """One value a slot, shaped to be broadcast over `like` [K, …]."""
    return values_K.view(-1, *(1,) * (like.dim() - 1))


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
