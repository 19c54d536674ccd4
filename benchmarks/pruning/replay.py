"""A study replayed on learning curves: a device with some slots, a sampler, a pruner.

A run never depends on its neighbours, so what a pruner sees and stops is what it would have been in
the service, but for the order: an epoch takes time in proportion to its steps, and rules reach the
device at once.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field

from benchmarks.pruning.train import AXES, CELLS, FOLDER, NUM_EPOCHS, NUM_SEEDS, NUMBER_OF, SPACE
from benchmarks.search.tables import Table
from ridgeline.search.fields import SamplerName
from ridgeline.search.history import History, TrialStatus
from ridgeline.search.predicting import predicted
from ridgeline.search.pruners import Curve, Pruner, bracket_of, is_worse, requirements_of
from ridgeline.search.samplers import sampler_for


@dataclass(frozen=True)
class Study:
    """One search of one table for the validation accuracy.

    Attributes:
        num_slots: runs that train at once.
        freezes: whether what is pruned may go on where it has stopped: a free slot goes to a run
            that the rules would not stop any more, if there is one, of the highest rung.
        one_epoch: in place of a pruner: train each trial for one epoch, then so many in full.
    """

    table: str
    sampler: SamplerName
    seed: int
    num_trials: int
    num_slots: int
    pruner: Pruner | None = None
    freezes: bool = False
    one_epoch: int | None = None


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        accuracy: of the best complete trial after all of its epochs; 0 where there is none.
        other_accuracy: of the same configuration with the other seed, by which nothing was chosen.
        share: of the epochs that all trials take in full, those trained.
    """

    accuracy: float
    other_accuracy: float
    share: float


@dataclass
class _Trial:
    cell: int
    standings: dict[int, float] = field(default_factory=dict)
    state: TrialStatus = TrialStatus.RUNNING


def replay(study: Study) -> Found:
    """Search, as the service would."""
    return _Replay(study).found()


class _Replay:
    def __init__(self, study: Study) -> None:
        self._study = study
        self._table = Table.read(study.table, FOLDER)
        self._seed = study.seed % NUM_SEEDS
        self._trials: list[_Trial] = []
        self._history = History(SPACE)
        self._clock: list[tuple[float, int]] = []  # when which trial ends its next epoch

    def found(self) -> Found:
        self._fill(0.0)
        while self._clock:
            now, number = heapq.heappop(self._clock)
            trial = self._trials[number]
            self._end_epoch(number, trial)
            if trial.state is TrialStatus.RUNNING:
                self._next_epoch(now, number)
            else:
                self._fill(now)
        self._finish_one_epoch()
        epochs = sum(len(trial.standings) for trial in self._trials)
        share = epochs / (self._study.num_trials * NUM_EPOCHS)
        complete = [trial for trial in self._trials if trial.state is TrialStatus.COMPLETE]
        if not complete:
            return Found(0.0, 0.0, share)
        best = max(complete, key=lambda trial: trial.standings[NUM_EPOCHS])
        other = self._value(best.cell, (self._seed + 1) % NUM_SEEDS, NUM_EPOCHS)
        return Found(best.standings[NUM_EPOCHS], other, share)

    def _fill(self, now: float) -> None:
        """Use the slots that are free."""
        while len(self._clock) < self._study.num_slots:
            number = self._thawed()
            if number is not None:
                self._trials[number].state = TrialStatus.RUNNING
                self._tell(number)
                self._next_epoch(now, number)
            elif len(self._trials) < self._study.num_trials:
                self._begin(now)
            else:
                return

    def _thawed(self) -> int | None:
        """A run that has stopped and would not be stopped any more."""
        if not self._study.freezes:
            return None
        stopped = [n for n, one in enumerate(self._trials) if one.state is TrialStatus.PRUNED]
        stopped.sort(key=lambda number: -len(self._trials[number].standings))
        return next((number for number in stopped if not self._is_pruned(number)), None)

    def _begin(self, now: float) -> None:
        number = len(self._trials)
        sampler = sampler_for(self._study.sampler)
        (new,) = sampler.suggest(
            SPACE, self._history, range(number, number + 1), self._study.seed, "maximize"
        )
        self._trials.append(_Trial(NUMBER_OF[tuple(new.config[name] for name in AXES)]))
        self._tell(number)
        self._next_epoch(now, number)

    def _next_epoch(self, now: float, number: int) -> None:
        batch_size = CELLS[self._trials[number].cell]["batch_size"]
        assert isinstance(batch_size, int)
        heapq.heappush(self._clock, (now + 1 / batch_size, number))

    def _end_epoch(self, number: int, trial: _Trial) -> None:
        epoch, study = len(trial.standings) + 1, self._study
        value = trial.standings[epoch] = self._value(trial.cell, self._seed, epoch)
        if value == 0 and math.isnan(self._table.loss_CS[trial.cell, self._seed]):
            trial.state = TrialStatus.FAIL
        elif epoch == NUM_EPOCHS:
            trial.state = TrialStatus.COMPLETE
        elif study.one_epoch is not None or self._is_pruned(number):
            trial.state = TrialStatus.PRUNED
        self._tell(number)

    def _is_pruned(self, number: int) -> bool:
        """Whether the run of a trial is to stop at the epoch that it has reached."""
        pruner = self._study.pruner
        if pruner is None:
            return False
        standings = self._trials[number].standings
        epoch = len(standings)
        # Nothing else of the curves counts at this epoch.
        needed = {epoch, (epoch + 1) // 2}
        curves = [
            Curve(
                trial.state is TrialStatus.COMPLETE,
                1,
                {at: trial.standings[at] for at in needed if at in trial.standings},
                other,
            )
            for other, trial in enumerate(self._trials)
            if other != number and epoch in trial.standings
        ]
        found = requirements_of(pruner, pruner.basis(curves), "maximize", NUM_EPOCHS)
        its = found[bracket_of(pruner, number)]
        threshold = its.thresholds.get(epoch)
        if threshold is None:
            return False
        value = predicted(standings[epoch], standings, its.predictions.get(epoch))
        return is_worse(value, threshold, "maximize")

    def _finish_one_epoch(self) -> None:
        """Train the best after one epoch in full."""
        if self._study.one_epoch is None:
            return
        begun = [trial for trial in self._trials if trial.state is TrialStatus.PRUNED]
        begun.sort(key=lambda trial: -trial.standings[1])
        for trial in begun[: self._study.one_epoch]:
            for epoch in range(2, NUM_EPOCHS + 1):
                trial.standings[epoch] = self._value(trial.cell, self._seed, epoch)
            trial.state = TrialStatus.COMPLETE

    def _value(self, cell: int, seed: int, epoch: int) -> float:
        """The validation accuracy; 0 of a run that has diverged."""
        return 1 - int(self._table.wrong_CSE[cell, seed, epoch - 1]) / self._table.num_rows

    def _tell(self, number: int) -> None:
        trial = self._trials[number]
        has_value = trial.state in (TrialStatus.COMPLETE, TrialStatus.PRUNED)
        self._history.put(
            number,
            CELLS[trial.cell],
            enqueued=False,
            state=trial.state,
            value=trial.standings[len(trial.standings)] if has_value else None,
        )
