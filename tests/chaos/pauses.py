"""SIGSTOP of workers past their lease, of device processes for ever; SIGTERM of workers."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from random import Random

from tests.chaos.campaign import Tally, campaign
from tests.chaos.processes import descendants, device_processes
from tests.chaos.rig import REGISTERED, Rig
from tests.chaos.studies import study

PER_PART = 10

EXIT_SECONDS = 30.0
"""Within which a worker that is told to end has ended."""

DEAF_WORKER = "tests.chaos.deaf_worker"
MAX_MOMENTS = 20
"""A study has about as many, for each run ends one."""


@campaign("stall-worker", target=100, num_workers=3)
def stall_workers(rig: Rig, random: Random, count: int) -> Tally:
    """A worker is cut off past its lease and comes back: what it has to tell is refused."""
    with rig.disturbed("stall-worker") as (name, tally):
        while tally.injected < min(count, PER_PART):
            victim = rig.wait_until_one_trains(name, random)
            if victim is None:
                break
            time.sleep(random.uniform(0.0, 0.3))
            log_size = len(rig.log(victim))
            rows = rig.ask(
                "SELECT id, (SELECT COUNT(*) FROM rl_runs r WHERE r.worker_id = w.id"
                " AND r.state = 'RUNNING')"
                " FROM rl_workers w WHERE w.name = :name AND w.state = 'LIVE'",
                name=rig.name(victim),
            )
            if not rows:
                continue  # a busy machine has held it up for longer than its lease
            ((worker_id, num_held),) = rows
            with_devices = random.random() < 0.5
            pids = [victim.pid, *(device_processes(victim.pid) if with_devices else ())]
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            stopped_at = time.monotonic()
            rig.wait_for(
                lambda worker_id=worker_id: rig.ask(  # type: ignore[misc]
                    "SELECT 1 FROM rl_workers WHERE id = :id AND state = 'LOST'", id=worker_id
                ),
                "the api to give the worker up",
            )
            tally.noticed_seconds.append(time.monotonic() - stopped_at)
            tally.injected += 1
            tally.count("runs_held", num_held)
            time.sleep(random.uniform(0.0, 1.0))
            for pid in reversed(pids):
                os.kill(pid, signal.SIGCONT)
            rig.wait_for_log(victim, "registering again, without the runs held", log_size)
            tally.count("late_statements_refused")
            rig.wait_for_log(victim, REGISTERED, log_size)
    return tally


@campaign("drain-worker", target=50, num_workers=3)
def drain_workers(rig: Rig, random: Random, count: int) -> Tally:
    """Workers get a SIGTERM at random moments: they give their runs back, and nobody pays."""
    with rig.disturbed("drain-worker") as (name, tally):
        while tally.injected < min(count, PER_PART):
            victim = rig.wait_for_a_worker(name, random, tally)
            if victim is None:
                break
            rig.hire()
            rig.workers.remove(victim)
            tally.count("runs_held", rig.num_held(victim))
            tally.injected += 1
            tally.noticed_seconds.append(end_worker(rig, victim, tally))
    ((charges,),) = rig.ask("SELECT SUM(charges) FROM rl_runs")
    if charges:
        tally.problems.append(f"{name}: {charges} charges, though nothing failed")
    return tally


@campaign("deaf-device", target=20, num_workers=0, settings={"RIDGELINE_HANG_SECONDS": "5"})
def end_workers_with_deaf_devices(rig: Rig, random: Random, count: int) -> Tally:
    """A device process closes its pipes and lives on; a SIGTERM of its worker ends both."""
    tally = Tally()
    spec = study("deaf-device", epochs=rig.num_epochs)
    rig.staff(1)
    rig.undisturbed(spec)
    tally.add(_drain_all(rig))
    name = rig.post(spec)
    while tally.injected < min(count, PER_PART):
        worker = rig.hire("-m", DEAF_WORKER, str(random.randint(1, MAX_MOMENTS)))
        rig.wait_for(
            lambda worker=worker: _deaf_device(rig, worker) or rig.has_ended(name),  # type: ignore[misc]
            "a device process to close its pipes",
        )
        device = _deaf_device(rig, worker)
        if device is None:
            break
        tally.injected += 1
        time.sleep(random.uniform(0.0, 8.0))  # the agent replaces it meanwhile, or has not yet
        rig.workers.remove(worker)
        left = [device, *descendants(worker.pid)]
        tally.noticed_seconds.append(end_worker(rig, worker, tally))
        rig.count_orphans(left, tally)
    rig.staff(1)
    tally.add(rig.check_undisturbed(name, spec))
    tally.add(_drain_all(rig))
    return tally


def _deaf_device(rig: Rig, worker: subprocess.Popen[bytes]) -> int | None:
    """The process id of a device process that has closed its pipes; None before that."""
    _, found, rest = rig.log(worker).partition("deaf from now on: ")
    return int(rest.split()[0]) if found and "\n" in rest else None


def _drain_all(rig: Rig) -> Tally:
    tally = Tally()
    while rig.workers:
        end_worker(rig, rig.workers.pop(), tally)
    return tally


def end_worker(rig: Rig, worker: subprocess.Popen[bytes], tally: Tally) -> float:
    """Tell a worker to end; how many seconds it took."""
    began_at = time.monotonic()
    worker.terminate()
    try:
        status = worker.wait(4 * EXIT_SECONDS)
    except subprocess.TimeoutExpired:
        rig.deployment.kill(worker)
        status = worker.returncode
    seconds = time.monotonic() - began_at
    if status != 0 or seconds > EXIT_SECONDS:
        tally.problems.append(f"a worker ended with status {status} after {seconds:.1f} s")
    return seconds
