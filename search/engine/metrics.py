"""Metrics that are worked out from the outputs of all rows of a part of the data.

Losses tell what follows from sums over rows, which a program adds up as it goes.  What is here
needs all outputs at once.  It is worked out in float64, only for runs that are judged by it.

# N rows, C outputs
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ridgeline.search.engine.config import Direction


@dataclass(frozen=True)
class OutputMetric:
    """A metric of a part of the data; a function of outputs and targets alone.

    Attributes:
        of: gives it, float64 [], of outputs [N, C] and targets: classes [N], or numbers [N, C].
        unit_power: of numbers, to which power their unit is part of it; see `losses.Targets`.
        needs_every_class: whether there is none where a class has no row.
    """

    name: str
    direction: Direction
    of: Callable[[Tensor, Tensor], Tensor]
    unit_power: int = 0
    needs_every_class: bool = False

    def value(self, outputs_NC: Tensor, targets: Tensor, unit: float) -> Tensor:
        """The metric, float64 [] on the device; NaN where an output is."""
        value = self.of(outputs_NC, targets) * unit**self.unit_power
        return torch.where(outputs_NC.isnan().any(), torch.nan, value)


def _balanced_accuracy(outputs_NC: Tensor, y_N: Tensor) -> Tensor:
    """The mean over the classes that have rows of the share of these that is guessed right."""
    rows_C, _, right_C = _counts(outputs_NC, y_N)
    return _mean_quotient(right_C, rows_C)


def _macro_f1(outputs_NC: Tensor, y_N: Tensor) -> Tensor:
    """The mean of the F1 scores of the classes that have rows or are guessed.

    F1 = 2·r/(n + g) of a class with n rows and g guesses, of which r are right: the harmonic mean
    of the shares r/g and r/n.
    """
    rows_C, guesses_C, right_C = _counts(outputs_NC, y_N)
    return _mean_quotient(2 * right_C, rows_C + guesses_C)


def _roc_auc(outputs_NC: Tensor, y_N: Tensor) -> Tensor:
    """The area under the ROC curve: how often a row of a class has more of it than another row.

    Of two classes that of the second; of more the mean over all classes, each against the rest.
    Rows are ranked by the probability of the class, in float64, and equal ones count half: Hanley
    and McNeil, "The meaning and use of the area under a receiver operating characteristic curve"
    (1982), by the sum of the ranks (Mann and Whitney).  NaN where a class has no row, or all.
    """
    p_CN = torch.softmax(outputs_NC.double(), dim=1).T.contiguous()
    classes_C = torch.arange(len(p_CN), device=y_N.device)
    if len(p_CN) == 2:
        p_CN, classes_C = p_CN[1:], classes_C[1:]
    is_own_CN = y_N == classes_C[:, None]
    sorted_CN = p_CN.sort(dim=1).values
    # Twice the rank, counted from 1, that equal rows share.  Whole numbers: their sums are exact.
    ranks_CN = torch.searchsorted(sorted_CN, p_CN) + 1
    ranks_CN += torch.searchsorted(sorted_CN, p_CN, right=True)
    own_C = is_own_CN.sum(dim=1)
    above_C = ranks_CN.masked_fill_(~is_own_CN, 0).sum(dim=1) - own_C * (own_C + 1)
    return (above_C.double() / (2 * own_C * (len(y_N) - own_C))).mean()


def _log_loss(outputs_NC: Tensor, y_N: Tensor) -> Tensor:
    """The mean of -log of the probability of a row's own class, in nats."""
    log_p_NC = torch.log_softmax(outputs_NC.double(), dim=1)
    return log_p_NC.gather(1, y_N[:, None]).mean().neg()


def _mse(outputs_NC: Tensor, targets_NC: Tensor) -> Tensor:
    return (outputs_NC.double() - targets_NC).square().mean()


OF_CLASSES = (
    OutputMetric("balanced_accuracy", "maximize", _balanced_accuracy),
    OutputMetric("macro_f1", "maximize", _macro_f1),
    OutputMetric("roc_auc", "maximize", _roc_auc, needs_every_class=True),
    OutputMetric("log_loss", "minimize", _log_loss),
)
"""Of scores of classes, before any softmax."""

OF_NUMBERS = (OutputMetric("mse", "minimize", _mse, unit_power=2),)


def _counts(outputs_NC: Tensor, y_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each class the rows, the guesses, and how many of these are right: int64 [C]."""
    guesses_N, none_C = outputs_NC.argmax(dim=1), y_N.new_zeros(outputs_NC.shape[1])
    ones_N = torch.ones_like(y_N)
    return (
        none_C.scatter_add(0, y_N, ones_N),
        none_C.scatter_add(0, guesses_N, ones_N),
        none_C.scatter_add(0, y_N, (guesses_N == y_N).long()),
    )


def _mean_quotient(parts_C: Tensor, wholes_C: Tensor) -> Tensor:
    """The mean of the quotients whose wholes are not 0."""
    quotients_C = parts_C.double() / wholes_C.clamp(min=1)
    return quotients_C.sum() / (wholes_C > 0).sum()
