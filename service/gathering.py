"""What an external study has to tell the service: gathered, and sent as calls."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ridgeline.service.connection import ApiError
from ridgeline.service.external_protocol import EpochReport, TrialEnd, TrialReport
from ridgeline.service.resources import FieldError, Problem

if TYPE_CHECKING:
    from ridgeline.service.external import ExternalTrial


@dataclass
class Gathered:
    """What the service has not been told of a trial."""

    trial: ExternalTrial
    epochs: list[EpochReport] = field(default_factory=list)
    end: TrialEnd | None = None

    def report(self) -> TrialReport:
        return TrialReport(
            number=self.trial.number,
            attempt=self.trial.attempt,
            epochs=tuple(self.epochs),
            end=self.end,
        )

    def split(self, num_epochs: int) -> tuple[Gathered, Gathered]:
        """Its first epochs, and what comes after them."""
        first, others = self.epochs[:num_epochs], self.epochs[num_epochs:]
        return Gathered(self.trial, first), Gathered(self.trial, others, self.end)


@dataclass(frozen=True)
class Call:
    """A call as it was made; a repetition is told by its key."""

    told: list[Gathered]
    key: str = field(default_factory=lambda: str(uuid.uuid4()))

    def halves(self) -> list[Call]:
        """Two calls that together tell the same; none where there is only one thing to tell."""
        if len(self.told) > 1:
            middle = len(self.told) // 2
            return [Call(self.told[:middle]), Call(self.told[middle:])]
        (one,) = self.told
        num_things = len(one.epochs) + (one.end is not None)
        if num_things < 2:
            return []
        return [Call([part]) for part in one.split(num_things // 2)]


def refusal(error: ApiError) -> Problem:
    """A refused call as the problem of each trial that it was about."""
    problems = [FieldError(field=field, message=reason) for field, reason in error.problems]
    return Problem(
        type="about:blank",
        title=error.title,
        status=error.status,
        detail=error.detail,
        errors=problems,
    )


def api_error(errors: Sequence[Problem]) -> ApiError:
    """The errors of some trials as one."""
    detail = "; ".join(problem.detail for problem in errors)
    problems = [(one.field, one.message) for problem in errors for one in problem.errors]
    return ApiError(errors[0].status, errors[0].title, detail, problems)
