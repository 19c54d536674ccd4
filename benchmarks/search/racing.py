"""Measure what racing and fresh seeds are worth on the tables, against more trials of one seed.

    python -m benchmarks.search.racing --out benchmarks/results/racing.jsonl

A study searches by one seed a trial, its leaders race, and its winner is trained again with fresh
seeds.  The other study of the pair spends as many runs, the fresh ones among them, on further
trials of one seed, and takes the trial that looks best.  A run comes to the mean of its cell and

* `gauss`: noise of a normal distribution, whose deviation is that of seeds in the best tenth of the
  table's cells;
* `seeds`: the deviation of one of the three seeds that the table has of the cell.

Prints a row of JSON for each sampler, noise, number of trials and setting, over all tables:

* `regret`: (chosen - best there is) / (median - best there is) by the means of cells, the mean over
  objectives and studies; `regret_one_seed`: that of the other study; `ratio`: of the two;
* `coverage`: of how many studies the 95 % interval of fresh seeds holds the winner's mean;
* `optimism`: by how much a value in the search is better than the mean of its cell, in the same
  unit as the regret, of the winner and of the other study's choice (`optimism_one_seed`);
* `..._interval`: 90 %, by resampling studies within objectives;
* `runs`: of a study, all told; `rounds`: of its race.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.rows import Row, count, header, tell, write
from benchmarks.search.data import READERS
from benchmarks.search.resampling import interval_of
from benchmarks.search.studies import METRICS, Values, put_end, values_of
from benchmarks.search.tables import AXES, CELLS, NUMBER_OF, SPACE
from ridgeline.search.comparing import mean_of
from ridgeline.search.fields import SamplerName
from ridgeline.search.history import History
from ridgeline.search.racing import Contender, Racing, next_round, pooled, ranked
from ridgeline.search.samplers import sampler_for

_BATCH = 10
_NUM_RESAMPLED = 2_000


@dataclass(frozen=True)
class Race:
    """A study on a table, and the seed of everything drawn."""

    sampler: SamplerName
    noise: str
    num_trials: int
    racing: Racing
    num_fresh: int
    table: str
    metric: str
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What came of a study and of the other one of its pair, as rows tell it."""

    regret: float
    regret_one_seed: float
    coverage: float
    optimism: float
    optimism_one_seed: float
    runs: float
    rounds: float


class Noisy:
    """The runs of a table's cells: value by cell and number of the seed, the same each time.

    Args:
        values_CS: of C cells and the seeds of the table; NaN where training diverged.
        seeds: of everything drawn.
    """

    def __init__(self, values_CS: Values, noise: str, seeds: tuple[int, ...]) -> None:
        self.truth_C = values_CS.mean(axis=1)
        good = np.argsort(self.truth_C)[: len(CELLS) // 10]
        self._sd = float(np.sqrt(values_CS[good].var(axis=1, ddof=1).mean()))
        self._values_CS = values_CS
        self._noise = noise
        self._seeds = seeds

    def value(self, cell: int, seed: int) -> float:
        generator = np.random.default_rng([*self._seeds, cell, seed])
        if self._noise == "gauss":
            return float(self.truth_C[cell] + self._sd * generator.standard_normal())
        return float(generator.choice(self._values_CS[cell]))

    def mean(self, cell: int, first: int, num: int) -> float:
        """Over seeds from `first` on."""
        return float(np.mean([self.value(cell, seed) for seed in range(first, first + num)]))


def simulate(race: Race) -> Outcome:
    """Both studies of a pair."""
    objective = [*READERS].index(race.table), METRICS.index(race.metric)
    values_CS = values_of(race.table, race.metric)
    noisy = Noisy(values_CS, race.noise, (race.seed, *objective))
    search = _search(race, noisy)
    trials = dict(enumerate(islice(search, race.num_trials)))
    parts = {
        number: [(None if np.isnan(value) else value, 1)] for number, (_, value) in trials.items()
    }
    # A configuration that is tried twice has the same runs twice.
    first_of = {cell: number for number, (cell, _) in reversed(trials.items())}
    num_rounds = 0
    while True:
        standing = [_contender(number, parts[number]) for number in first_of.values()]
        todo = next_round(standing, race.racing, "minimize")
        if not todo:
            break
        num_rounds += 1
        for one, more in todo:
            cell, _ = trials[one.number]
            parts[one.number].append((noisy.mean(cell, one.num_seeds, more), more))
    winner = ranked(standing, "minimize")[0]
    chosen = trials[winner.number][0]
    fresh = [noisy.value(chosen, race.racing.seeds + n) for n in range(race.num_fresh)]
    interval = mean_of("", fresh).interval
    num_runs = sum(num for its in parts.values() for _, num in its) + race.num_fresh
    others = [*trials.values(), *islice(search, num_runs - race.num_trials)]
    other, looks = min(
        ((cell, value) for cell, value in others if not np.isnan(value)), key=lambda one: one[1]
    )
    truth_C = noisy.truth_C
    best = np.nanmin(truth_C)
    scale = np.nanmedian(truth_C) - best
    assert winner.value is not None
    return Outcome(
        regret=float((truth_C[chosen] - best) / scale),
        regret_one_seed=float((truth_C[other] - best) / scale),
        coverage=float(interval is not None and interval.holds(truth_C[chosen])),
        optimism=float((truth_C[chosen] - winner.value) / scale),
        optimism_one_seed=float((truth_C[other] - looks) / scale),
        runs=num_runs,
        rounds=num_rounds,
    )


def figures(outcomes: dict[str, list[Outcome]]) -> Row:
    """The means over objectives, and intervals."""
    generator = np.random.default_rng(1)
    names = [field.name for field in fields(Outcome)]
    by_objective = [
        np.array([[getattr(one, name) for name in names] for one in its])
        for its in outcomes.values()
    ]
    resampled = np.zeros((_NUM_RESAMPLED, len(names)))
    for values in by_objective:
        picks = generator.integers(0, len(values), (_NUM_RESAMPLED, len(values)))
        resampled += values[picks].mean(axis=1) / len(by_objective)
    means = np.mean([values.mean(axis=0) for values in by_objective], axis=0)
    drawn = dict(zip(names, resampled.T, strict=True))
    drawn["ratio"] = drawn["regret"] / drawn["regret_one_seed"]
    row: Row = {"studies": sum(map(len, by_objective))}
    row |= {name: round(float(mean), 4) for name, mean in zip(names, means, strict=True)}
    row["ratio"] = round(row["regret"] / row["regret_one_seed"], 4)
    for name in ("ratio", "coverage", "regret", "regret_one_seed"):
        row[f"{name}_interval"] = interval_of(drawn[name])
    row["ratio_by_table"] = {
        name: round(float(values[:, 0].mean() / values[:, 1].mean()), 2)
        for name, values in zip(outcomes, by_objective, strict=True)
        if values[:, 1].any()
    }
    return row


def _contender(number: int, parts: list[tuple[float | None, int]]) -> Contender:
    return Contender(number, pooled(parts), sum(num for _, num in parts))


def _search(race: Race, noisy: Noisy) -> Iterator[tuple[int, float]]:
    """Cell and value of each trial, without end."""
    history, sampler = History(SPACE), sampler_for(race.sampler)
    while True:
        numbers = range(len(history), len(history) + _BATCH)
        for new in sampler.suggest(SPACE, history, numbers, race.seed, "minimize"):
            cell = NUMBER_OF[tuple(new.config[name] for name in AXES)]
            value = noisy.value(cell, 0)
            put_end(history, new.number, new.config, value)
            yield cell, value


def main() -> None:
    arguments = _arguments()
    write(header("racing", torch.device("cpu")), arguments.out)
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for sampler, noise, num_trials, seeds, leaders in product(
            arguments.samplers,
            arguments.noise,
            arguments.trials,
            arguments.seeds,
            arguments.leaders,
        ):
            racing = Racing(seeds=seeds, leaders=leaders)
            races = [
                Race(sampler, noise, num_trials, racing, arguments.fresh, table, metric, seed)
                for table, metric in product(arguments.tables, METRICS)
                for seed in range(arguments.studies)
            ]
            found: dict[str, list[Outcome]] = {}
            for race, outcome in zip(races, pool.imap(simulate, races, 8), strict=True):
                found.setdefault(f"{race.table}/{race.metric}", []).append(outcome)
            row: dict[str, Any] = {"sampler": sampler, "noise": noise, "trials": num_trials}
            row |= {"seeds": seeds, "leaders": leaders, "fresh": arguments.fresh}
            write(row | figures(found), arguments.out)
            tell(f"{sampler}, {noise}, {num_trials} trials")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search.racing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--samplers", nargs="*", choices=("random", "gp", "tpe"), default=["random", "gp"])
    add("--noise", nargs="*", choices=("gauss", "seeds"), default=["gauss", "seeds"])
    add("--tables", nargs="*", choices=READERS, default=[*READERS])
    add("--trials", nargs="*", type=count, default=[50, 100, 200])
    add("--seeds", nargs="*", type=count, default=[8], help="of a leader in the end")
    add("--leaders", nargs="*", type=count, default=[3])
    add("--fresh", type=count, default=5, help="fresh seeds of the winner; default 5")
    add("--studies", type=count, default=20, help="of each objective; default 20")
    add("--processes", type=count, default=2)
    add("--out", type=Path, help="a file to append the rows to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
