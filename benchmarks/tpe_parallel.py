"""Measure what more trials in flight cost TPE in quality.

    python -m benchmarks.tpe_parallel --out benchmarks/results/tpe_parallel.jsonl

Runs the service's TPE on objectives that cost nothing (see `benchmarks.tpe_objectives`) as if P
workers trained its trials: whenever one ends, the next is suggested by what has ended until then.
A trial lasts as long as its batch size costs.  Prints a row of JSON for each objective, number of
trials and P, and for each number of trials and P a row over all objectives:

* `regret`: the best value found less the best value known, the median over the seeds;
* `cost`: (regret - regret of P = 1) / (regret of random search - regret of P = 1), from the means
  over the seeds, so that 0 is as good as one by one and 1 as poor as random search; over all
  objectives, the mean of their costs;
* `_interval`: 95 %, by resampling the seeds: the same ones of P as of P = 1, since studies with the
  same seed begin alike.
"""

from __future__ import annotations

import argparse
import heapq
import math
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.rows import Row, count, header, tell, write
from benchmarks.tpe_objectives import Objective, analytic_objectives, forest_objectives
from ridgeline.search.history import History, TrialStatus
from ridgeline.search.samplers.random import draws
from ridgeline.search.samplers.tpe import TpeSampler

PARALLEL = (1, 2, 5, 10, 16, 20, 32, 50)
TRIALS = (20, 40, 100, 200)
_RANDOM = 0
"""Stands for random search where P is asked for."""

_NUM_KNOWN = 20_000
"""Random configurations that the best value known is taken from, beside all that was found."""

_NUM_RESAMPLED = 2_000

Regrets = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Job:
    """The studies of one objective, number of trials and P; P 0 is random search."""

    objective: int
    num_trials: int
    num_parallel: int
    num_seeds: int


_objectives: list[Objective] = []
"""In every process; functions cannot be sent to one."""


def main() -> None:
    arguments = _arguments()
    write(header("tpe_parallel", torch.device("cpu")), arguments.out)
    num_configs = 60 if arguments.quick else arguments.configs
    tell(f"training {num_configs} configurations of the digits")
    _objectives.extend([*forest_objectives(num_configs, seed=1), *analytic_objectives()])
    jobs = [
        Job(objective, num_trials, num_parallel, arguments.seeds)
        for num_trials in arguments.trials
        for num_parallel in (_RANDOM, *arguments.parallel)
        if num_parallel <= num_trials // 2
        for objective in range(len(_objectives))
    ]
    found: dict[Job, Regrets] = {}
    # By fork, so that the objectives are there; torch has only trained, and is not used again.
    with multiprocessing.get_context("fork").Pool(arguments.processes) as pool:
        known = pool.map(_best_known, range(len(_objectives)))
        for done, (job, values) in enumerate(pool.imap(_best_found, jobs), start=1):
            found[job] = values
            tell(f"{done}/{len(jobs)}: {_objectives[job.objective].name} {job}")
    for job, values in found.items():
        known[job.objective] = min(known[job.objective], values.min())
    regrets = {job: values - known[job.objective] for job, values in found.items()}
    for row in _rows(regrets):
        write(row, arguments.out)


def _best_known(objective: int) -> float:
    subject = _objectives[objective]
    drawn = draws(subject.space, 0, seed=12_345)
    return min(subject.value(next(drawn).config) for _ in range(_NUM_KNOWN))


def _best_found(job: Job) -> tuple[Job, Regrets]:
    """The best value of each seed's study."""
    subject = _objectives[job.objective]
    if job.num_parallel == _RANDOM:
        return job, np.array([_random_best(subject, job, s) for s in range(job.num_seeds)])
    return job, np.array([_tpe_best(subject, job, s) for s in range(job.num_seeds)])


def _random_best(subject: Objective, job: Job, seed: int) -> float:
    drawn = draws(subject.space, 0, seed)
    return min(subject.value(next(drawn).config) for _ in range(job.num_trials))


def _tpe_best(subject: Objective, job: Job, seed: int) -> float:
    sampler, history = TpeSampler(), History(subject.space)
    training: list[tuple[float, int]] = []  # by the time of the end
    best, now = math.inf, 0.0
    while True:
        room = min(job.num_parallel - len(training), job.num_trials - len(history))
        numbers = range(len(history), len(history) + room)
        for new in sampler.suggest(subject.space, history, numbers, seed, "minimize"):
            state = TrialStatus.RUNNING
            history.put(new.number, new.config, enqueued=False, state=state, value=None)
            heapq.heappush(training, (now + subject.seconds(new.config), new.number))
        if not training:
            return best
        now, _ = training[0]
        while training and training[0][0] <= now:
            _, number = heapq.heappop(training)
            config = history.config(number)
            value = subject.value(config)
            best = min(best, value)
            state = TrialStatus.COMPLETE
            history.put(number, config, enqueued=False, state=state, value=value)


def _rows(regrets: dict[Job, Regrets]) -> Iterator[Row]:
    """A row for each job, and one for each number of trials and P over all objectives."""
    generator = np.random.default_rng(1)
    (num_seeds,) = {job.num_seeds for job in regrets}
    picks = generator.integers(0, num_seeds, (_NUM_RESAMPLED, num_seeds))
    for num_trials in sorted({job.num_trials for job in regrets}):
        mine = {job: values for job, values in regrets.items() if job.num_trials == num_trials}
        by_parallel: dict[int, list[Regrets]] = {}
        for job, values in mine.items():
            one = mine.get(Job(job.objective, num_trials, 1, num_seeds))
            random = mine.get(Job(job.objective, num_trials, _RANDOM, num_seeds))
            medians = np.median(values[picks], axis=1)
            row: Row = {
                "objective": _objectives[job.objective].name,
                "trials": num_trials,
                "parallel": job.num_parallel or None,
                "sampler": "tpe" if job.num_parallel else "random",
                "seeds": num_seeds,
                "regret": round(float(np.median(values)), 5),
                "regret_interval": _interval(medians, 5),
                "regret_mean": round(float(values.mean()), 5),
            }
            if one is not None and random is not None:
                gained = random.mean() - one.mean()
                everyone = np.concatenate([np.arange(num_seeds)[None], picks])
                costs = (values - one)[everyone].mean(axis=1) / gained
                by_parallel.setdefault(job.num_parallel, []).append(costs)
                row |= {"cost": round(float(costs[0]), 3), "cost_interval": _interval(costs[1:], 3)}
            yield row
        for num_parallel, costs_of in by_parallel.items():
            means = np.mean(costs_of, axis=0)
            yield {
                "objective": "all",
                "trials": num_trials,
                "parallel": num_parallel or None,
                "sampler": "tpe" if num_parallel else "random",
                "seeds": num_seeds,
                "cost": round(float(means[0]), 3),
                "cost_interval": _interval(means[1:], 3),
            }


def _interval(values: Regrets, digits: int) -> list[float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return [round(float(low), digits), round(float(high), digits)]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tpe_parallel",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--trials", nargs="*", type=count, default=[*TRIALS])
    add("--parallel", nargs="*", type=count, default=[*PARALLEL], help="P, up to half the trials")
    add("--seeds", type=count, default=30, help="studies of each kind; default 30")
    add("--configs", type=count, default=1_500, help="trained for the forests; default 1,500")
    add("--processes", type=count, default=1, help="that search at the same time; default 1")
    add("--quick", action="store_true", help="small forests, to see that it works")
    add("--out", type=Path, help="a file to append the rows to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
