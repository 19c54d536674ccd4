"""What an external study has to tell the service: gathered, and sent as calls."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from service.connection import ApiError
from service.external_protocol import EpochReport, TrialEnd, TrialReport
from service.resources import Problem

if TYPE_CHECKING:
    from service.external import ExternalTrial


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


@dataclass(frozen=True)
class Call:
    """A call as it was made; a repetition is told by its key."""

    told: list[Gathered]
    key: str = field(default_factory=lambda: str(uuid.uuid4()))


def api_error(errors: Sequence[Problem]) -> ApiError:
    """The errors of some trials as one."""
    detail = "; ".join(problem.detail for problem in errors)
    problems = [(one.field, one.message) for problem in errors for one in problem.errors]
    return ApiError(errors[0].status, errors[0].title, detail, problems)
