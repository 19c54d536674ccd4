"""What the database holds for the report of a study, read in one look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ridgeline.service import studies, views
from ridgeline.service.curves import RunCurve
from ridgeline.service.lifecycle import FailReason, TrialState
from ridgeline.service.reports.axes import thinned
from ridgeline.service.resources import Study
from ridgeline.service.store.rows import RunRow, TrialRow
from ridgeline.service.store.session import Transaction
from ridgeline.service.winners import winner_of

NUM_LISTED = 10
"""Trials in the list of the best ones."""

_NUM_OTHER_CURVES = 8
MOST_EPOCHS = 200
"""Points of a curve: a figure has about as many pixels."""


@dataclass(frozen=True)
class Failures:
    """The trials that failed for one reason; `number` and `error` are of the first."""

    reason: FailReason
    count: int
    number: int
    error: str


@dataclass(frozen=True)
class Findings:
    """A study with its trials.

    Attributes:
        trials: of the search; what trains a trial again is told of with that one.
        ranked: complete trials, the winner first, then by value; of equal ones the smaller number.
        runs: by number, of the trials that are listed.
        curves: by number, what each run of some trials has reported; the best one's first, then
            some others', evenly spaced by rank.
        written_at: in seconds since 1970-01-01 UTC.
    """

    study: Study
    trials: Sequence[TrialRow]
    ranked: Sequence[TrialRow]
    runs: Mapping[int, Sequence[RunRow]]
    curves: Mapping[int, Sequence[RunCurve]]
    failures: Sequence[Failures]
    written_at: float

    @property
    def best(self) -> TrialRow | None:
        return self.ranked[0] if self.ranked else None

    @cached_property
    def pruned(self) -> Sequence[TrialRow]:
        """Those that have a value."""
        return [
            trial
            for trial in self.trials
            if trial.state is TrialState.PRUNED and trial.value is not None
        ]


def gather(tx: Transaction, name: str) -> Findings:
    """Everything that the report of a study tells.

    Raises:
        NotFound: there is no such study.
    """
    row = studies.find(tx, name)
    trials = [trial for trial in tx.trials.page(row.id) if trial.repeats is None]
    winner = winner_of(tx.trials, row.id, row.spec)
    sign = -1 if row.spec.objective.direction == "maximize" else 1
    complete = [
        (winner is None or trial.number != winner.trial.number, sign * trial.value, trial)
        for trial in trials
        if trial.state is TrialState.COMPLETE and trial.value is not None
    ]
    # Stable: of equal ones the smaller number stays first.
    ranked = [trial for *_, trial in sorted(complete, key=lambda one: one[:2])]
    begun = (TrialState.PRUNED, TrialState.RUNNING)
    candidates = ranked or [trial for trial in trials if trial.state in begun]
    with_curves = [*candidates[:1], *thinned(candidates[1:], _NUM_OTHER_CURVES)]
    failed = _first_by_reason(trials)
    needed = {trial.id: trial for trial in (*ranked[:NUM_LISTED], *with_curves, *failed.values())}
    runs = tx.runs.of_trials(list(needed))
    curve_runs = [run.id for trial in with_curves for run in runs[trial.id]]
    curves = tx.runs.curves_of(curve_runs, most=MOST_EPOCHS)
    return Findings(
        views.study(tx, row),
        trials,
        ranked,
        {needed[trial_id].number: its for trial_id, its in runs.items()},
        {trial.number: [curves[run.id] for run in runs[trial.id]] for trial in with_curves},
        [
            Failures(
                reason,
                sum(trial.reason is reason for trial in trials),
                first.number,
                next((run.error for run in runs[first.id] if run.error), ""),
            )
            for reason, first in failed.items()
        ],
        tx.now,
    )


def _first_by_reason(trials: Sequence[TrialRow]) -> dict[FailReason, TrialRow]:
    first: dict[FailReason, TrialRow] = {}
    for trial in trials:
        if trial.reason is not None:
            first.setdefault(trial.reason, trial)
    return first
