"""What workers and the api say to each other: one batched, repeatable call.

`POST /v1/workers` registers; `POST /v1/workers/{id}:sync` states what the worker holds and what has
happened since, and is answered with the difference.  The worker repeats reports and ends until an
answer has arrived; the api takes each of them once.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, StringConstraints

from ridgeline.search.fields import (
    MAX_EPOCHS,
    MAX_INT,
    Direction,
    Flag,
    MetricName,
    Real,
    Text,
    Whole,
)
from ridgeline.search.measures import Measures
from ridgeline.search.predicting import Prediction
from ridgeline.search.space import Config
from ridgeline.search.tasks.kinds import COLUMN_USES, ColumnUse, Features, FilesKind, Targets
from ridgeline.search.tasks.settings import DatasetName

MAX_INT_32 = 2**31 - 1
"""The largest number that the database keeps of trials and attempts, whose columns are INTEGER."""

MAX_HELD_RUNS = 10_000
MAX_REPORTS = 50_000
MAX_WAIT_SECONDS = 30.0
MAX_NOTE_CHARACTERS = 256

FUNCTIONS = "functions"
"""Kind of a device whose runs have a process each, for tasks that need one."""

Reason = Annotated[str, StringConstraints(min_length=1, max_length=1_000, pattern=r"^[^\x00]+$")]
Label = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f]+$")]
Note = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_NOTE_CHARACTERS, pattern=r"^[^\x00-\x1f]+$"),
]
LongText = Annotated[str, StringConstraints(max_length=20_000, pattern=r"^[^\x00]*$")]
DeviceName = Annotated[
    str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f]+$")
]
Fingerprint = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Metrics = Annotated[dict[MetricName, Real], Field(max_length=100)]
Id = Annotated[Whole, Field(ge=1, le=MAX_INT)]
Attempt = Annotated[Whole, Field(ge=1, le=MAX_INT_32)]
Epoch = Annotated[Whole, Field(ge=1, le=MAX_EPOCHS)]
Version = Annotated[Whole, Field(ge=1, le=MAX_INT)]
Seconds = Annotated[Real, Field(ge=0, le=1e9)]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DeviceInfo(_Message):
    """One device of a worker."""

    name: DeviceName = Field(examples=["cpu:0", "cuda:0"])
    kind: Label = Field(examples=["cpu", "cuda", FUNCTIONS])
    description: Label = Field(examples=["NVIDIA H200"])
    num_slots: Annotated[
        Whole,
        Field(ge=1, le=MAX_HELD_RUNS, description="runs it trains at once; more of them wait"),
    ] = 1


class ColumnInfo(_Message):
    """What is known of a column of a table."""

    name: Text
    uses: Annotated[tuple[ColumnUse, ...], Field(max_length=len(COLUMN_USES))] = Field(
        description="what it can be: `label` or `target`, whose classes or numbers are learned, "
        "`group` or `time`, by which rows are divided, `feature`"
    )
    num_values: Annotated[Whole, Field(ge=1, le=MAX_INT)] | None = Field(
        description="different ones, of the rows that are no test part; null: many"
    )
    smallest_class: Annotated[Whole, Field(ge=1, le=MAX_INT)] | None = Field(
        description="rows of the rarest class, were it learned; null: not known"
    )
    rarest_class: Note | None = Field(description="that class; null: not known")


class DatasetInfo(_Message):
    """One data set of a worker."""

    name: DatasetName
    fingerprint: Fingerprint
    num_rows: Annotated[Whole, Field(ge=1, le=MAX_INT)]
    num_features: Annotated[Whole, Field(ge=1, le=MAX_INT)]
    num_classes: Annotated[Whole, Field(ge=2, le=MAX_INT)] | None = Field(
        description="null where targets are numbers"
    )
    has_test_part: Flag
    smallest_class: Annotated[Whole, Field(ge=1, le=MAX_INT)] | None = Field(
        None, description="rows of the rarest class, without those of a test part of its own"
    )
    features: Features | None = Field(None, description="what a row is; null of older workers")
    targets: Targets | None = Field(
        None, description="what is learned of a row; null of older workers"
    )
    needs: Reason | None = Field(
        None,
        description="of files that do not tell by themselves how they are read: why, for which a "
        "study has to say it, such as by `label`, `target` or `images` of its task; `features` and "
        "`targets` are null then, and `num_features` counts what is in a row, columns or a picture",
    )
    rarest_class: Note | None = Field(None, description="the class of `smallest_class`")
    files: FilesKind | None = Field(
        None,
        description="what a study may say of how they are read: of a table which columns are "
        "for what, of pictures what they are made to be; null of older workers",
    )
    columns: Annotated[tuple[ColumnInfo, ...], Field(max_length=1_000)] | None = Field(
        None, description="of a table, in its order; null: it is none, has many, or is not known"
    )


class WorkerRegistration(_Message):
    name: Label
    devices: Annotated[tuple[DeviceInfo, ...], Field(min_length=1, max_length=64)]
    tasks: Annotated[tuple[Label, ...], Field(max_length=1_000)]
    datasets: Annotated[tuple[DatasetInfo, ...], Field(max_length=10_000)]


class WorkerRegistered(_Message):
    id: str
    lease_seconds: float = Field(description="a worker silent for longer loses its runs")
    sync_interval_seconds: float = Field(description="how often to call when nothing happens")


class RunKey(_Message):
    """One handing-out of one run; a later attempt makes an earlier one void."""

    run: Id
    attempt: Attempt


class RunReport(RunKey):
    """Metrics of one finished epoch."""

    epoch: Epoch
    metrics: Metrics


class RunEnded(RunKey):
    """The end of a run, or of the worker's hold on it.

    `released` gives the run back unharmed (the worker is leaving, or never started it); `crashed`,
    `out_of_memory` and `timeout` (it hung, or trained for too long) are charged to the run, which
    is tried again until `max_charges`; `diverged` is final, since it would repeat, and so is
    `failed`, where the code of the run raised an exception or gave no value; `pruned` is final,
    by the rules that `rule_version` names; `stopped` answers the api's wish to stop it.
    `never_trains` says that no run of the study can be trained, by any worker: the study fails, for
    the reason in `error`.
    """

    outcome: Literal[
        "complete",
        "pruned",
        "diverged",
        "failed",
        "never_trains",
        "crashed",
        "out_of_memory",
        "timeout",
        "released",
        "stopped",
    ]
    value: Real | None = None
    kept_epoch: Epoch | None = None
    metrics: Metrics = {}
    measures: Measures | None = None
    error: LongText | None = None
    log_tail: LongText | None = None
    device_seconds: Seconds = 0.0
    program: Label | None = Field(None, description="that trained it; None where it never began")
    rule_version: Version | None = Field(
        None, description="of a pruned run: the version of the rules that ended it"
    )

    @property
    def is_tried_again(self) -> bool:
        """Whether the run may go on elsewhere."""
        return self.outcome in ("released", "crashed", "out_of_memory", "timeout")


class RunHeld(RunKey):
    """A run the worker has, queued or training."""

    device: DeviceName
    program: Label | None = Field(None, description="set once it trains")


class SyncRequest(_Message):
    sync_seq: Annotated[
        Whole, Field(ge=1, le=MAX_INT, description="rises with every new statement")
    ]
    held: Annotated[tuple[RunHeld, ...], Field(max_length=MAX_HELD_RUNS), FailFast()] = ()
    reports: Annotated[tuple[RunReport, ...], Field(max_length=MAX_REPORTS), FailFast()] = ()
    ended: Annotated[tuple[RunEnded, ...], Field(max_length=MAX_HELD_RUNS), FailFast()] = ()
    free_slots: Annotated[
        dict[DeviceName, Annotated[Whole, Field(ge=0, le=MAX_HELD_RUNS)]],
        Field(
            max_length=64,
            description="by device: how many more runs it would take, to train or to have at hand",
        ),
    ] = {}
    idle_slots: Annotated[
        dict[DeviceName, Annotated[Whole, Field(ge=0, le=MAX_INT)]],
        Field(
            max_length=64,
            description="by device: slots that packs in training compute without a run",
        ),
    ] = {}
    restarts: Annotated[
        dict[DeviceName, Annotated[int, Field(ge=0, le=MAX_INT)]],
        Field(
            max_length=64,
            description="by device: how often its process was started anew since the registration",
        ),
    ] = {}
    rules: Annotated[
        dict[Label, Version],
        Field(
            max_length=MAX_HELD_RUNS,
            description="by study: the version of the pruning rules that it applies",
        ),
    ] = {}
    datasets: Annotated[tuple[DatasetInfo, ...], Field(max_length=10_000)] | None = Field(
        None, description="all that the worker has; left out: those it has told of before"
    )
    leaving: Flag = Field(False, description="the last statement of a worker that shuts down")

    @property
    def waits_for_work(self) -> bool:
        """Whether the worker has room for runs, and nothing else to do or to tell."""
        is_busy = self.held or self.reports or self.ended or self.leaving
        return not is_busy and any(self.free_slots.values())


class CheckpointInfo(_Message):
    """The state of a run after an epoch, as the api keeps it."""

    epoch: Epoch
    attempt: Attempt = Field(description="the attempt that made it")
    program: Label = Field(description="in which alone the run goes on from there")
    num_bytes: Annotated[Whole, Field(ge=1, le=MAX_INT)]
    sha256: Fingerprint


class RunOrder(RunKey):
    """All that a worker needs to train one run."""

    study: str
    trial: int
    replicate: int
    device: str
    seed: int
    task: dict[str, Any] = Field(description="the task's settings, as in the spec")
    config: Config = Field(description="a value for every parameter of the task")
    objective: dict[str, Any]
    early_stopping: dict[str, Any] | None
    penalty: dict[str, Any]
    data_fingerprint: str | None
    reproducible: bool = Field(
        False, description="whether the same study must give the same values every time"
    )
    run_seconds: float | None = Field(
        None, description="how long it may train; null: as long as it takes"
    )
    bracket: Annotated[Whole, Field(ge=0)] = Field(
        0, description="of the trial, whose pruning rules are those of that bracket"
    )
    num_following: Annotated[Whole, Field(ge=0)] = Field(
        0, description="runs of trials that the study has still to make"
    )
    checkpoint: CheckpointInfo | None = Field(
        None, description="where the run goes on; null: it starts from nothing"
    )


class StudyRules(_Message):
    """The pruning rules of a study, or of one bracket of it: what its runs must reach to go on.

    A run that would go on after an epoch and is strictly worse than that epoch's threshold ends as
    `pruned`.  It stands at what it would end with there: its best so far under early stopping, else
    the value of the epoch.  Where the epoch has a prediction, it is compared by that: by how it
    stands, plus `weight` times what it has gained since the epoch `since`.
    """

    study: str
    bracket: Annotated[Whole, Field(ge=0)] = Field(
        0, description="whose runs go by them, as their orders say"
    )
    version: Version = Field(description="the revision of the newest thing they rest on")
    metric: str
    direction: Direction
    thresholds: dict[Annotated[int, Field(ge=1, le=MAX_EPOCHS)], float] = Field(
        description="by epoch; others prune nobody"
    )
    predictions: dict[Annotated[int, Field(ge=1, le=MAX_EPOCHS)], Prediction] = Field(
        {}, description="by epoch, of those at which runs are compared by their predictions"
    )


class Refusal(RunKey):
    reason: str


class SyncResponse(_Message):
    start: tuple[RunOrder, ...] = Field(description="runs handed out that the worker lacks")
    stop: tuple[RunKey, ...] = Field(description="runs the worker must drop")
    refused: tuple[Refusal, ...] = Field(description="late reports and ends, not taken")
    rules: tuple[StudyRules, ...] = Field(
        (),
        description="pruning rules, newer than those the worker states, of the studies whose runs "
        "it holds or is to start; each replaces the study's rules as a whole",
    )
