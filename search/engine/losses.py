"""The port of losses: the gradient of the mean loss, and the loss and the score of each row.

A loss tells with which targets it can be trained, and the metrics that follow from the means.  All
take outputs as they are (logits, not probabilities) and work with logarithms throughout, so an
extreme output costs no precision and only an infinite one is not finite.

As torch's own losses have it, classes and outputs are the dimension 1: outputs [K, C, B] of K slots
in training, [E, C, B] of E slots or [B, C] of one in evaluation; targets are classes, int64 [K, B],
or numbers, [K, C, B].

# K slots, B rows of a batch, C outputs
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ridgeline.search.engine.config import Direction
from ridgeline.search.engine.metrics import OF_CLASSES, OF_NUMBERS, OutputMetric
from ridgeline.search.engine.models.base import Rows


@dataclass(frozen=True)
class Targets:
    """What there is to learn of each sample: one of `count` classes, or `count` numbers.

    Attributes:
        low, high: of all numbers, the least and the greatest; of classes, the first and the last.
        unit: of numbers, what 1 is in the unit that people have them in: they may be standardised.
    """

    kind: Literal["classes", "numbers"]
    count: int
    low: float
    high: float
    unit: float = 1.0

    @classmethod
    def classes(cls, count: int) -> Targets:
        """So many classes, counted from 0."""
        return cls("classes", count, 0.0, count - 1.0)


class Judged(NamedTuple):
    """What a loss says of outputs in training.

    Attributes:
        gradient_KCB: of the sum over slots of each slot's mean loss over the rows that count, by
            the outputs; 0 in all other rows.
        losses_KB: of each row, whether it counts or not.
        scores_KB: of each row, what the loss is not, such as whether the guess is right.
    """

    gradient_KCB: Tensor
    losses_KB: Tensor
    scores_KB: Tensor


class Loss(ABC):
    """A loss; without state, so one object serves all."""

    name: ClassVar[str]
    """In `LOSSES`, and in JSON."""

    targets: ClassVar[Literal["classes", "numbers"]]
    """The kind of targets that can be learned by it."""

    metrics: ClassVar[tuple[tuple[str, Direction], ...]]
    """Of what `told` gives, the loss first: the names, and which values are the better ones."""

    need_two_rows: ClassVar[frozenset[str]] = frozenset()
    """The names of those of `metrics` that one row alone does not have."""

    output_metrics: ClassVar[tuple[OutputMetric, ...]] = ()
    """What a run may be judged by besides, from the outputs of all rows."""

    score_dtype: ClassVar[torch.dtype]
    """In which scores are added up; whole numbers where a score is yes or no."""

    takes_smoothing: ClassVar[bool] = False
    """Whether labels can be smoothed."""

    def check(self, targets: Targets, num_outputs: int) -> None:
        """Raise a ValueError where a model of so many outputs cannot learn these targets."""
        if targets.kind != self.targets:
            raise ValueError(
                f"{self.name} needs {self.targets} as targets, the data have {targets.kind}"
            )
        if targets.count != num_outputs:
            raise ValueError(
                f"the model has {num_outputs} outputs, the data have {targets.count} {targets.kind}"
            )

    def told(self, means: Sequence[float], variance: float, unit: float) -> Sequence[float]:
        """The metrics of a part of the data.

        Args:
            means: of the losses and of the scores over its rows.
            variance: of its targets.
            unit: as of `Targets`.
        """
        return means

    @abstractmethod
    def judge(
        self, outputs_KCB: Tensor, targets_KB: Tensor, rows: Rows, smoothing_K: Tensor | None = None
    ) -> Judged:
        """The gradient, losses and scores of a batch.

        Args:
            smoothing_K: a share of each slot's targets that is spread evenly over the classes (over
                0 and 1 where they are independent), from 0 up to less than 1: Szegedy et al.,
                "Rethinking the inception architecture" (2016), section 7.  A slot of 0 has the bits
                that None gives.
        """

    @abstractmethod
    def evaluate(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Losses and scores of rows, without smoothing.

        Args:
            outputs: [N, C, …].
            targets: classes [N, …], or numbers as the outputs.

        Returns:
            [N, …] each.
        """

    def of_slot(self, slot: int) -> Loss:
        """This loss in a batch of that slot alone, K = 1."""
        return self


class SmoothedLoss(Loss):
    """A loss whose targets are smoothed in training, each slot's by a share of its own.

    Args:
        smoothing_K: see `Loss.judge`.
    """

    def __init__(self, loss: Loss, smoothing_K: Tensor) -> None:
        self._loss, self._smoothing_K = loss, smoothing_K

    def judge(
        self, outputs_KCB: Tensor, targets_KB: Tensor, rows: Rows, smoothing_K: Tensor | None = None
    ) -> Judged:
        assert smoothing_K is None, "the targets are smoothed already"
        return self._loss.judge(outputs_KCB, targets_KB, rows, self._smoothing_K)

    def evaluate(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self._loss.evaluate(outputs, targets)

    def of_slot(self, slot: int) -> Loss:
        return SmoothedLoss(self._loss.of_slot(slot), self._smoothing_K[slot : slot + 1])


class CrossEntropy(Loss):
    """-log softmax(outputs) at the target's class, in nats; and accuracy."""

    name = "cross_entropy"
    targets = "classes"
    metrics = (("loss", "minimize"), ("accuracy", "maximize"))
    output_metrics = OF_CLASSES
    score_dtype = torch.int64
    takes_smoothing = True

    def check(self, targets: Targets, num_outputs: int) -> None:
        super().check(targets, num_outputs)
        if num_outputs < 2:
            raise ValueError(f"{self.name} needs at least two classes, the data have one")

    def judge(
        self, outputs_KCB: Tensor, targets_KB: Tensor, rows: Rows, smoothing_K: Tensor | None = None
    ) -> Judged:
        log_p_KCB = torch.log_softmax(outputs_KCB, dim=1)
        losses_KB = log_p_KCB.gather(1, targets_KB[:, None])[:, 0].neg()
        gradient_KCB = log_p_KCB.exp()
        wanted_KCB = _wanted(outputs_KCB, targets_KB, smoothing_K)
        if smoothing_K is not None:
            share_K1 = smoothing_K[:, None]
            smooth_KB = losses_KB * (1 - share_K1) - log_p_KCB.mean(dim=1) * share_K1
            # By selection: 0·(-inf) is NaN.
            losses_KB = torch.where(share_K1 > 0, smooth_KB, losses_KB)
        gradient_KCB.sub_(wanted_KCB)
        return Judged(
            rows.mask(gradient_KCB.div_(rows.num_valid_K11)),
            losses_KB,
            log_p_KCB.argmax(dim=1) == targets_KB,
        )

    def evaluate(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        losses = torch.log_softmax(outputs, dim=1).gather(1, targets[:, None])[:, 0].neg()
        return losses, outputs.argmax(dim=1) == targets


class WeighedCrossEntropy(Loss):
    """Cross-entropy of which each row has a share by its class; a loss of training alone.

    Its gradient is that of Σ w(t)·loss / Σ w(t) over the rows of a batch that count, t being their
    classes and w the slot's weights: `torch.nn.CrossEntropyLoss(weight=w)`.  With smoothing that
    is -Σ w(c)·wanted(c)·log p(c) / Σ w(t), as torch has it.  The losses that it tells are not
    weighed, so that they compare with those of evaluation and of other weights.

    Args:
        weights_KC: above 0.
    """

    def __init__(self, weights_KC: Tensor) -> None:
        self._loss, self._weights_KC = CrossEntropy(), weights_KC

    def judge(
        self, outputs_KCB: Tensor, targets_KB: Tensor, rows: Rows, smoothing_K: Tensor | None = None
    ) -> Judged:
        plain = self._loss.judge(outputs_KCB, targets_KB, rows, smoothing_K)
        weights_KB = self._weights_KC.gather(1, targets_KB)
        if rows.invalid_KB is not None:
            weights_KB = weights_KB.masked_fill(rows.invalid_KB, 0)
        wanted_KCB = _wanted(outputs_KCB, targets_KB, smoothing_K)
        wanted_KCB.mul_(self._weights_KC[:, :, None])
        gradient_KCB = torch.softmax(outputs_KCB, dim=1)
        gradient_KCB.mul_(wanted_KCB.sum(dim=1, keepdim=True)).sub_(wanted_KCB)
        gradient_KCB.div_(weights_KB.sum(dim=1)[:, None, None])
        return plain._replace(gradient_KCB=rows.mask(gradient_KCB))

    def evaluate(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self._loss.evaluate(outputs, targets)

    def of_slot(self, slot: int) -> Loss:
        return WeighedCrossEntropy(self._weights_KC[slot : slot + 1])


class BinaryCrossEntropy(Loss):
    """-t·log σ(o) - (1 - t)·log σ(-o) for a target t from 0 to 1, the mean over the outputs.

    As `torch.nn.BCEWithLogitsLoss`: one output tells two classes apart, several are independent
    labels.  Accuracy is the share of a row's outputs on the target's side of 1/2.
    """

    name = "binary_cross_entropy"
    targets = "numbers"
    metrics = (("loss", "minimize"), ("accuracy", "maximize"))
    score_dtype = torch.float64
    takes_smoothing = True

    def check(self, targets: Targets, num_outputs: int) -> None:
        super().check(targets, num_outputs)
        if targets.low < 0 or targets.high > 1:
            raise ValueError(
                f"{self.name} needs targets from 0 to 1; the data have them from "
                f"{targets.low:g} to {targets.high:g}"
            )

    def judge(
        self, outputs_KCB: Tensor, targets_KB: Tensor, rows: Rows, smoothing_K: Tensor | None = None
    ) -> Judged:
        wanted_KCB = targets_KB
        if smoothing_K is not None:
            share_K11 = smoothing_K[:, None, None]
            wanted_KCB = targets_KB * (1 - share_K11) + share_K11 / 2
        gradient_KCB = torch.sigmoid(outputs_KCB) - wanted_KCB
        gradient_KCB.div_(rows.num_valid_K11 * outputs_KCB.shape[1])
        return Judged(
            rows.mask(gradient_KCB),
            self._losses(outputs_KCB, wanted_KCB),
            self._scores(outputs_KCB, targets_KB),
        )

    def evaluate(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return self._losses(outputs, targets), self._scores(outputs, targets)

    @staticmethod
    def _losses(outputs: Tensor, targets: Tensor) -> Tensor:
        # By selection: 0·inf is NaN, where an infinite output is right.
        of_0 = torch.where(targets < 1, functional.logsigmoid(-outputs) * (1 - targets), 0)
        of_1 = torch.where(targets > 0, functional.logsigmoid(outputs) * targets, 0)
        return (of_0 + of_1).mean(dim=1).neg()

    @staticmethod
    def _scores(outputs: Tensor, targets: Tensor) -> Tensor:
        return ((outputs > 0) == (targets > 0.5)).to(outputs.dtype).mean(dim=1)


class MeanSquaredError(Loss):
    """(o - t)², the mean over the outputs; the score is |o - t|.

    Its metrics are the loss, in the unit that is trained in; the mean absolute error (`mae`) and
    the root of the mean squared error (`rmse`), in the unit that people have the targets in; and
    R² (`r2`), 1 less the quotient of the loss and the variance of the targets.  Of a part whose
    targets do not vary, R² is 1 where all outputs are right, and else 0; one row has none: a single
    target has no variance to explain.  All as scikit-learn's `r2_score`, which gives NaN then.
    """

    name = "mean_squared_error"
    targets = "numbers"
    metrics = (("loss", "minimize"), ("mae", "minimize"), ("rmse", "minimize"), ("r2", "maximize"))
    need_two_rows = frozenset({"r2"})
    output_metrics = OF_NUMBERS
    score_dtype = torch.float64

    def told(self, means: Sequence[float], variance: float, unit: float) -> Sequence[float]:
        loss, score = means
        # A loss that is not finite has to show.
        r2 = 1 - loss / variance if variance > 0 else (0.0 if loss > 0 else 1.0 - loss)
        return loss, score * unit, math.sqrt(loss) * unit, r2

    def judge(
        self, outputs_KCB: Tensor, targets_KB: Tensor, rows: Rows, smoothing_K: Tensor | None = None
    ) -> Judged:
        assert smoothing_K is None, "numbers are not smoothed"
        differences_KCB = outputs_KCB - targets_KB
        losses_KB, scores_KB = _errors(differences_KCB)
        scale_K11 = 2 / (rows.num_valid_K11 * outputs_KCB.shape[1])
        return Judged(rows.mask(differences_KCB.mul_(scale_K11)), losses_KB, scores_KB)

    def evaluate(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return _errors(outputs - targets)


LOSSES: dict[str, Loss] = {
    loss.name: loss for loss in (CrossEntropy(), BinaryCrossEntropy(), MeanSquaredError())
}


def targets_of(y_KB: Tensor) -> Tensor:
    """Targets as a loss has them: classes [K, B], or numbers [K, C, B] of y [K, B, C]."""
    return y_KB if y_KB.dim() == 2 else y_KB.transpose(1, 2)


@cache  # asked for at the end of every epoch of every run
def asked_metric(loss: Loss, monitor: str) -> OutputMetric | None:
    """What is worked out besides, since a run is judged by it; None where it is told anyway.

    Raises:
        ValueError: it is no metric that a run with this loss has.
    """
    if monitor in (known := epoch_metrics(loss)):
        return None
    others = {f"validation_{metric.name}": metric for metric in loss.output_metrics}
    if monitor not in others:
        raise ValueError(f"{loss.name} has no {monitor}, only {', '.join([*known, *others])}")
    return others[monitor]


def epoch_metrics(loss: Loss) -> tuple[str, ...]:
    """The names of what is known of every run at the end of each epoch, in order."""
    of_parts = [f"{part}_{name}" for part in ("train", "validation") for name, _ in loss.metrics]
    return (*of_parts, "weight_norm", "near_zero_share")


def _wanted(outputs_KCB: Tensor, targets_KB: Tensor, smoothing_K: Tensor | None) -> Tensor:
    """The probabilities that the outputs are to have, [K, C, B]; see `Loss.judge`."""
    num_classes = outputs_KCB.shape[1]
    classes_C1 = torch.arange(num_classes, device=outputs_KCB.device)[:, None]
    wanted_KCB = (targets_KB[:, None] == classes_C1).to(outputs_KCB.dtype)
    if smoothing_K is not None:
        share_K11 = smoothing_K[:, None, None]
        wanted_KCB.mul_(1 - share_K11).add_(share_K11 / num_classes)
    return wanted_KCB


def _errors(differences: Tensor) -> tuple[Tensor, Tensor]:
    return differences.square().mean(dim=1), differences.abs().mean(dim=1)
