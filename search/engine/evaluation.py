"""What a slot's weights are worth on a part of the data.

# P, Q numbers a slot, B rows of a chunk, D units in, H units out, C classes, E slots at once
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ridgeline.search.engine.config import ModelShape
from ridgeline.search.engine.data import Split
from ridgeline.search.engine.layers import NORM_EPSILON
from ridgeline.search.engine.layout import Stacks, layouts
from ridgeline.search.engine.memory import PackMemory
from ridgeline.search.engine.spec import round_up

NEAR_ZERO = 1e-3
"""A weight of a smaller magnitude counts as near zero."""

EVALUATION_ROWS = 2048
"""Rows evaluated at once: bounds the memory; fixed, since sums in chunks depend on it."""


def loss_and_accuracy(
    shape: ModelShape, parameters_P: Tensor, statistics_Q: Tensor, split: Split
) -> Tensor:
    """Mean cross-entropy and accuracy in evaluation mode, summed in float64.

    Looks at one slot's rows alone, so it cannot depend on the pack.  The caller chooses the library
    that multiplies, see `products`.

    Returns:
        float64 [2] on the device; the caller decides when to wait for it.
    """
    parameters, statistics = (
        {name: view[0] for name, view in layout.views(row[None]).items()}
        for layout, row in zip(layouts(shape), (parameters_P, statistics_Q), strict=True)
    )
    totals = torch.zeros(2, dtype=torch.float64, device=parameters_P.device)
    chunks = zip(
        torch.split(split.x, EVALUATION_ROWS), torch.split(split.y, EVALUATION_ROWS), strict=True
    )
    for x_BD, y_B in chunks:
        logits_BC = _logits(shape, parameters, statistics, x_BD)
        losses_B1 = -torch.log_softmax(logits_BC, dim=1).gather(1, y_B[:, None])
        totals[0] += losses_B1.sum(dtype=torch.float64)
        totals[1] += (logits_BC.argmax(dim=1) == y_B).sum()
    return totals.div_(split.num_samples)


def _logits(
    shape: ModelShape, parameters: dict[str, Tensor], statistics: dict[str, Tensor], flow: Tensor
) -> Tensor:
    for i in range(len(shape.hidden)):
        flow = torch.addmm(
            parameters[f"layers.{i}.bias"], flow, parameters[f"layers.{i}.weight"].t()
        )
        if shape.batch_norm:
            scale_H = (
                parameters[f"norms.{i}.weight"]
                / (statistics[f"norms.{i}.running_var"] + NORM_EPSILON).sqrt_()
            )
            shift_H = (
                parameters[f"norms.{i}.bias"] - statistics[f"norms.{i}.running_mean"] * scale_H
            )
            flow = flow.mul_(scale_H).add_(shift_H)
        flow = flow.relu_() if shape.activation == "relu" else flow.tanh_()
    last = len(shape.hidden)
    return torch.addmm(
        parameters[f"layers.{last}.bias"], flow, parameters[f"layers.{last}.weight"].t()
    )


def slots_at_once(shape: ModelShape, num_samples: int, width: int) -> int:
    """How many slots a compiled program evaluates in one call.

    A few, where one slot's work is less than a call costs; fixed for a program, since a sum may
    depend on it, and small, since a slot that ends its epoch alone pays for all of them.
    """
    layout, _ = layouts(shape)
    return min(width, 8) if num_samples * layout.num_matrix_entries < 1e7 else 1


def rows_at_once(num_samples: int) -> int:
    """How many rows of a split a program evaluates in one call, those that only pad it included."""
    return min(EVALUATION_ROWS, round_up(num_samples))


def weight_totals(matrices_EHD: Iterable[Tensor]) -> Tensor:
    """Σw², in float64, and the number of weights below NEAR_ZERO: float64 [E, 2].

    In float64: squares of float32 overflow long before the weights do.
    """
    totals = []
    for matrix_EHD in matrices_EHD:
        squares_E = matrix_EHD.double().square().flatten(1).sum(dim=1)
        near_E = (matrix_EHD.abs() < NEAR_ZERO).flatten(1).sum(dim=1)
        totals.append(torch.stack([squares_E, near_E.double()], dim=1))
    return torch.stack(totals).sum(0)


def matrices_of(shape: ModelShape, parameters: Mapping[str, Tensor]) -> list[Tensor]:
    """The weight matrices among the parameters of a model."""
    return [parameters[f"layers.{i}.weight"] for i in range(len(shape.hidden) + 1)]


class TracedEvaluation(torch.nn.Module):
    """The evaluation of E slots on one chunk of rows, as a compiler takes it.

    Adds the losses and right guesses of the rows to `totals`, and states `weights` anew.
    """

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self._shape = shape

    def forward(self, inputs: dict[str, Tensor]) -> tuple[()]:
        """Change `totals` in place."""
        shape = self._shape
        logits_ECB = _stacked_logits(shape, inputs, inputs["x"])
        target_EB = inputs["y"].expand(logits_ECB.shape[0], -1)
        losses_EB = -torch.log_softmax(logits_ECB, dim=1).gather(1, target_EB[:, None])[:, 0]
        right_EB = logits_ECB.argmax(dim=1) == target_EB
        valid_B = torch.arange(logits_ECB.shape[2], device=right_EB.device) < inputs["num_valid"]
        losses_EB = losses_EB.masked_fill(~valid_B, 0)
        sums = [losses_EB.sum(1, dtype=torch.float64), (right_EB & valid_B).sum(1).double()]
        inputs["totals"].add_(torch.stack(sums, dim=1))
        inputs["weights"].copy_(weight_totals(matrices_of(shape, inputs)))
        return ()


class EvaluationMemory:
    """The tensors of a compiled evaluation: rows of E slots, and the chunks of a split.

    Attributes:
        parameters, statistics: what is evaluated.
        totals_E2: the sum of the losses, and the number of right guesses.
        weights_E2: as `weight_totals` gives them.
    """

    def __init__(self, shape: ModelShape, split: Split, num_slots: int) -> None:
        x, y = split.x, split.y
        self.parameters, self.statistics = (
            Stacks(layout, num_slots, device=x.device, dtype=x.dtype) for layout in layouts(shape)
        )
        self.totals_E2 = torch.zeros(num_slots, 2, dtype=torch.float64, device=x.device)
        self.weights_E2 = torch.zeros_like(self.totals_E2)
        self._chunks = list(_chunks(x, y, rows_at_once(split.num_samples)))

    def inputs(self) -> list[dict[str, Tensor]]:
        """The inputs of each call, chunk by chunk."""
        shared = {
            "totals": self.totals_E2,
            "weights": self.weights_E2,
            **self.parameters.views(),
            **self.statistics.views(),
        }
        return [{**chunk, **shared} for chunk in self._chunks]


BindEvaluation = Callable[[Sequence[Mapping[str, Tensor]]], Callable[[int], None]]
"""Gives the evaluation of so many slots, the first ones, in the chunks of an `EvaluationMemory`."""


_Bound = tuple[EvaluationMemory, Callable[[int], None]]


class PackEvaluation:
    """Evaluates slots of a pack on the validation data, and weights on the test data.

    Args:
        bind: a program; None takes torch's operations.

    Attributes:
        is_exact: whether a slot's bits are known not to depend on how many the program evaluates at
            once; otherwise it is always the same number.
    """

    def __init__(self, bind: BindEvaluation | None, memory: PackMemory) -> None:
        self.is_exact = False
        self._source, self._bind = memory, bind
        self._shape = memory.layout.shape
        split = memory.data.validation
        self._num_slots = slots_at_once(self._shape, split.num_samples, len(memory.step_K))
        self._validation = None if bind is None else self._bound(bind, split, self._num_slots)
        self._test: _Bound | None = None
        """None until it is asked for, by the first run that ends."""

    def validate(self, slots: Sequence[int], group_G: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss and accuracy, and `weight_totals`, each float64 [G, 2].

        Args:
            group_G: the slots, on the device.
        """
        source, split = self._source, self._source.data.validation
        totals, weights = [], []
        if self._validation is None:
            # Slot by slot: how a sum over several rows is split depends on how many they are.
            matrices = matrices_of(self._shape, source.parameters.views())
            for slot in slots:
                row, statistics = source.parameters.row(slot), source.statistics.row(slot)
                totals.append(loss_and_accuracy(self._shape, row, statistics, split))
                weights.append(weight_totals(matrix[slot : slot + 1] for matrix in matrices))
            return torch.stack(totals), torch.cat(weights)
        memory, run = self._validation
        for chosen in torch.split(group_G, self._num_slots):
            num_chosen = len(chosen)
            memory.parameters.set_rows(source.parameters, chosen)
            memory.statistics.set_rows(source.statistics, chosen)
            memory.totals_E2.zero_()
            run(num_chosen if self.is_exact else self._num_slots)
            totals.append(memory.totals_E2[:num_chosen].clone())
            weights.append(memory.weights_E2[:num_chosen].clone())
        return torch.cat(totals) / split.num_samples, torch.cat(weights)

    def test(self, parameters_P: Tensor, statistics_Q: Tensor) -> Tensor:
        """Mean loss and accuracy of weights, float64 [2]."""
        split = self._source.data.test
        if self._bind is None:
            return loss_and_accuracy(self._shape, parameters_P, statistics_Q, split)
        if self._test is None:
            self._test = self._bound(self._bind, split, num_slots=1)
        memory, run = self._test
        memory.parameters.set_row(0, parameters_P)
        memory.statistics.set_row(0, statistics_Q)
        memory.totals_E2.zero_()
        run(1)
        return memory.totals_E2[0] / split.num_samples

    def _bound(self, bind: BindEvaluation, split: Split, num_slots: int) -> _Bound:
        memory = EvaluationMemory(self._shape, split, num_slots)
        return memory, bind(memory.inputs())


def _chunks(x: Tensor, y: Tensor, num_rows: int) -> Iterator[dict[str, Tensor]]:
    for x_BD, y_B in zip(torch.split(x, num_rows), torch.split(y, num_rows), strict=True):
        missing = num_rows - len(y_B)
        num_valid = torch.tensor(len(y_B), device=y.device)
        if missing:
            x_BD = torch.cat([x_BD, x_BD[:1].expand(missing, -1)])
            y_B = torch.cat([y_B, y_B[:1].expand(missing)])
        yield {"x": x_BD, "y": y_B, "num_valid": num_valid}


def _stacked_logits(shape: ModelShape, tensors: Mapping[str, Tensor], x_BD: Tensor) -> Tensor:
    """Logits in evaluation mode, [E, C, B]: units before rows, as in training (`layers`)."""
    flow = x_BD.t()[None].expand(tensors["layers.0.weight"].shape[0], -1, -1)
    for i, weight in enumerate(matrices_of(shape, tensors)):
        flow = torch.bmm(weight, flow) + tensors[f"layers.{i}.bias"][:, :, None]
        if i == len(shape.hidden):
            break
        if shape.batch_norm:
            scale = tensors[f"norms.{i}.weight"] * torch.rsqrt(
                tensors[f"norms.{i}.running_var"] + NORM_EPSILON
            )
            shift = tensors[f"norms.{i}.bias"] - tensors[f"norms.{i}.running_mean"] * scale
            flow = flow * scale[:, :, None] + shift[:, :, None]
        flow = flow.relu() if shape.activation == "relu" else flow.tanh()
    return flow
