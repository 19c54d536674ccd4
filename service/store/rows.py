"""Rows of the tables as typed values; those of trials and runs come by the thousand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ridgeline.search.comparison import ComparisonSpec
from ridgeline.search.space import Config, Space
from ridgeline.search.spec import StudySpec
from ridgeline.service.lifecycle import FailReason, RunState, StudyState, ToldTo, TrialState
from ridgeline.service.protocol import CheckpointInfo


class TrialRow(NamedTuple):
    state: TrialState
    reason: FailReason | None
    id: int
    study_id: int
    number: int
    config: Config
    origin: str
    given: list[str] | None
    grid_cell: int | None
    retry_of: int | None
    repeats: int | None
    sampler: str | None
    sampler_seed: int | None
    seen_revision: int | None
    value: float | None
    revision: int
    created_revision: int
    finished_revision: int | None
    created_at: float
    started_at: float | None
    finished_at: float | None


class RunRow(NamedTuple):
    state: RunState
    reason: FailReason | None
    id: int
    study_id: int
    trial_id: int
    replicate: int
    seed: int
    error: str | None
    log_tail: str | None
    attempt: int
    charges: int
    worker_id: str | None
    device: str | None
    client_id: str | None
    lease_seconds: float | None
    lease_expires_at: float | None
    program: str | None
    data_fingerprint: str | None
    value: float | None
    kept_epoch: int | None
    metrics: Mapping[str, float] | None
    measures: Mapping[str, Any] | None
    pruned_by_version: int | None
    device_seconds: float
    revision: int
    created_at: float
    started_at: float | None
    finished_at: float | None


class RunOfTrial(NamedTuple):
    """A run, and what its trial says about it."""

    run: RunRow
    number: int
    config: Config
    trial_state: TrialState


@dataclass(frozen=True, kw_only=True)
class CheckpointRow:
    """The row of a checkpoint in the artifact store, under the key `location`."""

    id: int
    run_id: int
    attempt: int
    epoch: int
    program: str
    num_bytes: int
    sha256: str
    location: str

    def info(self) -> CheckpointInfo:
        """What a worker is told of it."""
        return CheckpointInfo(
            epoch=self.epoch,
            attempt=self.attempt,
            program=self.program,
            num_bytes=self.num_bytes,
            sha256=self.sha256,
        )


@dataclass(frozen=True, kw_only=True)
class WorkerRow:
    id: str
    name: str
    state: str
    sync_seq: int
    devices: list[dict[str, Any]]
    tasks: list[str]
    datasets: list[dict[str, Any]]
    idle_slots: dict[str, int]
    restarts: dict[str, int]
    registered_at: float
    seen_at: float
    lease_expires_at: float


@dataclass(frozen=True)
class PastSpace:
    """The space that trials were chosen from which were created before the revision `until`."""

    until: int
    space: Space


@dataclass(kw_only=True)
class StudyRow:
    """A study; changed only while its row is locked, and written back with the transaction.

    Attributes:
        past_spaces: those it has had before, the oldest first.
    """

    id: int
    name: str
    owner: str | None
    spec: StudySpec
    past_spaces: tuple[PastSpace, ...]
    state: StudyState
    reason: str | None
    stopping: bool
    archived: bool
    priority: int
    revision: int
    state_revision: int
    next_number: int
    num_enqueued: int
    num_repeats: int
    num_open: int
    device_seconds: float
    virtual_seconds: float
    deadline_at: float | None
    ungranted_seconds: float | None
    data_fingerprint: str | None
    optuna_study_id: int | None
    projected_revision: int
    projection_error: str | None
    created_at: float
    started_at: float | None
    finished_at: float | None

    def spec_at(self, revision: int) -> StudySpec:
        """The spec with the space that trials created at `revision` were chosen from."""
        for past in self.past_spaces:
            if revision < past.until:
                space = past.space.model_dump(mode="json")
                # As stored specs are read: also where its task has gone since.
                return StudySpec.model_validate(
                    {**self.spec.model_dump(mode="json"), "space": space}
                )
        return self.spec


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    id: int
    name: str
    owner: str | None
    spec: ComparisonSpec
    told_to: ToldTo
    created_at: float


class SourceRow(NamedTuple):
    """A study of which another one has taken trials over, as it was at `revision`."""

    study: str
    revision: int
    parameters: tuple[str, ...]
    num_trials: int
    fingerprint: str


class ArmStudyRow(NamedTuple):
    """A study of a comparison: the search of an arm, or a winner of it with fresh seeds."""

    study_id: int
    comparison_id: int
    arm: str
    winner: int | None
    num_seen: int | None
