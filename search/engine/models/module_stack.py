"""A person's module over the tensors of K slots: all at once where it can be, or one by one.

Taken one by one, a slot costs what it costs alone, and has the bits that it has alone: so what
cannot be batched still keeps to the contracts of a pack.

# K slots, E slots evaluated at once, B rows of a batch, C outputs, U draws of dropout a row
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor, fx

from ridgeline.search.engine.losses import Judged, Loss
from ridgeline.search.engine.models.base import BoundModel, Rows
from ridgeline.search.engine.models.module import ModuleModel
from ridgeline.search.engine.models.module_alone import alone, seeded
from ridgeline.search.engine.models.module_substitutes import Substitutes, Unbatchable
from ridgeline.search.engine.models.module_template import Template, template_of
from ridgeline.search.engine.models.module_tracing import (
    Gradients,
    WithBuffers,
    call,
    trace_gradients,
    trace_outputs,
)
from ridgeline.search.engine.models.module_whole import as_bytes, from_bytes, whole_numbers

_T = TypeVar("_T")

Tensors = Mapping[str, Tensor]


class ModuleSlots(BoundModel):
    """K modules of one shape over stacks of parameters, gradients and statistics.

    Args:
        parameters, gradients, statistics: [K, …] by the names they have in the module.
    """

    def __init__(
        self, model: ModuleModel, parameters: Tensors, gradients: Tensors, statistics: Tensors
    ) -> None:
        self._model = model
        self._stacks = parameters, gradients, statistics
        self._num_slots = len(next(iter(parameters.values())))
        self._slots: list[BoundModel] = []
        """Each slot for itself; empty until that is needed."""
        self._batched: StackedModule | None = None
        if template_of(model).survey.obstacle is None:
            self._batched = StackedModule(model, *self._stacks)

    def loss_gradients(
        self, x_KB: Tensor, targets_KB: Tensor, rows: Rows, dropout_KUB: Tensor | None, loss: Loss
    ) -> Judged:
        """See the port.

        Raises:
            ValueError: the module fails on this batch.
        """
        if self._batched is not None and (self._num_slots == 1 or self._packs(x_KB)):
            return self._batched.loss_gradients(x_KB, targets_KB, rows, dropout_KUB, loss)
        if not self._slots:
            kind = EagerModule if self._batched is None else StackedModule
            self._slots = [
                kind(self._model, *(_slot_of(stack, i) for stack in self._stacks))
                for i in range(self._num_slots)
            ]
        judged = [
            slot.loss_gradients(
                x_KB[i : i + 1],
                targets_KB[i : i + 1],
                Rows(
                    None if rows.invalid_KB is None else rows.invalid_KB[i : i + 1],
                    rows.num_valid_K11[i : i + 1],
                ),
                None if dropout_KUB is None else dropout_KUB[i : i + 1],
                loss.of_slot(i),
            )
            for i, slot in enumerate(self._slots)
        ]
        return Judged(
            torch.cat([one.gradient_KCB for one in judged]),
            torch.cat([one.losses_KB for one in judged]),
            torch.cat([one.scores_KB for one in judged]),
        )

    def _packs(self, x_KB: Tensor) -> bool:
        from ridgeline.search.engine.models.module_packing import unpackable

        dtype = next(iter(self._stacks[0].values())).dtype
        num_slots, num_rows = x_KB.shape[:2]
        return unpackable(self._model, num_slots, num_rows, x_KB.device, dtype) is None


class StackedModule(BoundModel):
    """All slots of a module at once, by graphs that are traced for each shape of a batch."""

    def __init__(
        self, model: ModuleModel, parameters: Tensors, gradients: Tensors, statistics: Tensors
    ) -> None:
        template, self._model = template_of(model), model
        parts = template.parts
        own = [parameters[name] for name in parts.parameters]
        self._gradients = [gradients[name] for name in parts.parameters]
        self._statistics = [statistics[name] for name in parts.statistics]
        self._tensors = [*own, *self._statistics, *constants_of(model, own[0].device)]

    def loss_gradients(
        self, x_KB: Tensor, targets_KB: Tensor, rows: Rows, dropout_KUB: Tensor | None, loss: Loss
    ) -> Judged:
        """See the port.

        Raises:
            Unbatchable: something in the module cannot be batched.
        """
        invalid_KB = rows.invalid_KB
        optional = [tensor for tensor in (invalid_KB, dropout_KUB) if tensor is not None]
        given = [x_KB, rows.num_valid_K11.view(-1), *optional]
        graphs = _gradients(
            self._model,
            tuple(Like.of(tensor) for tensor in self._tensors),
            tuple(Like.of(tensor) for tensor in given),
            invalid_KB is not None,
            dropout_KUB is not None,
        )
        y_KBC, *rest = graphs.forward.forward(*self._tensors, *given)
        new, saved = rest[: len(self._statistics)], rest[len(self._statistics) :]
        judged = loss.judge(y_KBC.transpose(1, 2), targets_KB, rows)
        found = graphs.backward.forward(judged.gradient_KCB.transpose(1, 2).contiguous(), *saved)
        torch._foreach_copy_(self._gradients, list(found))
        if new:
            torch._foreach_copy_(self._statistics, new)
        return judged


class EagerModule(BoundModel):
    """One slot of a module that cannot be batched, through autograd.

    It sees the rows that count and no others.  What it draws of its own comes from torch's
    generator of the CPU, which begins each step at a number worked out from the weights and the
    batch: so a step depends on the slot's state alone, wherever and whenever it is taken.
    """

    def __init__(
        self, model: ModuleModel, parameters: Tensors, gradients: Tensors, statistics: Tensors
    ) -> None:
        template = template_of(model)
        names = template.parts
        self._parameters = {name: parameters[name][0] for name in names.parameters}
        self._gradients = [gradients[name][0] for name in names.parameters]
        self._statistics = {name: statistics[name][0] for name in names.statistics}
        self._sites = template.survey.sites
        self._whole = whole_numbers(template)
        self._bytes = {name: statistics[name][0] for name in self._whole}
        first = next(iter(self._parameters.values()))
        with alone():
            module = deepcopy(template.module).to(first.device, first.dtype).train()
        self._module = WithBuffers(module)

    def loss_gradients(
        self, x_KB: Tensor, targets_KB: Tensor, rows: Rows, dropout_KUB: Tensor | None, loss: Loss
    ) -> Judged:
        """See the port; with K = 1, and outputs of 0 in the rows that do not count."""
        num_valid = int(rows.num_valid_K11)
        x_B = x_KB[0, :num_valid]
        factors_UB = None if dropout_KUB is None else dropout_KUB[0, :, :num_valid]
        own = {n: t.detach().clone().requires_grad_() for n, t in self._parameters.items()}
        named = {**own, **{n: t.clone() for n, t in self._statistics.items()}}
        named |= {n: from_bytes(t, self._whole[n]) for n, t in self._bytes.items()}
        num_valid_rows = rows.num_valid_K11.view(())
        substitutes = Substitutes(num_valid_rows, None, factors_UB, found=self._sites)
        seed = _checksum([x_B, *self._parameters.values()])
        with torch.enable_grad(), seeded(seed):
            # A copy: the module may write to its rows.
            y_BC, buffers = call(self._module, named, x_B.clone(), substitutes)
        y_1CB = y_BC.new_zeros(1, y_BC.shape[1], x_KB.shape[1])
        y_1CB[0, :, :num_valid] = y_BC.detach().t()
        judged = loss.judge(y_1CB, targets_KB, rows)
        gradient_BC = judged.gradient_KCB[0, :, :num_valid].t()
        with seeded(seed):  # hooks are a person's code too
            found = torch.autograd.grad(y_BC, list(own.values()), gradient_BC, allow_unused=True)
        for tensor, gradient in zip(self._gradients, found, strict=True):
            if gradient is None:
                tensor.zero_()
            else:
                tensor.copy_(gradient)
        for name, parameter in self._parameters.items():
            parameter.copy_(own[name].detach())  # what the module itself writes to it is kept
        for name, statistic in self._statistics.items():
            statistic.copy_(buffers.get(name, named[name]).detach())
        for name, kept in self._bytes.items():
            kept.copy_(as_bytes(buffers.get(name, named[name]).to(self._whole[name].dtype)))
        return judged


def outputs(model: ModuleModel, parameters: Tensors, statistics: Tensors, x_B: Tensor) -> Tensor:
    """Outputs of E slots for the same rows in evaluation mode, [E, C, B]."""
    template = template_of(model)
    own = [parameters[name] for name in template.parts.parameters]
    kept = [statistics[name] for name in template.parts.statistics]
    if template.survey.obstacle is not None:
        kept += [statistics[name] for name in whole_numbers(template)]
        each = zip(*own, strict=True) if not kept else zip(*own, *kept, strict=True)
        return torch.stack([_outputs_of_one(template, tensors, x_B).t() for tensors in each])
    tensors = [*own, *kept, *constants_of(model, x_B.device)]
    graph = _outputs(model, tuple(Like.of(tensor) for tensor in tensors), Like.of(x_B))
    (y_EBC,) = graph.forward(*tensors, x_B)
    y_ECB: Tensor = y_EBC.transpose(1, 2)
    return y_ECB


def _outputs_of_one(template: Template, tensors: Sequence[Tensor], x_B: Tensor) -> Tensor:
    with alone():
        module = deepcopy(template.module).to(tensors[0].device, tensors[0].dtype).eval()
    whole = whole_numbers(template)
    names = (*template.parts.parameters, *template.parts.statistics, *whole)
    named = {name: tensor.clone() for name, tensor in zip(names, tensors, strict=True)}
    named |= {name: from_bytes(named[name], numbers) for name, numbers in whole.items()}
    num_rows = tensors[0].new_full((), len(x_B))
    with torch.no_grad(), seeded(_checksum([x_B, *tensors])):
        # A copy: the module may write to its rows, which are the data of all runs.
        return call(WithBuffers(module), named, x_B.clone(), Substitutes(num_rows, None, None))[0]


@dataclass(frozen=True)
class Like:
    """All of a tensor but its numbers."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: Tensor) -> Like:
        return cls(tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device)

    def empty(self) -> Tensor:
        """A tensor like it, whose numbers are never written or read."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)


@lru_cache(maxsize=128)
def constants_of(model: ModuleModel, device: torch.device) -> list[Tensor]:
    """Those of the module, on the device: what copies from the host cannot be recorded there."""
    return [constant.to(device) for constant in template_of(model).constants]


@lru_cache(maxsize=128)
def _gradients(
    model: ModuleModel,
    tensors: tuple[Like, ...],
    given: tuple[Like, ...],
    has_padding: bool,
    drops: bool,
) -> Gradients:
    template = template_of(model)
    x_KB, num_valid_K, *optional = (like.empty() for like in given)
    invalid_KB = optional.pop(0) if has_padding else None
    factors_KUB = optional.pop(0) if drops else None
    own, kept, constants = _divided(template, [like.empty() for like in tensors])
    return _batched(
        template,
        lambda: trace_gradients(
            template.module,
            template.parts,
            own,
            kept,
            constants,
            x_KB,
            num_valid_K,
            invalid_KB,
            factors_KUB,
            model.num_outputs,
        ),
    )


@lru_cache(maxsize=128)
def _outputs(model: ModuleModel, tensors: tuple[Like, ...], x_B: Like) -> fx.GraphModule:
    template = template_of(model)
    divided = _divided(template, [like.empty() for like in tensors])
    return _batched(
        template,
        lambda: trace_outputs(template.module, template.parts, *divided, x_B.empty()),
    )


def _divided(
    template: Template, tensors: Sequence[Tensor]
) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]:
    p = len(template.parts.parameters)
    q = p + len(template.parts.statistics)
    return tensors[:p], tensors[p:q], tensors[q:]


def _batched(template: Template, trace: Callable[[], _T]) -> _T:
    try:
        return trace()
    except (RuntimeError, NotImplementedError, TypeError, ValueError) as exc:
        first = str(exc).partition("\n")[0]
        raise Unbatchable(f"{template.name}: {first}") from exc


def _slot_of(stack: Tensors, slot: int) -> dict[str, Tensor]:
    return {name: tensor[slot : slot + 1] for name, tensor in stack.items()}


def _checksum(tensors: Sequence[Tensor]) -> int:
    checksum = 0
    for tensor in tensors:
        checksum = zlib.crc32(tensor.detach().cpu().contiguous().numpy().tobytes(), checksum)
    return checksum
