"""How sure the value of a trial is, from the runs that it is the mean of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ridgeline.search.comparing import Interval, mean_of, shown
from ridgeline.search.comparison import bounds_of, scores_by_seed
from ridgeline.search.spec import StudySpec
from ridgeline.service.lifecycle import RunState
from ridgeline.service.store.rows import RunRow
from ridgeline.service.store.runs import Runs
from ridgeline.service.winners import Winner


@dataclass(frozen=True)
class Sure:
    """A winner's values, and how sure they are.

    Attributes:
        interval: of its value in the search, which the choice was made by; None of one seed.
        fresh_interval: of the mean over fresh seeds; None before its trial is complete.
    """

    interval: Interval | None
    fresh_interval: Interval | None


def sure_of(spec: StudySpec, winner: Winner, runs: Runs) -> Sure:
    """Reads the runs of a winner and of its repeats, where it has more than one seed."""
    fresh = winner.confirmation
    in_search = [winner.trial.id, *(one.id for one in winner.races)] if winner.num_seeds > 1 else []
    trial_ids = [*in_search, *([] if fresh is None else [fresh.id])]
    its_runs = runs.of_trials(trial_ids) if trial_ids else {}
    return Sure(
        interval_of(spec, [run for trial_id in in_search for run in its_runs[trial_id]]),
        None if fresh is None else interval_of(spec, its_runs[fresh.id]),
    )


def interval_of(spec: StudySpec, runs: Sequence[RunRow]) -> Interval | None:
    """The interval of the mean over runs of one configuration, as people are shown it.

    None of fewer than two seeds.

    Args:
        runs: with consecutive numbers, from that of a seed's first division on.
    """
    complete = {run.replicate: run.value for run in runs if run.state is RunState.COMPLETE}
    numbers = _numbers(run.replicate for run in runs)
    return shown(mean_of("", scores_by_seed(spec, complete, numbers)).interval, bounds_of(spec))


def _numbers(replicates: Iterable[int]) -> range:
    found = list(replicates)
    return range(min(found), max(found) + 1) if found else range(0)


def selection_effect(spec: StudySpec, winner: Winner) -> float | None:
    """By how much the winner is better in the search than with fresh seeds, in the metric's unit.

    None before its fresh seeds have a mean, or where no number is as large.
    """
    if winner.confirmation is None or winner.confirmation.value is None:
        return None
    more = winner.value - winner.confirmation.value
    if not math.isfinite(more):
        return None  # of finite numbers, whose difference need not be
    return more if spec.objective.direction == "maximize" else -more
