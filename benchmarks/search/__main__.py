"""Measure how well samplers search the tables, one trial at a time and in batches.

    python -m benchmarks.search --out benchmarks/results/search.jsonl

A study asks for a batch of configurations, is told what came of all of them, and asks again; with
`--in-flight` it has so many trials under way at any time, as in the service.  What a trial comes to
is the mean over the table's seeds, or with `--noisy` that of one seed.  Prints a row of JSON for
each sampler, batch size and number of trials, over all tables:

* `regret`: (best found - best there is) / (median - best there is) of the mean over the seeds,
  where the best found is the trial that looked best; the mean over objectives and studies;
* `regret_interval`: 90 %, by resampling studies within objectives;
* `by_table`: the mean regret of each objective;
* `of_optuna`, `of_optuna_interval`: the regret over that of `optuna`, where that is measured too,
  and its 90 % interval.

`optuna` is Optuna's `TPESampler()` as it comes, on an Optuna study of the same axes, asked and told
as a script would; `random` draws cells with replacement, as the service does.

With `--continuous` the real numbers are ranges, as people write them, and the value between cells
is linear.
"""

from __future__ import annotations

import argparse
import multiprocessing
from itertools import product
from pathlib import Path

import numpy as np
import torch

from benchmarks.rows import Row, count, header, tell, write
from benchmarks.search.data import READERS
from benchmarks.search.resampling import interval_of
from benchmarks.search.studies import METRICS, SAMPLERS, Study, Values, regrets

_NUM_RESAMPLED = 2_000
_REFERENCE = "optuna"

Rows = dict[str, list[float]]
"""Regrets by objective, a study's each."""


def main() -> None:
    arguments = _arguments()
    write(header("search", torch.device("cpu")), arguments.out)
    studies = [
        Study(
            sampler,
            batch,
            max(arguments.trials),
            table,
            metric,
            seed,
            arguments.noisy,
            arguments.continuous,
            arguments.in_flight,
        )
        for sampler, batch, table, metric, seed in product(
            arguments.samplers, arguments.batch, arguments.tables, METRICS, range(arguments.seeds)
        )
    ]
    # By sampler, batch and number of trials, then by objective.
    found: dict[tuple[str, int, int], Rows] = {}
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for done, values in enumerate(pool.imap(regrets, studies)):
            study = studies[done]
            for trials in arguments.trials:
                rows = found.setdefault((study.sampler, study.batch, trials), {})
                rows.setdefault(f"{study.table}/{study.metric}", []).append(values[trials - 1])
            if done % 100 == 99:
                tell(f"{done + 1} of {len(studies)} studies")
    for (sampler, batch, trials), rows in found.items():
        row: Row = {"sampler": sampler, "batch": batch, "trials": trials, "noisy": arguments.noisy}
        row |= {"continuous": arguments.continuous, "in_flight": arguments.in_flight}
        row |= _figures(rows)
        if reference := found.get((_REFERENCE, batch, trials)):
            row |= _compared(rows, reference)
        write(row, arguments.out)


def _figures(rows: Rows) -> Row:
    return {
        "studies": sum(len(values) for values in rows.values()),
        "regret": round(_mean(rows), 4),
        "regret_interval": interval_of(_resampled(rows)),
        "by_table": {name: round(float(np.mean(values)), 4) for name, values in rows.items()},
    }


def _compared(rows: Rows, reference: Rows) -> Row:
    return {
        "of_optuna": round(_mean(rows) / _mean(reference), 3),
        "of_optuna_interval": interval_of(_resampled(rows) / _resampled(reference)),
    }


def _mean(rows: Rows) -> float:
    return float(np.mean([np.mean(values) for values in rows.values()]))


def _resampled(rows: Rows) -> Values:
    """The mean regret if other studies had been run; of all samplers those of the same seeds."""
    generator = np.random.default_rng(1)
    resampled = np.zeros(_NUM_RESAMPLED)
    for values in rows.values():
        picks = generator.integers(0, len(values), (_NUM_RESAMPLED, len(values)))
        resampled += np.array(values)[picks].mean(axis=1) / len(rows)
    return resampled


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--samplers", nargs="*", choices=SAMPLERS, default=[*SAMPLERS])
    add("--tables", nargs="*", choices=READERS, default=[*READERS])
    add("--batch", nargs="*", type=count, default=[1, 8, 32], help="trials asked for at once")
    add("--trials", nargs="*", type=count, default=[50, 100, 200])
    add("--seeds", type=count, default=10, help="studies of each objective; default 10")
    add("--noisy", action="store_true", help="a trial has one seed")
    add("--continuous", action="store_true", help="ranges, with values between the cells")
    add("--in-flight", action="store_true", help="of ours, a new trial whenever one has ended")
    add("--processes", type=count, default=2)
    add("--out", type=Path, help="a file to append the rows to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
