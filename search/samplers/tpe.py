"""TPE: Optuna's tree-structured Parzen estimator, made a pure function.

The past is told to an Optuna study in memory, and a sampler built anew from (study seed, trial
number) is asked once.  Ranges are searched as the unit interval, where an exact 0 of a λ has its
place below the smallest value; finite ordered ranges (batch sizes, steps) by index, so that only
their own values are proposed and neighbours help each other.

All parameters are sampled together (`multivariate`, Optuna's default for one objective); the
measurement that decided it is in docs/decisions/0019-tpe-samples-all-parameters-together.md.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from itertools import count

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ridgeline.search.fields import Direction
from ridgeline.search.history import History, TrialStatus
from ridgeline.search.ranges import FloatParameter, IntParameter, Value
from ridgeline.search.samplers.base import Given, Sampler, Suggestion, completed
from ridgeline.search.samplers.random import draws
from ridgeline.search.seeds import derive
from ridgeline.search.space import Config, Parameter, Space

_NUM_STARTUP_TRIALS = 10

_STATES = {
    TrialStatus.WAITING: TrialState.RUNNING,
    TrialStatus.RUNNING: TrialState.RUNNING,
    TrialStatus.COMPLETE: TrialState.COMPLETE,
    TrialStatus.PRUNED: TrialState.PRUNED,
}


class TpeSampler(Sampler):
    """Random until ten trials have a value; then where good ones are dense and others are not.

    Failed trials, and pruned ones without a value, are left out; trials that have not ended count
    as poor ones (the constant liar), so that parallel suggestions keep apart.
    """

    identity = f"tpe/2+optuna-{optuna.__version__}"

    def _suggestions(
        self,
        space: Space,
        history: History,
        first: int,
        seed: int,
        direction: Direction,
        given: Given,
    ) -> Iterator[Suggestion]:
        states, values = history.states[:first], history.values[:first]
        finished = np.isin(states, (TrialStatus.COMPLETE, TrialStatus.PRUNED)) & ~np.isnan(values)
        if np.count_nonzero(finished) < _NUM_STARTUP_TRIALS:
            yield from draws(space, first, seed, given)  # without end
        past = _Past(space, direction)
        unfinished = np.isin(states, (TrialStatus.WAITING, TrialStatus.RUNNING))
        for number in np.flatnonzero(finished | unfinished).tolist():
            past.add(number, history.columns[number].tolist(), states[number], values[number])
        for number in count(first):
            suggestion_seed = derive(seed, "tpe", number)
            chosen = past.suggest(number, suggestion_seed)
            suggestion = completed(chosen, number, suggestion_seed, given)
            yield suggestion
            config = suggestion.config
            columns = [parameter.to_column(config[name]) for name, parameter in space.items()]
            past.add(number, columns, TrialStatus.RUNNING, math.nan)


class _Past(optuna.storages.InMemoryStorage):
    """The trials that TPE sees, as an Optuna storage of one study.

    It answers the questions that a sampler asks and no other.  Adding trials to an
    `InMemoryStorage` in the ordinary way copies them deeply, 90 ms for a thousand (here 10), and
    logs each study it creates.
    """

    def __init__(self, space: Space, direction: Direction) -> None:
        super().__init__()
        self._space = space
        self._axes = {name: _axis(parameter) for name, parameter in space.items()}
        # In Optuna's own order, by which it draws.
        axes = sorted(self._axes.items())
        self._searched = {name: axis for name, axis in axes if not axis.single()}
        self._fixed = {
            name: axis.low if isinstance(axis, IntDistribution) else 0
            for name, axis in axes
            if axis.single()
        }
        self._direction = StudyDirection[direction.upper()]
        self._past: list[FrozenTrial] = []

    def add(self, number: int, columns: list[float], status: int, value: float) -> None:
        """Show trial `number`, given by the columns of its parameters."""
        pairs = zip(self._space.items(), columns, strict=True)
        params = {name: _to_axis(parameter, column) for (name, parameter), column in pairs}
        self._past.append(self._trial(number, _STATES[TrialStatus(status)], params, float(value)))

    def suggest(self, number: int, seed: int) -> Config:
        """What TPE proposes for trial `number`."""
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=_NUM_STARTUP_TRIALS,
            multivariate=True,
            constant_liar=True,
            seed=seed % 2**32,  # NumPy's RandomState takes no more
        )
        study = optuna.Study("", self, sampler)
        asked = self._trial(number, TrialState.RUNNING, {}, math.nan)
        params = self._fixed | sampler.sample_relative(study, asked, self._searched)
        return {
            name: _from_axis(parameter, params[name]) for name, parameter in self._space.items()
        }

    def get_study_id_from_name(self, study_name: str) -> int:
        return 0

    def set_trial_system_attr(self, trial_id: int, key: str, value: object) -> None:
        """What the sampler proposes for a trial is for other processes, of which there are none."""

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return [self._direction]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return [trial for trial in self._past if states is None or trial.state in states]

    def _trial(
        self, number: int, state: TrialState, params: dict[str, float], value: float
    ) -> FrozenTrial:
        return FrozenTrial(
            number,
            state,
            value if state is TrialState.COMPLETE else None,
            datetime_start=None,
            datetime_complete=None,
            params=params,
            distributions=self._axes,
            user_attrs={},
            system_attrs={},
            # TPE ranks pruned trials behind the complete ones, those that came further first, then
            # by value.  How far they came the history does not say: here all came equally far.
            intermediate_values={0: value} if state is TrialState.PRUNED else {},
            trial_id=number,
        )


def _axis(parameter: Parameter) -> BaseDistribution:
    """Where TPE searches a parameter."""
    if isinstance(parameter, FloatParameter):
        if parameter.num_levels is None:
            return FloatDistribution(0.0, 1.0)
        return IntDistribution(-1 if parameter.zero else 0, parameter.num_levels - 1)
    if isinstance(parameter, IntParameter):
        return IntDistribution(parameter.low, parameter.top, parameter.log, parameter.step or 1)
    if parameter.ordered:
        return IntDistribution(0, len(parameter.values) - 1)
    return CategoricalDistribution(range(len(parameter.values)))


def _to_axis(parameter: Parameter, column: float) -> float:
    if not isinstance(parameter, FloatParameter):
        return int(column)
    if parameter.num_levels is None:
        return parameter.encode(column)
    return -1 if parameter.zero and column == 0 else parameter.level_of(column)


def _from_axis(parameter: Parameter, param: float) -> Value:
    if not isinstance(parameter, FloatParameter):
        return parameter.from_column(param)
    if parameter.num_levels is None:
        return parameter.decode(param)
    return 0.0 if param < 0 else parameter.level(int(param))
