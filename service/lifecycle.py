"""The states of studies, trials and runs, and the only transitions there are.

    study:  QUEUED → RUNNING → COMPLETED | FAILED      PAUSED ⇄ QUEUED | RUNNING
            any open state → CANCELLED                 stopping: no new trials, then COMPLETED
            COMPLETED | FAILED → QUEUED (extended, or its failures are tried again)
    trial:  WAITING → RUNNING → COMPLETE | PRUNED | FAIL(reason)
    run:    WAITING → RUNNING → COMPLETE | PRUNED | FAIL(reason)
                         └─ worker lost or gone → WAITING
    arms and comparisons have the states of studies, which follow from those of theirs

Pure functions; `ridgeline.service.store` performs each transition as one guarded UPDATE.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from ridgeline.search.means import mean


class StudyState(StrEnum):
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class TrialState(StrEnum):
    WAITING = "WAITING"
    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAIL = "FAIL"


class RunState(StrEnum):
    WAITING = "WAITING"
    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAIL = "FAIL"


class FailReason(StrEnum):
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


OPEN_STUDY = frozenset({StudyState.QUEUED, StudyState.RUNNING, StudyState.PAUSED})
ENDED_STUDY = frozenset(StudyState) - OPEN_STUDY
SERVABLE_STUDY = frozenset({StudyState.QUEUED, StudyState.RUNNING})
"""Whose runs may start."""

OPEN_TRIAL = frozenset({TrialState.WAITING, TrialState.RUNNING})
OPEN_RUN = frozenset({RunState.WAITING, RunState.RUNNING})

STUDY_VERBS: dict[str, dict[StudyState, StudyState]] = {
    "pause": {StudyState.QUEUED: StudyState.PAUSED, StudyState.RUNNING: StudyState.PAUSED},
    "resume": {StudyState.PAUSED: StudyState.RUNNING},
    "stop": {state: state for state in OPEN_STUDY},
    "cancel": dict.fromkeys(OPEN_STUDY, StudyState.CANCELLED),
    "archive": {state: state for state in ENDED_STUDY},
    "unarchive": {state: state for state in ENDED_STUDY},
}
"""What each verb of the API makes of a study in each state; a missing state refuses the verb.

A verb that finds its work already done is not refused: see `verb_is_done`.
"""


def verb_is_done(verb: str, state: StudyState, *, stopping: bool, archived: bool) -> bool:
    """Whether `verb` has nothing left to do, so that repeating it changes nothing.

    A study that was told to pause, to resume or to stop may have come to its end since, COMPLETED
    or FAILED; whoever has seen no answer and asks again is not to be refused then.
    """
    has_come_to_its_end = state in (StudyState.COMPLETED, StudyState.FAILED)
    match verb:
        case "pause":
            return state is StudyState.PAUSED or has_come_to_its_end
        case "resume":
            return state in SERVABLE_STUDY or has_come_to_its_end
        case "stop":
            return stopping or has_come_to_its_end
        case "archive" | "unarchive":
            return archived is (verb == "archive")
        case _:
            return state is StudyState.CANCELLED


@dataclass(frozen=True)
class RunEnd:
    """How one run of a trial ended."""

    state: RunState
    reason: FailReason | None
    value: float | None


def trial_end(
    runs: Sequence[RunEnd],
) -> tuple[TrialState, FailReason | None, float | None] | None:
    """State, reason and value of a trial whose runs, in order of replicate, stand like this.

    None while a run is still open.  One failed run fails the trial, for the reason of the first:
    a mean over the seeds that happened to survive would flatter it.  A trial with a pruned run is
    pruned; its value, where every run has one, is still their mean.
    """
    if any(run.state in OPEN_RUN for run in runs):
        return None
    failed = [run for run in runs if run.state is RunState.FAIL]
    if failed:
        return TrialState.FAIL, failed[0].reason, None
    values = [run.value for run in runs if run.value is not None]
    value = mean(values) if len(values) == len(runs) else None
    if any(run.state is RunState.PRUNED for run in runs):
        return TrialState.PRUNED, None, value
    return TrialState.COMPLETE, None, value


def study_end(
    *, num_trials_planned: int, num_created: int, num_open: int, num_failed: int, no_more: bool
) -> StudyState | None:
    """What an open study becomes once its trials stand like this; None while it goes on.

    `no_more` says that no further trials will be created although the plan has room: the study was
    stopped, or its time is up.
    """
    if num_open > 0 or (num_created < num_trials_planned and not no_more):
        return None
    if num_created > 0 and num_failed == num_created:
        return StudyState.FAILED
    return StudyState.COMPLETED


ToldTo = Literal["run", "pause", "cancel"]
"""What people have told a comparison last."""


def arm_state(
    told_to: ToldTo, search: StudyState, *, is_settled: bool, fresh: StudyState | None
) -> StudyState:
    """The state of an arm of a comparison.

    Args:
        told_to: of the comparison.
        search: of the study that tunes the arm.
        is_settled: whether that has ended and its winner was looked for since.
        fresh: of the study that trains the winner again; None where there is none.
    """
    if search is not StudyState.COMPLETED:
        return search
    if not is_settled:
        match told_to:
            case "run":
                return StudyState.RUNNING
            case "pause":
                return StudyState.PAUSED
            case "cancel":
                return StudyState.CANCELLED
    if fresh is None:
        return StudyState.FAILED
    return StudyState.RUNNING if fresh is StudyState.QUEUED else fresh


def comparison_state(told_to: ToldTo, arms: Collection[StudyState]) -> StudyState:
    """The state of a comparison, from those of its arms."""
    if told_to == "cancel":
        return StudyState.CANCELLED
    open_states = OPEN_STUDY.intersection(arms)
    if open_states:
        if told_to == "pause" or open_states == {StudyState.PAUSED}:
            return StudyState.PAUSED
        return StudyState.QUEUED if set(arms) == {StudyState.QUEUED} else StudyState.RUNNING
    return StudyState.COMPLETED if StudyState.COMPLETED in arms else StudyState.FAILED
