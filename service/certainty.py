"""How sure the value of a trial is, from the runs that it is the mean of."""

from __future__ import annotations

from collections.abc import Iterable

from ridgeline.search.comparing import Interval, mean_of, shown
from ridgeline.search.comparison import bounds_of, scores_by_seed
from ridgeline.search.spec import StudySpec
from ridgeline.service.lifecycle import RunState
from ridgeline.service.store.rows import RunRow


def interval_of(spec: StudySpec, runs: Iterable[RunRow]) -> Interval | None:
    """The interval of a trial's value, as people are shown it; None of fewer than two seeds."""
    complete = {run.replicate: run.value for run in runs if run.state is RunState.COMPLETE}
    return shown(mean_of("", scores_by_seed(spec, complete)).interval, bounds_of(spec))
