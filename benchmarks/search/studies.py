"""A study on a table, as a script or the service would run it.

# C cells, S seeds
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import numpy.typing as npt
import optuna

from benchmarks.search.tables import AXES, NUM_SEEDS, NUMBER_OF, SPACE, Table
from ridgeline.search.fields import SamplerName
from ridgeline.search.history import History, TrialStatus
from ridgeline.search.ranges import FloatParameter, Value
from ridgeline.search.samplers import sampler_for
from ridgeline.search.space import Config, Space

METRICS = ("error", "loss")
_LOSSES = 1e-4, 10.0
"""Nats; beyond them a run is as good or bad as any: how far it strays must not set the scale."""

_CONTINUOUS = ("learning_rate", "l2", "dropout")
RANGES = Space.model_validate(
    {
        name: {
            "type": "float",
            "low": min(value for value in values if value > 0 or name == "dropout"),
            "high": max(values),
            "log": name != "dropout",
        }
        if name in _CONTINUOUS
        else {"type": "values", "values": values}
        for name, values in AXES.items()
    }
)
"""The same axes with ranges for the real numbers among them; of l2 without the 0."""

Values = npt.NDArray[np.float64]
Objective = Callable[[Config], float]
"""The value of a configuration, to be minimised; NaN where training diverges."""


@dataclass(frozen=True)
class Study:
    """One search of one table for one metric.

    Attributes:
        batch: trials asked for at once.
        noisy: whether a trial is of one seed; else it is the mean over the table's.
        continuous: whether the space is `RANGES`, with values between the cells; else `SPACE`.
        in_flight: whether `batch` trials are under way at any time, as in the service, and the next
            one is suggested whenever one ends; a trial lasts as long as its batch size costs.
    """

    sampler: str
    batch: int
    num_trials: int
    table: str
    metric: str
    seed: int
    noisy: bool
    continuous: bool
    in_flight: bool

    @property
    def space(self) -> Space:
        """What is searched."""
        return RANGES if self.continuous else SPACE


def regrets(study: Study) -> list[float]:
    """After each trial (best found - best there is) / (median - best there is).

    By the mean over the seeds; the best found is the trial that looked best.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    values_CS = values_of(study.table, study.metric)
    truth_C = values_CS.mean(axis=1)  # NaN where a seed diverged
    seen_C = values_CS[:, study.seed % NUM_SEEDS] if study.noisy else truth_C
    value_at = _between if study.continuous else _at
    best, median = np.nanmin(truth_C), np.nanmedian(truth_C)
    looked_best, regret = math.inf, 1.0  # before any value: as good as a cell in the middle
    found: list[float] = []
    seen: Objective = partial(value_at, seen_C)
    for config in SAMPLERS[study.sampler](seen, study):
        value, true_value = seen(config), value_at(truth_C, config)
        if value < looked_best and not math.isnan(true_value):
            looked_best, regret = value, (true_value - best) / (median - best)
        found.append(float(regret))
    return found


@cache
def values_of(name: str, metric: str) -> Values:
    """What is minimised, by cell and seed; NaN where training diverged."""
    table = Table.read(name)
    if metric == "error":
        return table.error_CS
    values: Values = np.log(np.clip(table.loss_CS.astype(np.float64), *_LOSSES))
    return values


def _at(value_C: Values, config: Config) -> float:
    return float(value_C[NUMBER_OF[tuple(config[name] for name in AXES)]])


def _between(value_C: Values, config: Config) -> float:
    """Linear between the cells around, along the axes of the samplers; NaN where one diverged."""
    corners: list[list[tuple[Value, float]]] = []
    for name, values in AXES.items():
        parameter, value = RANGES[name], config[name]
        if not isinstance(parameter, FloatParameter):
            corners.append([(value, 1.0)])
            continue
        inside = [cell for cell in values if parameter.problem(cell) is None]
        places = [parameter.encode(cell) for cell in inside]
        place = parameter.encode(value)
        upper = min(max(int(np.searchsorted(places, place)), 1), len(inside) - 1)
        share = (place - places[upper - 1]) / (places[upper] - places[upper - 1])
        corners.append([(inside[upper - 1], 1 - share), (inside[upper], share)])
    total = 0.0
    for corner in itertools.product(*corners):
        weight = math.prod(share for _, share in corner)
        if weight > 1e-9:
            total += weight * float(value_C[NUMBER_OF[tuple(value for value, _ in corner)]])
    return total


def _ours(name: SamplerName, seen: Objective, study: Study) -> Iterator[Config]:
    """Configurations in the order in which their trials end."""
    history, sampler = History(study.space), sampler_for(name)
    training: list[tuple[float, int]] = []  # by the time of the end
    now = 0.0
    while len(history) < study.num_trials or training:
        room = min(study.batch - len(training), study.num_trials - len(history))
        numbers = range(len(history), len(history) + room)
        for new in sampler.suggest(study.space, history, numbers, study.seed, "minimize"):
            state = TrialStatus.RUNNING
            history.put(new.number, new.config, enqueued=False, state=state, value=None)
            seconds = _seconds(new.config) if study.in_flight else 1.0
            heapq.heappush(training, (now + seconds, new.number))
        now, _ = training[0]
        while training and training[0][0] <= now:
            _, number = heapq.heappop(training)
            config = history.config(number)
            put_end(history, number, config, seen(config))
            yield config


def put_end(history: History, number: int, config: Config, value: float) -> None:
    """Write what came of a trial that a sampler chose: NaN where training diverged."""
    failed = math.isnan(value)
    history.put(
        number,
        config,
        enqueued=False,
        state=TrialStatus.FAIL if failed else TrialStatus.COMPLETE,
        value=None if failed else value,
    )


def _seconds(config: Config) -> float:
    """What an epoch costs, in any unit: each step as much as 32 rows."""
    return 1 + 32 / float(config["batch_size"])


def _optuna(seen: Objective, study: Study) -> Iterator[Config]:
    theirs = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=study.seed))
    num_done = 0
    while num_done < study.num_trials:
        asked: list[tuple[optuna.Trial, Config]] = []
        for _ in range(min(study.batch, study.num_trials - num_done)):
            trial = theirs.ask()
            asked.append((trial, _asked(trial, study.space)))
        for trial, config in asked:
            value = seen(config)
            if math.isnan(value):
                theirs.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                theirs.tell(trial, value)
            yield config
        num_done += len(asked)


def _asked(trial: optuna.Trial, space: Space) -> Config:
    config: Config = {}
    for name, parameter in space.items():
        if isinstance(parameter, FloatParameter):
            config[name] = trial.suggest_float(
                name, parameter.low, parameter.high, log=parameter.log
            )
        else:
            values = AXES[name]
            config[name] = values[trial.suggest_int(name, 0, len(values) - 1)]
    return config


SAMPLERS: dict[str, Callable[[Objective, Study], Iterator[Config]]] = {
    "random": partial(_ours, "random"),
    "optuna": _optuna,
    "tpe": partial(_ours, "tpe"),
    "gp": partial(_ours, "gp"),
}
