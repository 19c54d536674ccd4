"""A study on a table, as a script or the service would run it.

# C cells, S seeds
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import optuna

from benchmarks.search.tables import AXES, NUM_SEEDS, NUMBER_OF, SPACE, Table
from ridgeline.search.history import History, TrialStatus
from ridgeline.search.samplers.base import Sampler
from ridgeline.search.samplers.random import RandomSampler
from ridgeline.search.samplers.tpe import TpeSampler
from ridgeline.search.space import Config

METRICS = ("error", "loss")
_LOSSES = 1e-4, 10.0
"""Nats; beyond them a run is as good or bad as any: how far it strays must not set the scale."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Study:
    """One search of one table for one metric.

    Attributes:
        batch: trials asked for at once.
        noisy: whether a trial is of one seed; else it is the mean over the table's.
    """

    sampler: str
    batch: int
    num_trials: int
    table: str
    metric: str
    seed: int
    noisy: bool


def regrets(study: Study) -> list[float]:
    """After each trial (best found - best there is) / (median - best there is).

    By the mean over the seeds; the best found is the trial that looked best.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    values_CS = _values(study.table, study.metric)
    truth_C = values_CS.mean(axis=1)  # NaN where a seed diverged
    seen_C = values_CS[:, study.seed % NUM_SEEDS] if study.noisy else truth_C
    best, median = np.nanmin(truth_C), np.nanmedian(truth_C)
    looked_best, regret = math.inf, 1.0  # before any value: as good as a cell in the middle
    found: list[float] = []
    for cell in SAMPLERS[study.sampler](seen_C, study):
        if seen_C[cell] < looked_best and not math.isnan(truth_C[cell]):
            looked_best = float(seen_C[cell])
            regret = float((truth_C[cell] - best) / (median - best))
        found.append(regret)
    return found


@cache
def _values(name: str, metric: str) -> Values:
    table = Table.read(name)
    if metric == "error":
        return table.error_CS
    values: Values = np.log(np.clip(table.loss_CS.astype(np.float64), *_LOSSES))
    return values


def _ours(make: Callable[[], Sampler]) -> Callable[[Values, Study], Iterator[int]]:
    def search(seen_C: Values, study: Study) -> Iterator[int]:
        history, sampler = History(SPACE), make()
        while (num_done := len(history)) < study.num_trials:
            numbers = range(num_done, min(num_done + study.batch, study.num_trials))
            for new in sampler.suggest(SPACE, history, numbers, study.seed, "minimize"):
                cell = _number(new.config)
                value = None if math.isnan(seen_C[cell]) else float(seen_C[cell])
                state = TrialStatus.FAIL if value is None else TrialStatus.COMPLETE
                history.put(new.number, new.config, enqueued=False, state=state, value=value)
                yield cell

    return search


def _optuna(seen_C: Values, study: Study) -> Iterator[int]:
    theirs = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=study.seed))
    num_done = 0
    while num_done < study.num_trials:
        asked: list[tuple[optuna.Trial, int]] = []
        for _ in range(min(study.batch, study.num_trials - num_done)):
            trial = theirs.ask()
            config: Config = {
                name: values[trial.suggest_int(name, 0, len(values) - 1)]
                for name, values in AXES.items()
            }
            asked.append((trial, _number(config)))
        for trial, cell in asked:
            if math.isnan(seen_C[cell]):
                theirs.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                theirs.tell(trial, float(seen_C[cell]))
            yield cell
        num_done += len(asked)


SAMPLERS: dict[str, Callable[[Values, Study], Iterator[int]]] = {
    "random": _ours(RandomSampler),
    "tpe": _ours(TpeSampler),
    "optuna": _optuna,
}


def _number(config: Config) -> int:
    """Of the cell in `CELLS`."""
    return NUMBER_OF[tuple(config[name] for name in AXES)]
