"""SIGKILL of workers, of device processes while they train, of the api, and of `ridgeline up`."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from random import Random

from tests.chaos.campaign import Tally, campaign
from tests.chaos.processes import descendants, device_processes
from tests.chaos.rig import Rig
from tests.chaos.studies import study

PER_PART = 20

DYING_API = "tests.chaos.dying_api"

COUNTING_WORKER = "tests.chaos.counting_worker"

MAX_TWICE = 0.1
"""Epochs trained more than once, of those that a study has."""

SECONDS_BETWEEN_KILLS = 30.0
"""On average: twenty times what a kill costs, the time since the last checkpoint and some more.  At
half of it 13 kills cost 7 % of the epochs."""

LONG_TRIALS_PER_KILL, LONG_TRIALS_MORE = 3, 10
"""Of a study that is to be in training for as long as kills go on."""

UP = ("-m", "ridgeline.service.cli", "up")


@campaign("kill-worker", target=200, num_workers=3)
def kill_workers(rig: Rig, random: Random, count: int) -> Tally:
    """Workers die at random moments and at the boundaries between states; others go on."""
    with rig.disturbed("kill-worker") as (name, tally):
        while tally.injected < min(count, PER_PART):
            victim = rig.wait_for_a_worker(name, random, tally)
            if victim is None:
                break
            tally.count("runs_held", rig.num_held(victim))
            rig.hire()
            orphans = rig.kill(victim)
            tally.injected += 1
            rig.count_orphans(orphans, tally)
    return tally


@campaign(
    "kill-worker-with-checkpoints",
    target=40,
    num_workers=0,
    settings={"RIDGELINE_CHECKPOINT_SECONDS": "1"},
)
def kill_workers_of_long_runs(rig: Rig, random: Random, count: int) -> Tally:
    """Workers die at random moments of runs that train for long; those go on where they were."""
    trained = rig.home / "epochs-trained"
    trained.touch()
    hire = ("-m", COUNTING_WORKER, str(trained))
    while len(rig.workers) < 2:
        rig.hire(*hire)
    kills = min(count, PER_PART)
    trials = LONG_TRIALS_PER_KILL * kills + LONG_TRIALS_MORE
    spec = study("kill-worker-with-checkpoints", trials=trials, epochs=40 * rig.num_epochs)
    rig.undisturbed(spec)
    num_before = trained.stat().st_size
    name, tally = rig.post(spec), Tally()
    while tally.injected < kills:
        victim = rig.wait_until_one_trains(name, random)
        if victim is None:
            break
        time.sleep(random.uniform(0.0, 2 * SECONDS_BETWEEN_KILLS))
        if (num_held := rig.num_held(victim)) == 0:
            continue  # its runs have ended meanwhile
        tally.count("runs_held", num_held)
        rig.hire(*hire)
        orphans = rig.kill(victim)
        tally.injected += 1
        rig.count_orphans(orphans, tally)
    tally.add(rig.check_undisturbed(name, spec))
    num_trained = trained.stat().st_size - num_before
    ((num_epochs,),) = rig.ask(
        "SELECT COUNT(*) FROM rl_reports p JOIN rl_runs r ON r.id = p.run_id"
        " JOIN rl_studies s ON s.id = r.study_id WHERE s.name = :study",
        study=name,
    )
    tally.count("epochs", num_epochs)
    tally.count("epochs_twice", num_trained - num_epochs)
    if not 0 <= num_trained - num_epochs <= MAX_TWICE * num_epochs:
        tally.problems.append(f"{name}: {num_trained} epochs were trained for {num_epochs}")
    return tally


@campaign("kill-device", target=200, num_workers=3)
def kill_device_processes(rig: Rig, random: Random, count: int) -> Tally:
    """Device processes die while they train; their workers notice and start others."""
    with rig.disturbed("kill-device") as (name, tally):
        while tally.injected < min(count, PER_PART):
            victim = rig.wait_until_one_trains(name, random)
            if victim is None:
                break
            time.sleep(random.uniform(0.0, 0.3))
            (device,) = device_processes(victim.pid)
            log_size = len(rig.log(victim))
            tally.count("runs_in_training", len(rig.training().get(rig.name(victim), ())))
            killed_at = time.time()
            os.kill(device, signal.SIGKILL)
            tally.injected += 1
            noticed_at = rig.wait_for_log(victim, "died with signal 9", log_size)
            tally.noticed_seconds.append(noticed_at - killed_at)
    return tally


@campaign("kill-api", target=200, settings={"RIDGELINE_LEASE_SECONDS": "15"})
def kill_apis(rig: Rig, random: Random, count: int) -> Tally:
    """The api dies at random moments, within requests, and at commits: before and after them."""
    with rig.disturbed("kill-api") as (name, tally):
        while tally.injected < min(count, PER_PART) and not rig.has_ended(name):
            point = random.choice(("any", "boundary", "before", "after"))
            if point in ("before", "after"):
                rig.deployment.kill(rig.deployment.api)
                num_commits = str(random.randint(1, 8))
                rig.deployment.spawn_api("-m", DYING_API, "transaction", point, num_commits)
                rig.wait_for(
                    lambda: rig.deployment.api.poll() is not None or rig.has_ended(name),
                    "the api to die at a commit",
                )
                tally.count(f"{point}_a_commit")
            elif point == "boundary":
                tally.count(rig.wait_for_moment(name, random))
            else:
                tally.count("any_moment")
                time.sleep(random.uniform(0.0, 1.0))
            rig.deployment.kill(rig.deployment.api)
            tally.injected += 1
            rig.deployment.start_api()
    # The workers outlive the api by far less than a lease.
    ((again,),) = rig.ask(
        "SELECT SUM(r.attempt - 1) FROM rl_runs r JOIN rl_studies s ON s.id = r.study_id"
        " WHERE s.name = :study",
        study=name,
    )
    tally.count("handed_out_again", again)
    return tally


@campaign("kill-up", target=20, num_workers=0, databases=("sqlite",))
def kill_the_whole_service(rig: Rig, random: Random, count: int) -> Tally:
    """`ridgeline up` dies; its api, worker, device process and dashboard end by themselves."""
    tally = Tally()
    spec = study("kill-up", epochs=rig.num_epochs)
    rig.deployment.kill(rig.deployment.api)
    rig.deployment.start_api(*UP)
    rig.undisturbed(spec)
    name = rig.post(spec)
    while tally.injected < min(count, PER_PART) and not rig.has_ended(name):
        rig.wait_for(lambda: rig.training() or rig.has_ended(name), "the worker to train")
        tally.count(rig.wait_for_moment(name, random))
        orphans = descendants(rig.deployment.api.pid)
        rig.deployment.kill(rig.deployment.api)
        tally.injected += 1
        rig.count_orphans(orphans, tally)
        rig.deployment.start_api(*UP)
    tally.add(rig.check_undisturbed(name, spec))
    _end(rig.deployment.api, tally)
    rig.deployment.start_api()
    return tally


def _end(process: subprocess.Popen[bytes], tally: Tally) -> None:
    process.terminate()
    if process.wait(60) != 0:
        tally.problems.append(f"`ridgeline up` ended with status {process.returncode}")
