"""Loss and score of a slot's weights on one part of the data.

# P, Q numbers a slot, N rows, B of a chunk, C outputs, E slots at once, G slots of a group
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ridgeline.search.engine.alignment import round_up
from ridgeline.search.engine.data import Split
from ridgeline.search.engine.layout import ParameterLayout, Stacks, layouts
from ridgeline.search.engine.losses import LOSSES, Loss, targets_of
from ridgeline.search.engine.memory import PackMemory, under
from ridgeline.search.engine.metrics import OutputMetric
from ridgeline.search.engine.models.base import Model
from ridgeline.search.engine.spec import StepSpec

NEAR_ZERO = 1e-3
"""A weight of a smaller magnitude counts as near zero."""

EVALUATION_ROWS = 2048
"""Rows evaluated at once: bounds the memory; fixed, since sums in chunks depend on it."""


_GPU_BYTES = 2**30
"""Of activations, that an evaluation on a GPU may take."""


def loss_and_score(
    model: Model, loss: Loss, parameters_P: Tensor, statistics_Q: Tensor, split: Split
) -> Tensor:
    """Means of the loss and of its second metric in evaluation mode, summed in float64.

    Looks at one slot's rows alone, so it cannot depend on the pack.  The caller chooses the library
    that multiplies, see `products`.

    Returns:
        float64 [2] on the device; the caller decides when to wait for it.
    """
    totals = torch.zeros(2, dtype=torch.float64, device=parameters_P.device)
    outputs = _outputs(model, parameters_P, statistics_Q, split)
    for outputs_BC, y_B in zip(outputs, torch.split(split.y, EVALUATION_ROWS), strict=True):
        losses_B, scores_B = loss.evaluate(outputs_BC, y_B)
        totals[0] += losses_B.sum(dtype=torch.float64)
        totals[1] += scores_B.sum(dtype=loss.score_dtype)
    return totals.div_(split.num_samples)


def all_outputs(model: Model, parameters_P: Tensor, statistics_Q: Tensor, split: Split) -> Tensor:
    """The outputs of all rows in evaluation mode, [N, C], under the terms of `loss_and_score`."""
    return torch.cat([*_outputs(model, parameters_P, statistics_Q, split)])


def slots_at_once(model: Model, num_samples: int, width: int, device: torch.device) -> int:
    """How many slots a program evaluates in one call.

    A few, where one slot's work is less than a call costs; fixed for a program, since a sum may
    depend on it, and small, since a slot that ends its epoch alone pays for all of them.  A GPU
    takes no longer for 64 small ones than for one.
    """
    if device.type == "cpu":
        return min(width, 8) if model.forward_flops(num_samples) < 2e7 else 1
    if model.fixes_sizes:
        return 1  # a module's bits may depend on its place among others
    row_bytes = model.numbers_per_row * torch.float32.itemsize
    return max(1, min(width, 64, _GPU_BYTES // (rows_at_once(num_samples) * row_bytes)))


def rows_at_once(num_samples: int) -> int:
    """How many rows of a split a program evaluates in one call, those that only pad it included."""
    return min(EVALUATION_ROWS, round_up(num_samples))


def weight_totals(parameters: Mapping[str, Tensor], layout: ParameterLayout) -> Tensor:
    """Σw², in float64, and the number of weights below NEAR_ZERO: float64 [E, 2].

    Of what is penalised; zeros where nothing is.  In float64: squares of float32 overflow long
    before the weights do.

    Args:
        parameters: of E slots, by name.
    """
    if not layout.penalised:
        its_E = next(iter(parameters.values()))
        return its_E.new_zeros((len(its_E), 2), dtype=torch.float64)
    totals = []
    for name in layout.penalised:
        weights_E = parameters[name]
        squares_E = weights_E.double().square().flatten(1).sum(dim=1)
        near_E = (weights_E.abs() < NEAR_ZERO).flatten(1).sum(dim=1)
        totals.append(torch.stack([squares_E, near_E.double()], dim=1))
    return torch.stack(totals).sum(0)


class TracedEvaluation(torch.nn.Module):
    """The evaluation of E slots on one chunk of rows, as a compiler takes it.

    Adds the losses and scores of the rows to `totals`, and states `weights` anew.
    """

    def __init__(self, model: Model, loss: Loss) -> None:
        super().__init__()
        self._model, self._loss = model, loss

    def forward(self, inputs: dict[str, Tensor]) -> tuple[()]:
        """Change `totals` in place."""
        layout, _ = layouts(self._model)
        parameters, statistics = under(inputs, "parameters."), under(inputs, "statistics.")
        outputs_ECB = self._model.outputs(parameters, statistics, inputs["x"])
        y_B = inputs["y"]
        targets_EB = targets_of(y_B.expand(outputs_ECB.shape[0], *(-1 for _ in y_B.shape)))
        losses_EB, scores_EB = self._loss.evaluate(outputs_ECB, targets_EB)
        valid_B = torch.arange(outputs_ECB.shape[2], device=y_B.device) < inputs["num_valid"]
        losses_EB = losses_EB.masked_fill(~valid_B, 0)
        scores_EB = scores_EB.masked_fill(~valid_B, 0)
        score_sums_E = scores_EB.sum(1, dtype=self._loss.score_dtype)
        sums = [losses_EB.sum(1, dtype=torch.float64), score_sums_E.double()]
        inputs["totals"].add_(torch.stack(sums, dim=1))
        inputs["weights"].copy_(weight_totals(parameters, layout))
        return ()


class EvaluationMemory:
    """The tensors of a compiled evaluation: rows of E slots, and the chunks of a split.

    Attributes:
        parameters, statistics: what is evaluated.
        totals_E2: the sums of the losses and of the scores.
        weights_E2: as `weight_totals` gives them.

    Args:
        num_rows: of a chunk; the last one is padded to it.
    """

    def __init__(
        self, model: Model, split: Split, num_slots: int, dtype: torch.dtype, num_rows: int
    ) -> None:
        x, y = split.x, split.y
        self.parameters, self.statistics = (
            Stacks(layout, num_slots, device=x.device, dtype=dtype) for layout in layouts(model)
        )
        self.totals_E2 = torch.zeros(num_slots, 2, dtype=torch.float64, device=x.device)
        self.weights_E2 = torch.zeros_like(self.totals_E2)
        self._chunks = list(_chunks(x, y, num_rows))

    def inputs(self) -> list[dict[str, Tensor]]:
        """The inputs of each call, chunk by chunk."""
        shared = {
            "totals": self.totals_E2,
            "weights": self.weights_E2,
            **{f"parameters.{name}": view for name, view in self.parameters.views().items()},
            **{f"statistics.{name}": view for name, view in self.statistics.views().items()},
        }
        return [{**chunk, **shared} for chunk in self._chunks]


BindEvaluation = Callable[[Sequence[Mapping[str, Tensor]]], Callable[[int], None]]
"""Gives the evaluation of so many slots, the first ones, in the chunks of an `EvaluationMemory`."""


_Bound = tuple[EvaluationMemory, Callable[[int], None]]


class PackEvaluation:
    """Evaluates slots of a pack on the validation data, and weights on other parts.

    Args:
        bind: a program; None takes torch's operations.
        fixed: the rows and slots that the program evaluates at once; None where it takes any.

    Attributes:
        is_exact: whether a slot's bits are known not to depend on how many the program evaluates at
            once; otherwise it is always the same number.
    """

    def __init__(
        self,
        spec: StepSpec,
        bind: BindEvaluation | None,
        memory: PackMemory,
        fixed: tuple[int, int] | None = None,
    ) -> None:
        self.is_exact = False
        self._fixed = fixed
        self._source, self._bind = memory, bind
        self._model, self._loss = spec.model, LOSSES[spec.loss]
        split = memory.data.validation
        self._num_slots = (
            slots_at_once(self._model, split.num_samples, len(memory.step_K), split.x.device)
            if fixed is None
            else fixed[1]
        )
        self._validation = None if bind is None else self._bound(bind, split, self._num_slots)
        self._apart: dict[str, _Bound] = {}
        """By part of the data, what evaluates the weights of runs that end."""

    def validate(self, slots: Sequence[int], group_G: Tensor) -> tuple[Tensor, Tensor]:
        """Means of the loss and the score, and `weight_totals`, each float64 [G, 2].

        Args:
            group_G: the slots, on the device.
        """
        source, split = self._source, self._source.data.validation
        totals, weights = [], []
        if self._validation is None:
            # Slot by slot: how a sum over several rows is split depends on how many they are.
            views = source.parameters.views()
            for slot in slots:
                row, statistics = source.parameters.row(slot), source.statistics.row(slot)
                totals.append(loss_and_score(self._model, self._loss, row, statistics, split))
                its = {name: tensor[slot : slot + 1] for name, tensor in views.items()}
                weights.append(weight_totals(its, source.layout))
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

    def judge(self, slot: int, metric: OutputMetric) -> Tensor:
        """A metric of the slot's weights on the validation data, float64 []."""
        parameters_P, statistics_Q = (
            stacks.row(slot) for stacks in (self._source.parameters, self._source.statistics)
        )
        data = self._source.data
        outputs_NC = all_outputs(self._model, parameters_P, statistics_Q, data.validation)
        return metric.value(outputs_NC, data.validation.y, data.targets.unit)

    def test(self, parameters_GP: Tensor, statistics_GQ: Tensor) -> Tensor:
        """Means of the loss and the score of weights on the test data, float64 [G, 2]."""
        return self._judged("test", self._source.data.test, parameters_GP, statistics_GQ)

    def train(self, parameters_GP: Tensor, statistics_GQ: Tensor) -> Tensor:
        """The same on the sample of the training data, in evaluation mode."""
        sample = self._source.data.train_sample
        return self._judged("train", sample, parameters_GP, statistics_GQ)

    def _judged(
        self, part: str, split: Split, parameters_GP: Tensor, statistics_GQ: Tensor
    ) -> Tensor:
        if self._bind is None:
            rows = zip(parameters_GP, statistics_GQ, strict=True)
            each = [loss_and_score(self._model, self._loss, *row, split) for row in rows]
            return torch.stack(each)
        # A program of fixed sizes computes all of its slots, whether or not weights are in them.
        num_slots = 1 if self._fixed is None else self._fixed[1]
        if part not in self._apart:
            self._apart[part] = self._bound(self._bind, split, num_slots)
        memory, run = self._apart[part]
        totals = []
        groups = (torch.split(rows, num_slots) for rows in (parameters_GP, statistics_GQ))
        for parameters_EP, statistics_EQ in zip(*groups, strict=True):
            memory.parameters.set_first_rows(parameters_EP)
            memory.statistics.set_first_rows(statistics_EQ)
            memory.totals_E2.zero_()
            run(len(parameters_EP))
            totals.append(memory.totals_E2[: len(parameters_EP)].clone())
        return torch.cat(totals) / split.num_samples

    def judge_on_train(
        self, parameters_P: Tensor, statistics_Q: Tensor, metric: OutputMetric
    ) -> Tensor:
        """A metric of weights on the sample of the training data, float64 []."""
        data = self._source.data
        outputs_NC = all_outputs(self._model, parameters_P, statistics_Q, data.train_sample)
        return metric.value(outputs_NC, data.train_sample.y, data.targets.unit)

    def judge_on_test(self, parameters_P: Tensor, statistics_Q: Tensor) -> dict[str, Tensor]:
        """All of the loss's `output_metrics` of weights that there are on these data, by name."""
        data, count = self._source.data, self._source.data.targets.count
        outputs_NC = all_outputs(self._model, parameters_P, statistics_Q, data.test)
        return {
            metric.name: metric.value(outputs_NC, data.test.y, data.targets.unit)
            for metric in self._loss.output_metrics
            if not (metric.needs_every_class and 0 in data.test.class_counts(count))
        }

    def _bound(self, bind: BindEvaluation, split: Split, num_slots: int) -> _Bound:
        num_rows = rows_at_once(split.num_samples) if self._fixed is None else self._fixed[0]
        dtype = self._source.data.dtype
        memory = EvaluationMemory(self._model, split, num_slots, dtype, num_rows)
        return memory, bind(memory.inputs())


def _outputs(
    model: Model, parameters_P: Tensor, statistics_Q: Tensor, split: Split
) -> Iterator[Tensor]:
    """The outputs of one slot, EVALUATION_ROWS at a time, by torch's operations."""
    parameters, statistics = (
        layout.views_of_one(row)
        for layout, row in zip(layouts(model), (parameters_P, statistics_Q), strict=True)
    )
    for x_B in torch.split(split.x, EVALUATION_ROWS):
        yield model.outputs_of_one(parameters, statistics, x_B)


def _chunks(x: Tensor, y: Tensor, num_rows: int) -> Iterator[dict[str, Tensor]]:
    for x_B, y_B in zip(torch.split(x, num_rows), torch.split(y, num_rows), strict=True):
        missing = num_rows - len(y_B)
        num_valid = torch.tensor(len(y_B), device=y.device)
        if missing:
            x_B = torch.cat([x_B, x_B[:1].expand(missing, *x_B.shape[1:])])
            y_B = torch.cat([y_B, y_B[:1].expand(missing, *y_B.shape[1:])])
        yield {"x": x_B, "y": y_B, "num_valid": num_valid}
