"""Pruning rules, told from the reports in the database and brought up to date by revision.

The version of a study's rules is the revision of the newest thing they rest on.  So it follows from
the database alone: every api process gives the same rules the same version, before and after a
restart, and the history at that revision gives the same rules again.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ridgeline.search.pruners import Curve, Pruner, Requirements, requirements_of, standings
from ridgeline.search.spec import StudySpec
from ridgeline.service.lifecycle import RunState
from ridgeline.service.store.recent import Recent

if TYPE_CHECKING:
    from ridgeline.service.store.rows import RunRow, StudyRow
    from ridgeline.service.store.runs import Runs


@dataclass(frozen=True)
class Rules:
    """By bracket, what runs must reach to go on; version 0 stands for no rules yet."""

    version: int
    brackets: tuple[Requirements, ...] = ()


class RulesBook:
    """The rules of the studies asked for last; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: Recent[_Known] = Recent()

    def at(self, study: StudyRow, spec: StudySpec, pruner: Pruner, runs: Runs) -> Rules:
        """The rules of `study` at the revision it shows.

        `runs` must see the same snapshot that `study` was read from, of what is committed: what is
        seen is remembered.
        """
        with self._lock:
            known = self._known.get(study.id)
            if known is None or known.revision > study.revision:
                known = _Known()
            if known.revision < study.revision:
                known = known.read_on(study, spec, runs)
                basis = pruner.basis(known.curves.values())
                version = max((curve.revision for curve in basis), default=0)
                if version != known.rules.version:
                    found = requirements_of(
                        pruner, basis, spec.objective.direction, spec.max_epochs
                    )
                    known.rules = Rules(version, found)
            self._known.put(study.id, known)
            return known.rules


@dataclass
class _Known:
    """What is known of one study's runs."""

    revision: int = -1
    attempts: dict[int, int] = field(default_factory=dict)
    values: dict[int, dict[int, float]] = field(default_factory=dict)
    """By run and epoch, the metric that is compared."""
    curves: dict[int, Curve] = field(default_factory=dict)
    trials: dict[int, int] = field(default_factory=dict)
    """By run, the number of its trial."""
    rules: Rules = Rules(0)

    def read_on(self, study: StudyRow, spec: StudySpec, runs: Runs) -> _Known:
        """The same with what has changed since; may change itself on the way."""
        found = runs.changed_since(study.id, self.revision, limit=None)
        changed = {run.id: run for _, run in found}
        if any(run.id in self.values and self._started_again(run) for run in changed.values()):
            # Its reports are gone, or some of them: nothing tells which but reading all anew.
            return _Known(rules=self.rules).read_on(study, spec, runs)
        self.trials |= {run.id: number for number, run in found}
        newest = {run.id: run.revision for run in changed.values()}
        for report in runs.reports_of(study.id, above_revision=self.revision):
            newest[report.run_id] = max(newest.get(report.run_id, 0), report.revision)
            value = report.metrics.get(spec.objective.metric)
            if value is not None:
                self.values.setdefault(report.run_id, {})[report.epoch] = value
        for run_id, revision in newest.items():
            run = changed.get(run_id)
            if run is not None:
                self.attempts[run_id] = run.attempt
                is_complete = run.state is RunState.COMPLETE
            else:
                is_complete = self.curves[run_id].is_complete
            self.curves[run_id] = Curve(
                is_complete,
                revision,
                standings(
                    self.values.get(run_id, {}),
                    spec.objective.direction,
                    keeps_best=spec.early_stopping is not None,
                ),
                self.trials[run_id],
            )
        self.revision = study.revision
        return self

    def _started_again(self, run: RunRow) -> bool:
        return run.state is RunState.WAITING or run.attempt != self.attempts[run.id]
