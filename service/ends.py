"""Whether ended trials and runs are what their runs and reports imply; pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ridgeline.search.spec import StudySpec
from ridgeline.service.findings import BY_HAND, Check
from ridgeline.service.ledger import num_planned, run_seed
from ridgeline.service.lifecycle import (
    OPEN_STUDY,
    OPEN_TRIAL,
    RunEnd,
    RunState,
    StudyState,
    study_end,
    trial_end,
)
from ridgeline.service.store.rows import RunRow, StudyRow, TrialRow

_NUM_RUNS = Check("run-numbers", "trials {} do not have the runs that the spec plans", BY_HAND)
_ENDS = Check("trial-ends", "trials {} stand otherwise than their runs imply", BY_HAND)
_VALUES = Check(
    "run-values", "runs {} have another value than they told of their kept epoch", BY_HAND
)
_METRICS = Check(
    "run-values", "runs {} have other metrics than they told of their kept epoch", BY_HAND
)
_KEPT = Check(
    "kept-epochs", "runs {} have kept another epoch than the last one that is planned", BY_HAND
)
_SEEDS = Check("run-seeds", "runs {} have another seed than the spec implies", BY_HAND)
_CONFIGS = Check("configs", "trials {} have a configuration that is not of the space", BY_HAND)
_BUDGET = Check("budget", "it has more trials than its budget: {}", BY_HAND)
_STUDY_END = Check("study-state", "its trials say that it should be {}", BY_HAND)

Wrong = Iterator[tuple[Check, str]]


def trial_problems(
    spec: StudySpec,
    trial: TrialRow,
    its_runs: Sequence[RunRow],
    kept: Mapping[int, Mapping[str, float]],
) -> Wrong:
    """What is wrong with one trial: the check and the name of what is.

    Args:
        its_runs: in the order of their replicates.
        kept: by run, what was reported of the epoch whose weights are kept.
    """
    if spec.space.problems(trial.config):
        yield _CONFIGS, str(trial.number)
        return
    if [run.replicate for run in its_runs] != list(_planned(spec, trial, its_runs)):
        yield _NUM_RUNS, str(trial.number)
        return
    end = trial_end([RunEnd(run.state, run.reason, run.value) for run in its_runs])
    is_open = trial.state in OPEN_TRIAL
    if is_open != (end is None) or (
        end is not None and end != (trial.state, trial.reason, trial.value)
    ):
        yield _ENDS, str(trial.number)
    for run in its_runs:
        for check in _run_problems(spec, trial, run, kept.get(run.id)):
            yield check, f"{trial.number}/{run.replicate}"


def _planned(spec: StudySpec, trial: TrialRow, its_runs: Sequence[RunRow]) -> range:
    """The numbers of the runs that a trial has by the spec."""
    first = spec.seeds_of_search * spec.num_divisions
    if trial.repeats is None:
        return range(spec.num_runs)
    if trial.origin == "confirmation":
        return range(first, first + (spec.fresh_seeds or 0) * spec.num_divisions)
    # How many seeds it had before, its other trials tell.
    begin = max(its_runs[0].replicate if its_runs else 0, spec.num_runs)
    return range(begin, min(begin + max(1, len(its_runs)), first))


def _run_problems(
    spec: StudySpec, trial: TrialRow, run: RunRow, told: Mapping[str, float] | None
) -> Iterator[Check]:
    """What is wrong with a run, of whose kept epoch was `told` something or nothing."""
    if run.seed != run_seed(spec, run.replicate):
        yield _SEEDS
    if told is not None:
        if run.value != told.get(spec.objective.metric, run.value):
            yield _VALUES
        metrics = run.metrics or {}
        if any(metrics.get(name, value) != value for name, value in told.items()):
            yield _METRICS
    # Without early stopping a run trains to its end and keeps what it has then.
    planned = spec.run_config(trial.config).get("epochs", run.kept_epoch)
    goes_to_the_end = run.state is RunState.COMPLETE and spec.early_stopping is None
    if goes_to_the_end and run.kept_epoch not in (None, planned):
        yield _KEPT


def study_problems(study: StudyRow, *, num_failed: int) -> Wrong:
    """The same of a study, by its counters.

    Args:
        num_failed: trials that failed of themselves.
    """
    planned = num_planned(study, study.spec)
    if study.next_number > planned:
        yield _BUDGET, f"{study.next_number} of {planned}"
    end = study_end(
        num_trials_planned=planned,
        num_created=study.next_number,
        num_open=study.num_open,
        num_failed=num_failed,
        no_more=study.stopping,
    )
    if study.state in OPEN_STUDY:
        if end is not None:
            yield _STUDY_END, end
    elif study.state is StudyState.COMPLETED and end is not StudyState.COMPLETED:
        yield _STUDY_END, end or "open"
