"""Whether a module's slots are alone in a pack: tried on random numbers, once for each shape.

Batched operations of torch do not promise that a slot has the same bits whatever lies beside it.
Most keep to it; where one does not, the slots of a pack are taken one by one.

# K slots, B rows of a batch, C outputs, U draws of dropout a row
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ridgeline.search.engine.layout import Stacks, layouts
from ridgeline.search.engine.losses import LOSSES
from ridgeline.search.engine.models.base import Rows
from ridgeline.search.engine.models.module import ModuleModel
from ridgeline.search.engine.models.module_stack import StackedModule, outputs
from ridgeline.search.engine.models.module_substitutes import Unbatchable
from ridgeline.search.engine.models.module_template import samples_of, template_of


def unpackable(
    model: ModuleModel, width: int, num_rows: int, device: torch.device, dtype: torch.dtype
) -> str | None:
    """Why slots of a module cannot be computed at once, in one sentence; None where they can.

    The slots are exchanged, and every other one is changed and filled with NaN, in training with
    and without rows that only pad the batch, and in evaluation: outputs, gradients and statistics
    of the others must keep every bit.

    Args:
        num_rows: of a batch in a pack, see `StepSpec.num_rows`.
    """
    # Bits may depend on how work is divided among threads too.
    return _unpackable(model, width, num_rows, device, dtype, torch.get_num_threads())


@lru_cache(maxsize=256)
def _unpackable(
    model: ModuleModel,
    width: int,
    num_rows: int,
    device: torch.device,
    dtype: torch.dtype,
    num_threads: int,
) -> str | None:
    template = template_of(model)
    if template.survey.obstacle is not None:
        return template.survey.obstacle
    trial = _Trial(model, width, num_rows, device, dtype)
    runs: dict[str, Callable[[_Numbers], list[Tensor]]] = {
        "training": lambda numbers: trial.train(numbers, padding=False),
        "training on a batch with padding": lambda numbers: trial.train(numbers, padding=True),
        "evaluation": trial.evaluate,
    }
    for what, run in runs.items():
        try:
            changed = trial.first_change(run)
        except Unbatchable as exc:
            return str(exc)
        if changed is not None:
            return f"{template.name}: a slot's last digits in {what} change when {changed}"
    return None


@dataclass(frozen=True)
class _Numbers:
    """Of each slot: rows of parameters and statistics, samples, and factors of dropout."""

    parameters_KP: Tensor
    statistics_KQ: Tensor
    x_KB: Tensor
    factors_KUB: Tensor

    def of(self, slots_K: Tensor) -> _Numbers:
        """With other slots in their places."""
        return _Numbers(*(tensor[slots_K] for tensor in self._tensors()))

    def changed(self, is_other_K: Tensor, value: float | None) -> _Numbers:
        """With other numbers in some slots: the value, or where it is None any other ones."""

        def other(tensor: Tensor) -> Tensor:
            if not tensor.is_floating_point():
                return tensor.roll(1, dims=1)
            return 2 * tensor + 1 if value is None else torch.full_like(tensor, value)

        return _Numbers(
            *(
                torch.where(is_other_K.view(-1, *(1,) * (tensor.dim() - 1)), other(tensor), tensor)
                for tensor in self._tensors()
            )
        )

    def _tensors(self) -> list[Tensor]:
        return [self.parameters_KP, self.statistics_KQ, self.x_KB, self.factors_KUB]


class _Trial:
    def __init__(
        self,
        model: ModuleModel,
        width: int,
        num_rows: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._model, self._num_rows = model, num_rows
        self._slots_K = torch.arange(width, device=device)
        layout, statistics_layout = layouts(model)
        self._parameters, gradients, self._statistics = (
            Stacks(its, width, device=device, dtype=dtype)
            for its in (layout, layout, statistics_layout)
        )
        self._gradients = gradients.views()
        self._bound = StackedModule(
            model, self._parameters.views(), self._gradients, self._statistics.views()
        )
        generator = torch.Generator().manual_seed(0)
        size = (width, model.num_draws, num_rows)
        factors_KUB = 2 * torch.randint(2, size, generator=generator)
        x_KB = samples_of(model).random((width, num_rows), generator, dtype)
        shape = (width, model.num_outputs, num_rows)
        self._targets_KCB = torch.zeros(shape, device=device, dtype=dtype)
        self._numbers = _Numbers(
            layout.initial_rows(range(width), device, dtype),
            statistics_layout.initial_rows(range(width), device, dtype),
            x_KB.to(device),
            factors_KUB.to(device, dtype),
        )

    def train(self, numbers: _Numbers, *, padding: bool) -> list[Tensor]:
        """The gradient of the outputs, those of the parameters, and the statistics: [K, …]."""
        self._load(numbers)
        num_slots, num_rows = len(self._slots_K), self._num_rows
        num_valid = max(1, num_rows - 3) if padding else num_rows
        invalid_B = torch.arange(num_rows, device=numbers.x_KB.device) >= num_valid
        rows = Rows(
            invalid_B.repeat(num_slots, 1) if padding else None,
            numbers.factors_KUB.new_full((num_slots, 1, 1), num_valid),
        )
        dropout_KUB = numbers.factors_KUB if self._model.num_draws else None
        loss = LOSSES["mean_squared_error"]  # of which no output has a gradient of 0
        judged = self._bound.loss_gradients(
            numbers.x_KB, self._targets_KCB, rows, dropout_KUB, loss
        )
        changed = (*self._gradients.values(), *self._statistics.views().values())
        return [judged.gradient_KCB, *(tensor.clone() for tensor in changed)]

    def evaluate(self, numbers: _Numbers) -> list[Tensor]:
        """Outputs of all slots for the same samples, [K, C, B]."""
        self._load(numbers)
        x_B = self._numbers.x_KB[0]
        return [outputs(self._model, self._parameters.views(), self._statistics.views(), x_B)]

    def first_change(self, run: Callable[[_Numbers], list[Tensor]]) -> str | None:
        """What changes bits that it should not."""
        slots_K, expected = self._slots_K, run(self._numbers)
        for parity, value, what in ((0, None, "other ones"), (1, math.nan, "NaN")):
            is_other_K = slots_K % 2 == parity
            numbers = self._numbers.changed(is_other_K, value)
            for order_K in (slots_K.roll(1), slots_K.flip(0)):
                kept_K = ~is_other_K[order_K]
                results = run(numbers.of(order_K))
                if not all(
                    torch.equal(one[order_K][kept_K], other[kept_K])
                    for one, other in zip(expected, results, strict=True)
                ):
                    return f"it sits in another slot and its neighbours' numbers are {what}"
        return None

    def _load(self, numbers: _Numbers) -> None:
        self._parameters.put_rows(self._slots_K, numbers.parameters_KP)
        self._statistics.put_rows(self._slots_K, numbers.statistics_KQ)
