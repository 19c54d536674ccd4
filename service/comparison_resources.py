"""What the API shows of comparisons, as typed models shared by server and client."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ridgeline.search.comparison import Arms, ComparisonSpec
from ridgeline.search.fields import Direction, Verdict
from ridgeline.search.measures import WeightHistogram
from ridgeline.search.tasks.settings import TrainOn
from ridgeline.service.lifecycle import StudyState
from ridgeline.service.resources import BestTrial, Interval, Study, Timestamp


class _Resource(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ComparisonSummary(_Resource):
    """A comparison and how far it has come, as lists show it."""

    name: str
    state: StudyState = Field(description="follows from the states of its studies")
    reason: str | None = Field(description="why it failed, or what it waits for")
    spec: ComparisonSpec = Field(description="with the budget and the arms that it has by now")
    arm_states: dict[str, StudyState] = Field(description="by arm; see `Arm.state`")
    device_seconds: float = Field(description="of all its studies")
    owner: str | None
    created_at: Timestamp
    started_at: Timestamp | None
    finished_at: Timestamp | None


class Arm(_Resource):
    """One way to train: the study that tunes it, and the one that trains its winner again."""

    name: str
    state: StudyState = Field(
        description="COMPLETED: its winner was trained again; FAILED: it has no winner; CANCELLED: "
        "one of its studies was"
    )
    reason: str | None = Field(description="why it has no result, or what it waits for")
    search: Study
    winner: BestTrial | None = Field(
        description="the best trial of the search when that ended, which `fresh` trains again"
    )
    fresh: Study | None = Field(
        description="one trial, the winner, with a run for each fresh seed; null: there is no "
        "winner yet, or none at all"
    )


class ArmResult(_Resource):
    """What fresh seeds made of an arm's winner."""

    arm: str
    in_search: float = Field(
        description="the winner's value in the search: the best of many, so too good"
    )
    again: float | None = Field(
        description="mean of the same metric over fresh seeds; null: no run has come to its end, "
        "or the validation rows were trained on"
    )
    mean: float | None = Field(description="of the test metric, over fresh seeds")
    interval: Interval | None = Field(description="of that mean; null with less than two scores")
    scores: tuple[float | None, ...] = Field(
        description="of the test metric, by replicate, which has the same seed in every arm: of a "
        "data set that is divided in several ways the mean over them; null: a run failed"
    )
    measures: dict[str, float] = Field(
        description="what can be seen of the kept weights, by name: means over those runs; empty "
        "where nothing was looked at"
    )
    weight_histogram: WeightHistogram | None = Field(
        None, description="the kept weights of those runs together; null where one was not counted"
    )


class PairedDifference(_Resource):
    """By how much an arm scores more than another, seed by seed."""

    arm: str
    other: str
    value: float | None = Field(description="null without a common seed")
    interval: Interval | None = Field(description="null with less than two common seeds")
    p_value: float | None = Field(
        description="of the paired t test, adjusted by Holm's method for all pairs"
    )
    num_pairs: int = Field(description="seeds that both have a score of")
    verdict: Verdict = Field(description="of `arm` against `other`; open: the data support neither")
    sentence: str = Field(description="what the data support, in words")


class ComparisonResult(_Resource):
    """The arms whose winners have been trained again, and each pair of them."""

    train_on: TrainOn = Field("train", description="the rows that winners were trained on")
    metric: str = Field(description="that the searches went by")
    test_metric: str = Field(
        description="that the arms are compared by; the same one where there is no other"
    )
    direction: Direction
    arms: tuple[ArmResult, ...]
    differences: tuple[PairedDifference, ...]


class Comparison(ComparisonSummary):
    """A comparison with its arms, their studies, and what has come of them."""

    arms: tuple[Arm, ...] = Field(description="in the order of the spec")
    result: ComparisonResult | None = Field(
        description="of the arms that are COMPLETED; null: there is none yet"
    )


class ArmsRequest(_Resource):
    """Arms to add to a comparison."""

    arms: Arms
