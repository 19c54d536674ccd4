"""Measure external programs: trials a second through the service, and through Optuna's storage.

    python -m benchmarks.service_external --out benchmarks/results/service_external.jsonl

Starts `ridgeline serve` with default settings on a fresh SQLite database, and needs no network but
loopback.  Nothing is trained: a trial is 4 parameters of the random sampler and 10 reports.  Prints
a row of JSON for each contender; progress goes to the standard error.  All take turns, round by
round, each with a fresh study; a rate is the median of the rounds, `ratio_to_optuna` the median of
the ratio within a round (`…_range`: the extremes).

* `optuna`: `study.ask()`, `trial.report` ten times, `study.tell`, on `RDBStorage` on SQLite;
* `one_at_a_time`: `Client.external`, trial after trial, as in docs/external.md;
* `call_per_report`: `Client.suggest`, `report` ten times and `complete`, twelve calls a trial;
* `batched`: `ExternalStudy.suggest(--batch)`, reported and completed in `batch()`.

The rows with `trials_before` measure the same in studies that have that many trials already, once.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import optuna
import torch
from sqlalchemy.engine import URL

from benchmarks.rows import header, tell, write
from ridgeline.service.cli.sockets import free_port
from ridgeline.service.client import Client
from ridgeline.service.external import ExternalStudy, ExternalTrial

NUM_PARAMETERS = 4
NUM_EPOCHS = 10
PARAMETERS = [f"x{index}" for index in range(NUM_PARAMETERS)]
_FILL_BATCH = 500

Run = Callable[[int], float]
"""Runs so many trials in a fresh study; gives the seconds."""


def main() -> None:
    arguments = _arguments()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    write(
        {**header("service_external", torch.device("cpu")), "optuna": optuna.__version__},
        arguments.out,
    )
    with tempfile.TemporaryDirectory() as scratch, serving(Path(scratch)) as client:
        contenders: dict[str, tuple[Run, int]] = {
            "optuna": (lambda n: in_optuna(Path(scratch), n), arguments.trials),
            "one_at_a_time": (lambda n: one_at_a_time(new_study(client, n)), arguments.trials),
            "call_per_report": (
                lambda n: call_per_report(client, new_study(client, n).name),
                arguments.trials,
            ),
            "batched": (
                lambda n: batched(new_study(client, n), arguments.batch),
                arguments.batched_trials,
            ),
        }
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(arguments.rounds):
            for name, (run, num_trials) in contenders.items():
                rates[name].append(num_trials / run(num_trials))
                tell(f"round {number + 1}: {name}: {rates[name][-1]:.1f} trials/s")
        for name, (_, num_trials) in contenders.items():
            write(_row(name, num_trials, rates), arguments.out)
        if arguments.trials_before:
            for row in large_studies(client, Path(scratch), arguments):
                write(row, arguments.out)


# ---- the contenders


def in_optuna(scratch: Path, num_trials: int, *, num_before: int = 0) -> float:
    path = f"{scratch / secrets.token_hex(4)}.db"
    url = URL.create("sqlite", database=path).render_as_string()
    study = optuna.create_study(storage=url, sampler=optuna.samplers.RandomSampler(seed=1))
    distribution = optuna.distributions.FloatDistribution(0.0, 1.0)
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={name: random.random() for name in PARAMETERS},
                distributions=dict.fromkeys(PARAMETERS, distribution),
                intermediate_values={epoch: loss(1.0, epoch) for epoch in range(1, NUM_EPOCHS + 1)},
                value=1.0,
            )
            for _ in range(num_before)
        ]
    )
    begun = time.perf_counter()
    for _ in range(num_trials):
        trial = study.ask()
        total = sum(trial.suggest_float(name, 0.0, 1.0) for name in PARAMETERS)
        for epoch in range(1, NUM_EPOCHS + 1):
            trial.report(loss(total, epoch), epoch)
        study.tell(trial, loss(total, NUM_EPOCHS))
    return time.perf_counter() - begun


def one_at_a_time(study: ExternalStudy) -> float:
    begun = time.perf_counter()
    for trial in study:
        train(trial)
    return time.perf_counter() - begun


def call_per_report(client: Client, study: str) -> float:
    begun = time.perf_counter()
    while given := client.suggest(study).trials:
        for trial in given:
            key: dict[str, Any] = {"number": trial.number, "attempt": trial.attempt}
            for epoch in range(1, NUM_EPOCHS + 1):
                metrics = {"loss": loss(total_of(trial.config), epoch)}
                client.report(study, **key, epoch=epoch, metrics=metrics)
            client.complete(study, **key)
    return time.perf_counter() - begun


def batched(study: ExternalStudy, count: int) -> float:
    begun = time.perf_counter()
    while trials := study.suggest(count):
        with study.batch():
            for trial in trials:
                train(trial)
    return time.perf_counter() - begun


def train(trial: ExternalTrial) -> None:
    total = total_of(trial.config)
    for epoch in range(1, NUM_EPOCHS + 1):
        trial.report(epoch, {"loss": loss(total, epoch)})
    trial.complete()


def total_of(config: Mapping[str, Any]) -> float:
    return sum(float(config[name]) for name in PARAMETERS)


def loss(total: float, epoch: int) -> float:
    return total + 1 / epoch


def large_studies(
    client: Client, scratch: Path, arguments: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """The same in studies that have `--trials-before` trials already."""
    num_before, num_trials = arguments.trials_before, arguments.trials

    def filled(num_more: int) -> ExternalStudy:
        study = new_study(client, num_before + num_more)
        for start in range(0, num_before, _FILL_BATCH):
            with study.batch():
                for trial in study.suggest(min(_FILL_BATCH, num_before - start)):
                    train(trial)
        return study

    rates = {
        "optuna": [num_trials / in_optuna(scratch, num_trials, num_before=num_before)],
        "one_at_a_time": [num_trials / one_at_a_time(filled(num_trials))],
        "batched": [
            arguments.batched_trials / batched(filled(arguments.batched_trials), arguments.batch)
        ],
    }
    for name in rates:
        num = arguments.batched_trials if name == "batched" else num_trials
        yield {**_row(name, num, rates), "trials_before": num_before}


# ---- the service


@contextmanager
def serving(home: Path) -> Iterator[Client]:
    """A client of a service of its own, with default settings."""
    port = free_port()
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RIDGELINE_")}
    environment = {**ours, "RIDGELINE_HOME": str(home), "RIDGELINE_PORT": str(port)}
    command = [sys.executable, "-m", "ridgeline.service.cli"]
    subprocess.run([*command, "migrate"], env=environment, check=True, stdout=subprocess.DEVNULL)
    server = subprocess.Popen([*command, "serve"], env=environment, stderr=subprocess.DEVNULL)
    try:
        with Client(f"http://127.0.0.1:{port}") as client:
            while not client.is_ready():
                if server.poll() is not None:
                    raise SystemExit("the service did not start")
                time.sleep(0.1)
            yield client
    finally:
        server.terminate()
        server.wait()


def new_study(client: Client, num_trials: int) -> ExternalStudy:
    study = client.create_study(
        {
            "name": f"external-{secrets.token_hex(4)}",
            "task": {"name": "external"},
            "space": {name: {"type": "float", "low": 0.0, "high": 1.0} for name in PARAMETERS},
            "sampler": {"name": "random", "seed": 1},
            "objective": {"metric": "loss", "direction": "minimize"},
            "budget": {"trials": num_trials},
        }
    )
    return client.external(study.name)


# ---- rows


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.service_external",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--rounds", type=int, default=3)
    add("--trials", type=int, default=200, help="of a round, but for the batched ones")
    add("--batched-trials", type=int, default=1_000)
    add("--batch", type=int, default=100, help="trials asked for at once")
    add("--trials-before", type=int, default=2_000, help="of the large studies; 0: leave them out")
    add("--out", type=Path, help="a file to append the rows to")
    return parser.parse_args()


def _row(name: str, num_trials: int, rates: Mapping[str, list[float]]) -> dict[str, Any]:
    own = rates[name]
    ratios = [mine / its for mine, its in zip(own, rates["optuna"], strict=True)]
    return {
        "contender": name,
        "trials": num_trials,
        "trials_per_second": round(median(own), 1),
        "trials_per_second_range": [round(min(own), 1), round(max(own), 1)],
        "ratio_to_optuna": round(median(ratios), 2),
        "ratio_to_optuna_range": [round(min(ratios), 2), round(max(ratios), 2)],
    }


if __name__ == "__main__":
    main()
