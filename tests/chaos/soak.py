"""A soak: mixed faults on a service that is busy with studies of every kind, for a long time.

Two workers and most apis are hit; one worker is spared, and the api is hit seldom, so that it shows
whether their memory or descriptors grow with what they have done.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import count, cycle
from pathlib import Path
from random import Random
from statistics import median
from threading import Event, Thread
from typing import Any

from ridgeline.service.client import ApiError, Client, ClientError
from tests.chaos.campaign import Campaign, Tally
from tests.chaos.pauses import end_worker
from tests.chaos.processes import (
    device_processes,
    num_descriptors,
    resident_bytes,
    started_at,
)
from tests.chaos.rig import Rig, running
from tests.chaos.studies import study
from tests.deployment import ROOT

NUM_OPEN_STUDIES = 4
SAMPLE_SECONDS = 5.0
WARM_SECONDS = 60.0
"""A process that began later than this before a sample still grows to its size."""

API_KILLS_PER_FAULT = 0.01

SETTINGS = {
    "RIDGELINE_HANG_SECONDS": "5",
    "RIDGELINE_LEASE_SECONDS": "10",
    "RIDGELINE_COMPILE": "true",
}

log = logging.getLogger("chaos")


def soak(kind: str, *, seconds: float, seed: int, out: Path | None) -> Tally:
    """Inject faults for so long, and check everything when all is quiet again.

    Args:
        out: file for samples, one line of JSON for each process and time.
    """
    campaign = Campaign("soak", _no_part, 0, SETTINGS, num_workers=3, databases=(kind,))
    with running(campaign, kind, {}) as rig:
        return _Soak(rig, Random(f"{seed} soak {kind}"), out).run(seconds)


def _no_part(rig: Rig, random: Random, count: int) -> Tally:
    raise AssertionError("a soak has no parts")


class _Soak:
    def __init__(self, rig: Rig, random: Random, out: Path | None) -> None:
        self._rig = rig
        self._random = random
        self._out = out
        self._tally = Tally()
        self._spared = rig.workers[0]
        self._names: list[str] = []
        self._kinds = cycle(_studies())
        self._samples: dict[tuple[str, int], list[tuple[float, int, int]]] = {}

    def run(self, seconds: float) -> Tally:
        over = Event()
        began_at = time.monotonic()
        threads = [
            Thread(target=self._sample, args=(over, began_at), daemon=True),
            Thread(target=_external_program, args=(self._rig, over), daemon=True),
        ]
        for thread in threads:
            thread.start()
        while time.monotonic() < began_at + seconds:
            self._post_studies()
            self._operate()
            self._inject()
            time.sleep(self._random.uniform(0.0, 4.0))
        for name in self._names:
            with suppress(ApiError):  # it has failed
                self._rig.client.stop(name)
            self._rig.wait_until_quiet(name)
        over.set()
        for thread in threads:
            thread.join()
        return self._result()

    # ---- what is going on

    def _post_studies(self) -> None:
        num_open = sum(not self._rig.has_ended(name) for name in self._names)
        for _ in range(NUM_OPEN_STUDIES - num_open):
            self._names.append(self._rig.post(next(self._kinds)))
            self._tally.count("studies")

    def _operate(self) -> None:
        """Do something to one of the studies; what it refuses in its state, it refuses."""
        client, name = self._rig.client, self._random.choice(self._names)
        operations: list[Callable[[], object]] = [
            lambda: (client.pause(name), client.resume(name)),
            lambda: client.extend(name, trials=3),
            lambda: client.retry(name),
            lambda: client.stop(name),
            lambda: client.export(name),
            lambda: list(client.trials(name)),
        ]
        try:
            self._random.choice(operations)()
            self._tally.count("operations")
        except ClientError as exc:
            log.info("%s", exc)

    def _inject(self) -> None:
        if self._random.random() < API_KILLS_PER_FAULT:
            self._rig.deployment.kill(self._rig.deployment.api)
            self._rig.deployment.start_api()
            self._count("kill-api")
            return
        # One that still starts ends by a SIGTERM like any program, and gives up when its device
        # process has died three times: neither says anything of its runs, for it has none.
        victims = [
            worker
            for worker in self._rig.workers
            if worker is not self._spared and self._rig.has_registered(worker)
        ]
        if not victims:
            return
        worker = self._random.choice(victims)
        fault = self._random.choice(("kill-worker", "drain-worker", "kill-device", "stop-device"))
        if fault in ("kill-worker", "drain-worker"):
            self._rig.hire()
            if fault == "kill-worker":
                self._rig.kill(worker)
            else:
                self._rig.workers.remove(worker)
                self._tally.noticed_seconds.append(end_worker(self._rig, worker, self._tally))
        else:
            number = signal.SIGKILL if fault == "kill-device" else signal.SIGSTOP
            for device in device_processes(worker.pid):
                os.kill(device, number)
        self._count(fault)

    def _count(self, fault: str) -> None:
        self._tally.injected += 1
        self._tally.count(fault)

    # ---- what is measured

    def _sample(self, over: Event, began_at: float) -> None:
        while not over.wait(SAMPLE_SECONDS):
            processes = {"api": self._rig.deployment.api.pid, "worker": self._spared.pid}
            for name, pid in processes.items():
                age = time.time() - started_at(pid)
                if age < WARM_SECONDS:
                    continue
                at = round(time.monotonic() - began_at, 1)
                sample = (at, resident_bytes(pid), num_descriptors(pid))
                self._samples.setdefault((name, pid), []).append(sample)
                if self._out is not None:
                    keys = ("seconds", "resident_bytes", "num_descriptors")
                    line = {
                        "process": name,
                        "age_seconds": round(age),
                        **dict(zip(keys, sample, strict=True)),
                    }
                    with self._out.open("a") as file:
                        file.write(json.dumps(line) + "\n")

    def _result(self) -> Tally:
        for (name,) in self._rig.ask("SELECT name FROM rl_studies"):
            self._tally.add(self._rig.check(name, len(self._rig.outcomes(name))))
        for (process, _), samples in self._samples.items():
            fifth = max(1, len(samples) // 5)
            for index, what in ((1, "resident_bytes"), (2, "num_descriptors")):
                values = [sample[index] for sample in samples]
                begin, end = median(values[:fifth]), median(values[-fifth:])
                log.info("%s: %s from %d to %d", process, what, begin, end)
                growth = f"{process}_{what}_grown"
                self._tally.others[growth] = max(
                    self._tally.others.get(growth, 0), round(end - begin)
                )
        self._tally.problems += _doctor(self._rig.deployment.env)
        return self._tally


def _doctor(env: Mapping[str, str]) -> list[str]:
    """What `ridgeline doctor` finds wrong in the database."""
    done = subprocess.run(
        [sys.executable, "-m", "ridgeline.service.cli", "doctor"],
        env={**env, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return []
    return [f"doctor: {line}" for line in (done.stdout or done.stderr).splitlines()]


_EXTERNAL = {
    "task": {"name": "external"},
    "space": {"x": {"type": "float", "low": -1.0, "high": 1.0}},
    "sampler": {"name": "random", "seed": 5},
    "objective": {"metric": "loss", "direction": "minimize"},
    "budget": {"trials": 50},
}


def _studies() -> Iterator[dict[str, Any]]:
    """A study of every kind that workers train."""
    tpe = {"name": "tpe", "seed": 5}
    pruner = {"name": "median", "warmup_epochs": 2}
    values = {
        "learning_rate": {"type": "values", "values": [0.001, 0.01, 0.1, 1e6]},
        "batch_size": {"type": "values", "values": [32, 64]},
    }
    yield study("random")
    yield study("replicates", replicates=3, trials=10, reproducible=False)
    yield study("tpe", sampler=tpe, reproducible=False)
    yield study("tpe-reproducible", sampler=tpe)
    yield study("pruned", pruner=pruner, sampler=tpe, reproducible=False)
    yield study("grid", sampler={"name": "grid"}, space=values, budget={"epochs": 60})
    yield study("timed", trials=1_000, budget={"trials": 1_000, "epochs": 20, "seconds": 20})


def _external_program(rig: Rig, over: Event) -> None:
    """A program that trains trials by itself, of one study after the other."""
    with Client(rig.deployment.url, retry_delays_seconds=(0.25,) * 120) as client:
        for number in count():
            name = f"external-{number}"
            client.create_study({**_EXTERNAL, "name": name})
            for trial in client.external(name, lease_seconds=5.0):
                trial.report(1, {"loss": abs(float(trial.config["x"]))})
                trial.complete()
                if over.wait(0.2):
                    client.stop(name)
            if over.is_set():
                return
