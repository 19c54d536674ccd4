"""What programs that train by themselves and the api say to each other.

`trials:suggest` hands trials out.  `trials:report` takes epochs and ends of any number of them;
`trials/{number}:report` and `trials/{number}:complete` are the same for one trial.  Reports may be
repeated as they are: each epoch and each end is taken once.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field

from ridgeline.search.fields import Real, Whole
from ridgeline.search.space import Config
from ridgeline.service.lifecycle import FailReason, StudyState, TrialState
from ridgeline.service.protocol import (
    MAX_INT_32,
    MAX_REPORTS,
    MAX_WAIT_SECONDS,
    Epoch,
    Label,
    LongText,
    Metrics,
)
from ridgeline.service.resources import Problem, Trial

MAX_TRIALS_A_CALL = 1_000

TrialNumber = Annotated[Whole, Field(ge=0, le=MAX_INT_32)]
Attempt = Annotated[Whole, Field(ge=1, le=MAX_INT_32, description="as `trials:suggest` gave it")]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SuggestRequest(_Message):
    count: Annotated[Whole, Field(ge=1, le=MAX_TRIALS_A_CALL)] = 1
    lease_seconds: Annotated[
        Real,
        Field(gt=0, le=2_592_000, description="a trial not reported on for longer is given away"),
    ] = 3_600.0
    wait_seconds: Annotated[
        Real,
        Field(
            ge=0,
            le=MAX_WAIT_SECONDS,
            description="while there is no trial yet and there may still be one, how long the "
            "answer waits for it",
        ),
    ] = 0.0
    client_id: Label | None = Field(
        None,
        description="of the program that asks: it gets those of its trials first that have not "
        "ended, with the reports they have, and only then others",
    )


class SuggestedTrial(_Message):
    number: int
    attempt: int = Field(description="to be sent with each report and with the end")
    config: Config
    seed: int = Field(description="for the random draws of your program")
    lease_seconds: float


class SuggestResponse(_Message):
    trials: tuple[SuggestedTrial, ...]
    state: StudyState
    reason: str | None = Field(description="why there are fewer trials than asked for")


class EpochReport(_Message):
    """The metrics of one finished epoch."""

    epoch: Epoch
    metrics: Metrics


Epochs = Annotated[
    tuple[EpochReport, ...],
    Field(max_length=MAX_REPORTS, description="finished epochs; those known already stay"),
    FailFast(),
]


class ReportRequest(_Message):
    """One epoch as `epoch` and `metrics`, or any number of them as `epochs`."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {
                    "required": ["epoch", "metrics"],
                    "properties": {
                        "epoch": {"type": "integer"},
                        "metrics": {"type": "object"},
                        "epochs": {"maxItems": 0},
                    },
                },
                {
                    "required": ["epochs"],
                    "properties": {
                        "epoch": {"type": "null"},
                        "metrics": {"type": "null"},
                        "epochs": {"minItems": 1},
                    },
                },
            ]
        }
    )

    attempt: Attempt
    epoch: Epoch | None = None
    metrics: Metrics | None = None
    epochs: Epochs = ()


class ReportedTrial(Trial):
    """A trial after a report, and what the study's pruner says to it."""

    should_prune: bool = Field(description="end it as PRUNED: the study's pruner gives it up")


class TrialEnd(_Message):
    """The result of an external trial, or how it failed."""

    state: Literal["COMPLETE", "PRUNED", "FAIL"] = "COMPLETE"
    value: Real | None = Field(None, description="the objective; left out: its last reported value")
    reason: FailReason | None = Field(None, description="of a failure")
    error: LongText | None = None
    metrics: Metrics = {}


class CompleteRequest(TrialEnd):
    attempt: Attempt
    epochs: Epochs = ()


class TrialReport(_Message):
    """What a program has to say about one trial; without epochs and end it renews the lease."""

    number: TrialNumber
    attempt: Attempt
    epochs: Epochs = ()
    end: TrialEnd | None = Field(None, description="set where the trial has ended")


class TrialReports(_Message):
    trials: Annotated[
        tuple[TrialReport, ...],
        Field(
            min_length=1,
            max_length=MAX_TRIALS_A_CALL,
            description=f"each trial once; {MAX_REPORTS} epochs at most in all",
        ),
        FailFast(),
    ]


class ReportOutcome(_Message):
    """What became of the report on one trial."""

    number: int
    state: TrialState | None = Field(description="of the trial; null where there is an error")
    value: float | None
    should_prune: bool = Field(description="end it as PRUNED: the study's pruner gives it up")
    error: Problem | None = Field(description="set where the report was not taken")


class ReportOutcomes(_Message):
    trials: tuple[ReportOutcome, ...] = Field(description="in the order of the request")
