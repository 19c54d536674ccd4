"""What the API shows: the resources of `/v1`, as typed models shared by server and client."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from ridgeline.search.fields import ParameterName, Real, Whole
from ridgeline.search.measures import Measures
from ridgeline.search.objective import MAX_SECONDS, MAX_TRIALS
from ridgeline.search.space import MAX_PARAMETERS, Config, Space
from ridgeline.search.spec import StudyName, StudySpec
from ridgeline.service.lifecycle import FailReason, RunState, StudyState, TrialState
from ridgeline.service.protocol import DatasetInfo, DeviceInfo, Label, Note

Timestamp = Annotated[float, Field(description="seconds since 1970-01-01 UTC")]


class _Resource(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FieldError(_Resource):
    field: str = Field(
        description="path of the field; empty: the body as a whole",
        examples=["space.learning_rate.low"],
    )
    message: str


class Problem(_Resource):
    """What went wrong, and what to do about it (RFC 9457)."""

    type: str = Field(examples=["urn:ridgeline:invalid-input"])
    title: str
    status: int
    detail: str
    errors: list[FieldError] = Field([], description="the fields that are wrong")
    request_id: str | None = Field(
        None, description="`X-Request-Id` of the answer; the service's log has it too"
    )


class TrialCounts(_Resource):
    waiting: int = 0
    running: int = 0
    complete: int = 0
    pruned: int = 0
    fail: int = 0


class Interval(_Resource):
    """Where a mean lies, with 95 % confidence, by Student's t; within what the metric can be."""

    low: float
    high: float


class FreshSeeds(_Resource):
    """The winner trained again with seeds that no choice was made by."""

    trial: int = Field(description="number of the trial that has these runs")
    state: TrialState
    value: float | None = Field(description="the mean over the fresh seeds; null until they ended")
    interval: Interval | None = Field(description="of that mean")
    selection_effect: float | None = Field(
        description="by how much the value in the search is better than that mean: what the choice "
        "among many has added to it, luck aside"
    )


class Standing(_Resource):
    """What the best trial has come to."""

    value: float = Field(
        description="the mean over all its seeds in the search, those of racing among them"
    )
    num_seeds: int = Field(1, description="that the value is the mean of")
    interval: Interval | None = Field(
        None,
        description="of the value, which the trial was chosen by, so that it is too good; null of "
        "one seed",
    )
    fresh: FreshSeeds | None = Field(
        None,
        description="null where the spec asks for no fresh seeds, and until the search has ended",
    )


class BestTrial(Standing):
    number: int
    config: Config


class SourceStudy(_Resource):
    """What a study has taken over of another one, of `warm_start`, when it was created."""

    study: str = Field(description="its name at that time; it may have been deleted since")
    revision: int = Field(description="of that study, when its trials were taken over")
    parameters: tuple[str, ...] = Field(description="those in common, of which alone it tells")
    num_trials: int = Field(description="trials that the sampler learns from")
    fingerprint: str = Field(description="SHA-256 of what was taken over")


class PastSpace(_Resource):
    """A space that a study had before it grew."""

    until: int = Field(description="trials created before this revision were chosen from it")
    space: Space


class Study(_Resource):
    """A study and how far it has come."""

    name: str
    state: StudyState
    reason: str | None = Field(description="why it failed, or what a queued study waits for")
    stopping: bool = Field(description="no new trials; the running ones finish")
    archived: bool = Field(False, description="lists leave it out, unless asked for")
    spec: StudySpec
    past_spaces: tuple[PastSpace, ...] = Field(
        (), description="what its space was before `:extend` made it larger, the oldest first"
    )
    num_trials: int = Field(
        description="trials it will have in the end; those of racing and fresh seeds are counted "
        "once they are there"
    )
    trials: TrialCounts
    sources: tuple[SourceStudy, ...] = Field(
        (), description="what it has taken over of the studies of `warm_start`"
    )
    mean_epoch: float | None = Field(
        description="the last epoch of the runs in training, on average; those that have not "
        "reported one are left out"
    )
    best: BestTrial | None = Field(description="ties go to the smaller number")
    device_seconds: float
    data_fingerprint: str | None
    owner: str | None
    revision: int = Field(description="rises with every change of the study, a trial or a run")
    optuna_study_id: int | None = Field(
        description="of its copy in Optuna's tables, null before there is one; "
        "`/dashboard/studies/{optuna_study_id}` shows it"
    )
    projection_error: str | None = Field(
        description="set while the copy in Optuna's tables is behind: what is wrong and what to do"
    )
    deadline_at: Timestamp | None = Field(
        description="when its budget of time is up: no new trials from then on"
    )
    created_at: Timestamp
    started_at: Timestamp | None
    finished_at: Timestamp | None


class Run(_Resource):
    """One trial with one seed."""

    replicate: int
    seed: int
    state: RunState
    reason: FailReason | None
    error: str | None
    log_tail: str | None
    attempt: int = Field(description="times it was handed out")
    charges: int = Field(description="failures blamed on this run alone")
    worker: str | None
    device: str | None
    client_id: str | None = Field(description="of the program that an external trial went to")
    program: str | None
    data_fingerprint: str | None
    value: float | None
    kept_epoch: int | None
    metrics: dict[str, float] = Field(
        description="at the kept epoch; test_* are of the kept weights, never selected on"
    )
    measures: Measures | None = Field(
        None,
        description="what can be seen of the kept weights; null of runs that did not complete, of "
        "functions and programs of your own, and of older workers",
    )
    pruned_by_version: int | None = Field(
        description="version of the pruning rules that a worker ended it by"
    )
    device_seconds: float
    started_at: Timestamp | None
    finished_at: Timestamp | None


Origin = Literal["sampler", "enqueued", "racing", "confirmation"]
"""Chosen by the sampler, given by a person; or added to train another trial again."""


class Trial(_Resource):
    """One configuration under evaluation."""

    study: str
    number: int
    state: TrialState
    reason: FailReason | None
    config: Config
    value: float | None
    origin: Origin
    given: tuple[str, ...] | None = Field(
        None,
        description="of an enqueued trial: the parameters that were given; the sampler chose the "
        "others",
    )
    grid_cell: int | None
    retry_of: int | None = Field(description="number of the failed trial that it tries again")
    repeats: int | None = Field(
        None,
        description="number of the trial whose configuration it trains again by other seeds: those "
        "of racing, or fresh ones to confirm the winner",
    )
    sampler: str | None
    sampler_seed: int | None
    seen_revision: int | None
    revision: int
    runs: tuple[Run, ...]
    created_at: Timestamp
    started_at: Timestamp | None
    finished_at: Timestamp | None


class Winner(Trial):
    """The best trial, and what all its seeds have come to."""

    standing: Standing


class EpochMetrics(_Resource):
    """The report of one epoch of one run."""

    replicate: int
    epoch: int
    metrics: dict[str, float]


class TrialWithHistory(Trial):
    """A trial and the metrics of all its epochs."""

    epochs: tuple[EpochMetrics, ...]


class KnownTrial(_Resource):
    """A trial whose value a sampler knew."""

    number: int
    distance: float = Field(
        description="from the trial explained: each range as long as it is searched counts 1, "
        "another category too"
    )
    value: float
    config: Config


class Explanation(_Resource):
    """Why a trial has its configuration."""

    study: str
    number: int
    sampler: str | None
    config: Config
    value: float | None = Field(description="what the trial has come to")
    chosen_by: Literal["person", "sampler", "model"] = Field(
        description="by the sampler without a model: drawn, spread evenly, or a cell of a grid"
    )
    given: tuple[str, ...] | None = Field(None, description="the parameters that a person gave")
    is_derived_again: bool | None = Field(
        None, description="whether the sampler, asked again, chooses the same"
    )
    num_ended: int | None = Field(None, description="trials that had ended as it was chosen")
    num_in_flight: int | None = Field(None, description="trials that waited or ran")
    num_candidates: int | None = Field(None, description="configurations of which it was the best")
    expected_value: float | None = Field(None, description="what a Gaussian process expected")
    expected_low: float | None = Field(
        None, description="lower end of the interval in which it saw the value with 95 %"
    )
    expected_high: float | None = Field(None, description="its upper end")
    density_ratio: float | None = Field(
        None, description="by TPE: how much denser good trials were there than others"
    )
    nearest: tuple[KnownTrial, ...] = Field((), description="nearest trials with a value")


WorkerState = Literal["LIVE", "LOST", "GONE"]
"""Connected; silent for longer than its lease; shut down in good order."""


class Worker(_Resource):
    id: str
    name: str
    state: WorkerState
    devices: tuple[DeviceInfo, ...]
    tasks: tuple[str, ...]
    datasets: tuple[DatasetInfo, ...]
    num_runs: int = Field(description="runs it holds now")
    runs_by_device: dict[str, int] = Field(
        description="the same by device; those past the device's `num_slots` wait there"
    )
    idle_slots: dict[str, int] = Field(
        description="by device: slots that packs in training compute without a run"
    )
    restarts: dict[str, int] = Field(
        description="by device: how often its process was started anew"
    )
    registered_at: Timestamp
    seen_at: Timestamp


class ParameterInfo(_Resource):
    """A parameter of a task: what it means and what it may be."""

    name: str
    kind: Literal["float", "int", "choice", "flag"]
    description: str
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    listed: bool = Field(description='takes only {"type": "values"}')
    default: bool | int | float | str | None


class TaskInfo(_Resource):
    name: str
    description: str
    parameters: tuple[ParameterInfo, ...]
    metrics: dict[str, str] = Field(description="objective metrics and their direction")
    settings_schema: dict[str, Any] = Field(description="JSON schema of the task's settings")
    num_workers: int = Field(description="live workers that have it")


class Dataset(DatasetInfo):
    num_workers: int = Field(description="live workers that have it, with this fingerprint")


class LeftOut(_Resource):
    """A folder of the api's data root that is no data set."""

    name: str
    reason: str


class Event(_Resource):
    """The newest state of something that changed; `id` is the revision of that change."""

    id: int
    type: Literal["study", "trial", "run", "report"]
    data: dict[str, Any]


class EnqueueRequest(_Resource):
    """Trials to try next, before the sampler is asked; they count towards the budget.

    Those of a grid come on top of its cells.
    """

    configs: Annotated[
        tuple[Config, ...],
        Field(
            min_length=1,
            max_length=1_000,
            description="what a configuration leaves out the sampler chooses; a grid's leave out "
            "nothing",
        ),
    ]


def _given(name: str, json_type: str) -> JsonDict:
    """A JSON schema of objects that have the field."""
    return {"required": [name], "properties": {name: {"type": json_type}}}


_MORE_BUDGET = [_given("trials", "integer"), _given("seconds", "number")]


class ExtendRequest(_Resource):
    """More budget: further trials, further seconds, or both."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [*_MORE_BUDGET]})

    trials: Annotated[
        Whole | None,
        Field(
            ge=1,
            le=MAX_TRIALS,
            description="on top of the budget; of a study that has ended or is stopping, on top of "
            "the trials it has",
        ),
    ] = None
    seconds: Annotated[
        Real | None,
        Field(gt=0, le=MAX_SECONDS, description="on top of what is left of a budget of time"),
    ] = None


class ExtendStudyRequest(ExtendRequest):
    """More budget, a larger space, or both."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [*_MORE_BUDGET, _given("space", "object")]}
    )

    space: Annotated[
        dict[ParameterName, dict[str, Any]] | None,
        Field(
            min_length=1,
            max_length=MAX_PARAMETERS,
            description="parameters of the space, of each the fields that change: a lower `low`, a "
            "higher `high`, further `values`",
        ),
    ] = None


class RetryRequest(_Resource):
    """Which failures to try again."""

    reasons: Annotated[
        tuple[FailReason, ...],
        Field(min_length=1, description="left out: all but `diverged`, which would repeat itself"),
    ] = tuple(reason for reason in FailReason if reason is not FailReason.DIVERGED)


def _fields_of_a_spec(schema: dict[str, Any]) -> None:
    """Any value, since it is the spec with the changes that is checked."""
    changes: dict[str, Any] = {name: {} for name in StudySpec.model_fields}
    schema["properties"] = changes | schema["properties"]
    schema["additionalProperties"] = False


class CloneRequest(BaseModel):
    """The name of the new study, and what differs in its spec.

    Parts of the spec such as `budget` are changed field by field, a parameter of `space` as a
    whole; null takes a field out.
    """

    model_config = ConfigDict(frozen=True, extra="allow", json_schema_extra=_fields_of_a_spec)

    name: StudyName


Scope = Literal["read", "write", "worker", "admin"]


class TokenRequest(_Resource):
    name: Label = Field(description="whose it is, or what it is for")
    scopes: Annotated[
        tuple[Scope, ...],
        Field(min_length=1, max_length=4, description="write includes read, admin all"),
    ]
    note: Note | None = Field(None, description="tells it from others of the same name")


class TokenInfo(_Resource):
    id: str
    name: Label
    scopes: tuple[Scope, ...]
    note: Note | None
    created_at: Timestamp
    revoked_at: Timestamp | None


class CallerInfo(_Resource):
    """Who sends the request, and what they may do."""

    token_id: str | None = Field(description="null: no token is needed yet")
    scopes: tuple[Scope, ...] = Field(description="those implied by others too")


class TokenCreated(TokenInfo):
    token: str = Field(description="shown this once; only its digest is kept")
