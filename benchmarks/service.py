"""Measure the service: all that lies between a worker's call and the database.

    python -m benchmarks.service --database sqlite postgresql --out benchmarks/results/service.jsonl

Starts an api of its own for each database, with default settings, on loopback, and a worker that
trains in no time.  Prints a row of JSON for each figure, the first of which says where and when;
progress goes to the standard error.  Worker and api share the machine's cores, and what the worker
costs is in every figure.

* `sync`: trials and reports a second from the first call of a worker until the study is complete,
  medians over the rounds (`…_range`: the extremes), each on a study of its own; the seconds of a
  call; the processor time of the api for a trial, in which that of PostgreSQL is not counted;
* `get_study`: seconds of a GET of the largest study, over one connection and over new ones;
* rows about programs that train by themselves: see `benchmarks.service_external`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import sqlalchemy
import torch

from benchmarks.rows import Row, count, header, tell, write
from benchmarks.service_api import ApiProcess, serving
from benchmarks.service_worker import FakeWorker, Worked
from ridgeline.service.client import Client

DATABASES = ("sqlite", "postgresql")
SAMPLERS = ("random", "tpe")
SPACE = {
    "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "batch_size": {"type": "values", "values": [16, 32, 64, 128]},
    "l2": {"type": "float", "low": 1e-6, "high": 1e-2, "log": True, "zero": True},
    "dropout": {"type": "float", "low": 0.0, "high": 0.6},
}


def main() -> None:
    arguments = _arguments()
    write(
        {**header("service", torch.device("cpu")), "sqlalchemy": sqlalchemy.__version__},
        arguments.out,
    )
    for database in arguments.database:
        with serving(database) as api, Client(api.url) as client:
            for row in _measure(arguments, api, client):
                write({"database": database, **row}, arguments.out)


def _measure(arguments: argparse.Namespace, api: ApiProcess, client: Client) -> Iterator[Row]:
    worker = FakeWorker(client, num_runs=arguments.slots, num_reports=arguments.reports)
    _search(client, worker, "warm-up", "random", arguments.slots)
    num_trials = {"random": arguments.trials, "tpe": arguments.tpe_trials}
    for sampler in arguments.samplers:
        tell(f"{sampler}, {num_trials[sampler]} trials, {arguments.rounds} rounds")
        rounds, cpu_seconds = [], []
        for number in range(arguments.rounds):
            before = api.cpu_seconds()
            name = f"{sampler}-{number}"
            rounds.append(_search(client, worker, name, sampler, num_trials[sampler]))
            cpu_seconds.append(api.cpu_seconds() - before)
        yield {
            "row": "sync",
            "sampler": sampler,
            "trials": num_trials[sampler],
            "reports_a_trial": arguments.reports,
            "slots": arguments.slots,
            **_rate("trials_per_second", [r.num_runs / r.seconds for r in rounds]),
            **_rate("reports_per_second", [r.num_reports / r.seconds for r in rounds]),
            "sync_seconds": _median([s for r in rounds for s in r.sync_seconds]),
            "sync_seconds_most": round(max(s for r in rounds for s in r.sync_seconds), 5),
            "api_cpu_seconds_a_trial": round(sum(cpu_seconds) / sum(r.num_runs for r in rounds), 6),
        }
    for sampler in arguments.samplers:
        yield from _get_study(api.url, f"{sampler}-0", num_trials[sampler])


def _search(client: Client, worker: FakeWorker, name: str, sampler: str, num_trials: int) -> Worked:
    """Have a study searched by the worker, to its end."""
    client.create_study(
        {
            "name": name,
            "task": {"name": "mlp", "dataset": "digits"},
            "space": SPACE,
            "sampler": {"name": sampler, "seed": 1},
            "budget": {"trials": num_trials, "epochs": 10},
        }
    )
    done = worker.work()
    study = client.study(name)
    assert study.state == "COMPLETED", study
    assert study.projection_error is None, study
    assert study.trials.complete == done.num_runs == num_trials, study
    return done


def _get_study(url: str, name: str, num_trials: int) -> Iterator[Row]:
    address, path = urlsplit(url).netloc, f"/v1/studies/{name}"
    connection = HTTPConnection(address)
    kept = [_seconds_of_get(connection, path) for _ in range(200)]
    connection.close()
    fresh = []
    for _ in range(100):
        connection = HTTPConnection(address)
        fresh.append(_seconds_of_get(connection, path))
        connection.close()
    yield {
        "row": "get_study",
        "study": name,
        "trials": num_trials,
        "kept_connection_seconds": _median(kept),
        "new_connection_seconds": _median(fresh),
    }


def _seconds_of_get(connection: HTTPConnection, path: str) -> float:
    began = time.perf_counter()
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == HTTPStatus.OK, answer.status
    return time.perf_counter() - began


def _rate(name: str, rates: Sequence[float]) -> Row:
    return {
        name: round(statistics.median(rates), 1),
        f"{name}_range": [round(min(rates), 1), round(max(rates), 1)],
    }


def _median(seconds: Sequence[float]) -> float:
    return round(statistics.median(seconds), 5)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.service",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--database", nargs="*", choices=DATABASES, default=["sqlite"])
    add("--samplers", nargs="*", choices=SAMPLERS, default=[*SAMPLERS])
    add("--rounds", type=count, default=3)
    add("--trials", type=count, default=4_000, help="of a random study; default 4000")
    add("--tpe-trials", type=count, default=500, help="of a TPE study; default 500")
    add("--reports", type=count, default=10, help="epochs of a trial; default 10")
    add("--slots", type=count, default=256, help="of the worker's device; default 256")
    add("--out", type=Path, help="a file to append the rows to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
