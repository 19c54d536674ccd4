"""Measure how long a program waits for a trial while others ask for theirs.

    python -m benchmarks.service_suggest --out benchmarks/results/service_suggest.jsonl

Starts `ridgeline serve` with default settings on a fresh database: one process on SQLite, two on
PostgreSQL.  `--threads` clients each ask for a trial and end it, over and over, until the study has
none left; on PostgreSQL half of them go to either api.  Clients and service share the machine's
cores.  Prints a row of JSON for each database and sampler, the first of which says where and when;
progress goes to the standard error.

* `suggest_seconds`, `complete_seconds`: of a call, median, 99 of 100, and longest;
* `suggest_longest_to_median`: the longest call in medians: near 1 where all wait alike.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import torch

from benchmarks.rows import Row, count, header, tell, write
from benchmarks.service_api import serving_all
from ridgeline.service.client import Client

NUM_APIS = {"sqlite": 1, "postgresql": 2}
SAMPLERS = ("random", "tpe")
PARAMETERS = ("x0", "x1", "x2", "x3")


def main() -> None:
    arguments = _arguments()
    write(header("service_suggest", torch.device("cpu")), arguments.out)
    for database in arguments.database:
        with serving_all(database, NUM_APIS[database]) as apis:
            for row in _measure(arguments, [api.url for api in apis]):
                write({"database": database, "apis": len(apis), **row}, arguments.out)


def _measure(arguments: argparse.Namespace, urls: Sequence[str]) -> Iterator[Row]:
    num_trials = {"random": arguments.trials, "tpe": arguments.tpe_trials}
    for sampler in arguments.samplers:
        tell(f"{sampler}, {num_trials[sampler]} trials, {arguments.threads} threads")
        with Client(urls[0]) as client:
            _create(client, sampler, num_trials[sampler], max_parallel=arguments.threads)
        programs = [
            _Program(urls[number % len(urls)], sampler) for number in range(arguments.threads)
        ]
        began = time.perf_counter()
        for program in programs:
            program.start()
        for program in programs:
            program.join()
        seconds = time.perf_counter() - began
        suggests = [s for program in programs for s in program.suggest_seconds]
        completes = [s for program in programs for s in program.complete_seconds]
        assert len(completes) == num_trials[sampler], "a program has failed"
        yield {
            "row": "suggest",
            "sampler": sampler,
            "trials": num_trials[sampler],
            "threads": arguments.threads,
            "suggest_seconds": _spread(suggests),
            "suggest_longest_to_median": round(max(suggests) / median(suggests), 2),
            "complete_seconds": _spread(completes),
            "complete_longest_to_median": round(max(completes) / median(completes), 2),
            "trials_per_second": round(num_trials[sampler] / seconds, 1),
        }


def _create(client: Client, sampler: str, num_trials: int, *, max_parallel: int) -> None:
    client.create_study(
        {
            "name": sampler,
            "task": {"name": "external"},
            "space": {name: {"type": "float", "low": 0.0, "high": 1.0} for name in PARAMETERS},
            "sampler": {"name": sampler, "seed": 1},
            "objective": {"metric": "loss", "direction": "minimize"},
            "budget": {"trials": num_trials, "max_parallel": max_parallel},
        }
    )


class _Program(threading.Thread):
    """Asks for trials and ends them at once, until there are none."""

    def __init__(self, url: str, study: str) -> None:
        super().__init__()
        self._url = url
        self._study = study
        self.suggest_seconds: list[float] = []
        self.complete_seconds: list[float] = []

    def run(self) -> None:
        with Client(self._url) as client:
            while True:
                began = time.perf_counter()
                trials = client.suggest(self._study).trials
                given = time.perf_counter()
                if not trials:
                    return
                (trial,) = trials
                loss = sum(float(trial.config[name]) for name in PARAMETERS)
                client.complete(self._study, trial.number, attempt=trial.attempt, value=loss)
                self.suggest_seconds.append(given - began)
                self.complete_seconds.append(time.perf_counter() - given)


def _spread(seconds: Sequence[float]) -> Row:
    ordered = sorted(seconds)
    return {
        "median": round(median(ordered), 4),
        "99%": round(ordered[int(0.99 * (len(ordered) - 1))], 4),
        "longest": round(ordered[-1], 4),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.service_suggest",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--database", nargs="*", choices=NUM_APIS, default=[*NUM_APIS])
    add("--samplers", nargs="*", choices=SAMPLERS, default=[*SAMPLERS])
    add("--threads", type=count, default=16)
    add("--trials", type=count, default=2_000, help="of a random study; default 2000")
    add("--tpe-trials", type=count, default=500, help="of a TPE study; default 500")
    add("--out", type=Path, help="a file to append the rows to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
