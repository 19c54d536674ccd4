"""Measure what a study gains by the trials of another one, and what it loses where they mislead.

    python -m benchmarks.search.warm_start --out benchmarks/results/search_warm_start.jsonl

Each study is searched with and without a source: `--source-trials` trials by the same sampler, on a
table that is in some relation to the study's:

* `width`: the study is of networks of 64 hidden units, the source of 16;
* `seed`: the study's values are those of two seeds of a run, the source's those of the third;
* `pictures`: the study is of the digits and the source of MNIST, or the other way round;
* `parameter`: the source has a dropout of 0, which the study searches;
* `permuted`: the source has the values of the study's table, each of another cell;
* `negated`: the source has the values of the study's table with the other sign.

Prints a row of JSON for each relation and number of trials, over all objectives:

* `cold`, `warm`: mean regret as in `benchmarks.search`, without and with the source;
* `ratio`: warm over cold; `area_ratio`: the same of the mean over all numbers of trials so far,
  where what is worse than the median counts as the median;
* `same_after`: the trials with the source until the mean regret is what it is without.

Intervals are of 90 %, by resampling studies within objectives, the two of a pair together.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.rows import Row, count, header, tell, write
from benchmarks.search.data import READERS
from benchmarks.search.resampling import interval_of
from benchmarks.search.studies import METRICS, Values, put_end, values_of
from benchmarks.search.tables import AXES, CELLS, NUMBER_OF
from ridgeline.search.fields import SamplerName
from ridgeline.search.history import History
from ridgeline.search.samplers import sampler_for
from ridgeline.search.space import Config, Space

RELATIONS = ("width", "seed", "pictures", "parameter", "permuted", "negated")
_OTHER = {"digits": "mnist", "mnist": "digits"}
_NUM_RESAMPLED = 1_000
_SOURCE_SEED = 1_000
"""Seeds of sources, so that none has the draws of its study."""


@dataclass(frozen=True)
class Problem:
    """What is searched: the cells that have `fixed`, of all of which this is the value."""

    value_C: Values
    fixed: Config

    @property
    def space(self) -> Space:
        """The axes that are not fixed."""
        return Space.model_validate(
            {
                name: {"type": "values", "values": values}
                for name, values in AXES.items()
                if name not in self.fixed
            }
        )

    def value(self, config: Config) -> float:
        """NaN where training diverged."""
        whole = {**config, **self.fixed}
        return float(self.value_C[NUMBER_OF[tuple(whole[name] for name in AXES)]])

    def regret(self, value: float) -> float:
        """(value - best there is) / (median - best there is)."""
        wanted = self.fixed.items()
        inside = [all(cell[name] == value for name, value in wanted) for cell in CELLS]
        best, median = np.nanmin(self.value_C[inside]), np.nanmedian(self.value_C[inside])
        return float((value - best) / (median - best))


@dataclass(frozen=True)
class Study:
    """A search of one table for one metric, with a source in a relation to it, or with none."""

    relation: str
    is_warm: bool
    sampler: SamplerName
    num_trials: int
    num_source_trials: int
    table: str
    metric: str
    seed: int


def regrets(study: Study) -> list[float]:
    """The regret of the best trial so far, after each trial."""
    problem, sources = _problem(study.relation, study.table, study.metric, of_source=False), []
    if study.is_warm:
        source = _problem(study.relation, study.table, study.metric, of_source=True)
        seed = _SOURCE_SEED + study.seed
        past = _searched(source, study.sampler, study.num_source_trials, seed)
        sources.append(past)
    values = _searched(problem, study.sampler, study.num_trials, study.seed, sources).values
    # As good as a cell in the middle, before any trial has a value.
    best_n = np.minimum.accumulate(np.where(np.isnan(values), np.inf, values))
    return [1.0 if math.isinf(best) else problem.regret(best) for best in best_n.tolist()]


@cache
def _problem(relation: str, table: str, metric: str, *, of_source: bool) -> Problem:
    values_CS = values_of(table, metric)
    mean_C = values_CS.mean(axis=1)
    if relation == "width":
        return Problem(mean_C, {"hidden": 16 if of_source else 64})
    if relation == "seed":
        return Problem(values_CS[:, 0] if of_source else values_CS[:, 1:].mean(axis=1), {})
    if not of_source:
        return Problem(mean_C, {})
    if relation == "pictures":
        return Problem(values_of(_OTHER[table], metric).mean(axis=1), {})
    if relation == "parameter":
        return Problem(mean_C, {"dropout": 0.0})
    if relation == "permuted":
        return Problem(np.random.default_rng(1).permutation(mean_C), {})
    return Problem(-np.where(np.isnan(mean_C), np.nanmax(mean_C), mean_C), {})


def _searched(
    problem: Problem,
    sampler: SamplerName,
    num_trials: int,
    seed: int,
    sources: Sequence[History] = (),
) -> History:
    history = History(problem.space)
    for number in range(num_trials):
        (new,) = sampler_for(sampler).suggest(
            history.space, history, [number], seed, "minimize", sources=sources
        )
        put_end(history, number, new.config, problem.value(new.config))
    return history


def main() -> None:
    arguments = _arguments()
    write(header("search_warm_start", torch.device("cpu")), arguments.out)
    num_trials = max(arguments.trials)
    studies = [
        Study(
            relation,
            is_warm,
            arguments.sampler,
            num_trials,
            arguments.source_trials,
            table,
            metric,
            seed,
        )
        for relation, table, metric, seed, is_warm in product(
            arguments.relations, arguments.tables, METRICS, range(arguments.seeds), (False, True)
        )
        if relation != "pictures" or table in _OTHER
    ]
    # What is searched without a source is the same in several relations.
    to_run = list(dict.fromkeys(map(_run_as, studies)))
    found: dict[Study, list[float]] = {}
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for study, values in zip(to_run, pool.imap(regrets, to_run), strict=True):
            found[study] = values
            if len(found) % 100 == 0:
                tell(f"{len(found)} of {len(to_run)} studies")
    for relation in arguments.relations:
        of_relation = [found[_run_as(study)] for study in studies if study.relation == relation]
        # [objectives, seeds, cold and warm, trials]
        curves = np.array(of_relation).reshape(-1, arguments.seeds, 2, num_trials)
        row: Row = {"relation": relation, "sampler": arguments.sampler}
        row["studies"] = curves.shape[0] * curves.shape[1]
        for trials in arguments.trials:
            write(row | {"trials": trials} | _figures(curves, trials), arguments.out)


def _run_as(study: Study) -> Study:
    is_own = study.is_warm or study.relation in ("width", "seed")
    return study if is_own else Study(**{**vars(study), "relation": "permuted"})


def _figures(curves: npt.NDArray[np.float64], trials: int) -> Row:
    generator = np.random.default_rng(1)
    num_objectives, num_seeds = curves.shape[:2]
    picks = generator.integers(num_seeds, size=(_NUM_RESAMPLED, num_objectives, num_seeds))
    means = [_measured(curves.mean(axis=(0, 1)), trials)]
    for pick in picks:
        drawn = np.take_along_axis(curves, pick[:, :, None, None], axis=1)
        means.append(_measured(drawn.mean(axis=(0, 1)), trials))
    row: Row = {}
    for name in means[0]:
        row[name] = round(means[0][name], 4)
        row[f"{name}_interval"] = interval_of([one[name] for one in means[1:]])
    return row


def _measured(curves: npt.NDArray[np.float64], trials: int) -> dict[str, float]:
    cold_n, warm_n = curves[:, :trials]
    with np.errstate(divide="ignore", invalid="ignore"):  # few studies may all have found the best
        ratio = float(warm_n[-1] / cold_n[-1])
    reached = np.flatnonzero(curves[1] <= cold_n[-1])
    return {
        "cold": float(cold_n[-1]),
        "warm": float(warm_n[-1]),
        "ratio": ratio,
        "area_ratio": float(np.minimum(warm_n, 1).mean() / np.minimum(cold_n, 1).mean()),
        "same_after": float(reached[0] + 1 if len(reached) else curves.shape[1] + 1),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search.warm_start",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--relations", nargs="*", choices=RELATIONS, default=[*RELATIONS])
    add("--sampler", choices=("auto", "gp", "tpe"), default="auto")
    add("--tables", nargs="*", choices=READERS, default=[*READERS])
    add("--trials", nargs="*", type=count, default=[10, 20, 50, 100])
    add("--source-trials", type=count, default=100)
    add("--seeds", type=count, default=10, help="studies of each objective; default 10")
    add("--processes", type=count, default=2)
    add("--out", type=Path, help="a file to append the rows to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
