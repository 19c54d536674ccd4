"""SIGSTOP of device processes, for ever: their workers kill them, and charge who hung alone."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from tests.chaos.campaign import Tally, campaign
from tests.chaos.processes import device_processes
from tests.chaos.rig import Rig
from tests.chaos.studies import study

HANG_SETTINGS = {
    "RIDGELINE_HANG_SECONDS": "5",
    "RIDGELINE_MAX_CHARGES": "3",
    "RIDGELINE_LEASE_SECONDS": "10",
}

SETTLE_SECONDS = 1.0
"""After which a worker has told the api all that a stopped device process had said before."""

PACK_HANGS_PER_PART = 9


@dataclass
class Hang:
    """A device process that was stopped.

    Attributes:
        runs: those that it trained, by id and attempt, with what they were charged before.
    """

    worker: subprocess.Popen[bytes]
    log_size: int
    stopped_at: float
    runs: Mapping[tuple[int, int], int]


@campaign("hang-in-a-pack", target=20, num_workers=3, settings=HANG_SETTINGS)
def hang_in_packs(rig: Rig, random: Random, count: int) -> Tally:
    """Device processes hang with many runs, several at a time; nobody is charged."""
    with rig.disturbed("hang-in-a-pack") as (name, tally):
        while tally.injected < min(count, PACK_HANGS_PER_PART):
            if rig.wait_until_one_trains(name, random) is None:
                break
            time.sleep(random.uniform(0.0, 0.5))
            crowds = [
                worker
                for worker in rig.workers
                if len(rig.training().get(rig.name(worker), ())) > 1
                and device_processes(worker.pid)
            ]
            hangs = [_stop(rig, worker) for worker in crowds[: count - tally.injected]]
            for hang in hangs:
                _see_through(rig, hang, tally)
    return tally


@campaign("hang-alone", target=20, num_workers=1, settings=HANG_SETTINGS)
def hang_alone(rig: Rig, random: Random, count: int) -> Tally:
    """A device process hangs with one run, as often as it may and as often as it may not."""
    tally = Tally()
    spec = study("hang-alone", trials=1, epochs=rig.num_epochs)
    undisturbed = rig.undisturbed(spec)
    name = rig.post(spec)
    num_hangs = min(count, random.choice((1, rig.max_charges - 1, rig.max_charges)))
    for _ in range(num_hangs):
        worker = rig.wait_until_one_trains(name, random)
        if worker is None:
            break
        _see_through(rig, _stop(rig, worker), tally)
    rig.wait_until_quiet(name)
    ((charges,),) = rig.ask(
        "SELECT r.charges FROM rl_runs r JOIN rl_studies s ON s.id = r.study_id"
        " WHERE s.name = :study",
        study=name,
    )
    if charges < rig.max_charges:
        tally.add(rig.check_undisturbed(name, spec))
        return tally
    tally.add(rig.check(name, 1))
    state, reason, config, *_ = rig.outcomes(name)[0]
    if (state, reason) != ("FAIL", "timeout") or config != undisturbed[0][2]:
        tally.wrong_values += 1
        tally.problems.append(f"{name}: its trial is {state} ({reason})")
    tally.count("timeouts")
    return tally


def _stop(rig: Rig, worker: subprocess.Popen[bytes]) -> Hang:
    log_size = len(rig.log(worker))
    (device,) = device_processes(worker.pid)
    stopped_at = time.time()
    os.kill(device, signal.SIGSTOP)
    time.sleep(SETTLE_SECONDS)
    return Hang(worker, log_size, stopped_at, rig.training().get(rig.name(worker), {}))


def _see_through(rig: Rig, hang: Hang, tally: Tally) -> None:
    """Wait until the hang is noticed, and see who is charged."""
    noticed_at = rig.wait_for_log(hang.worker, "it said nothing for too long", hang.log_size)
    tally.injected += 1
    tally.noticed_seconds.append(noticed_at - hang.stopped_at)
    if "registering again" in rig.log(hang.worker)[hang.log_size :]:
        tally.count("lost_meanwhile")  # a busy machine has held it up for longer than its lease
        return
    num_hung = len(hang.runs)
    tally.count("alone" if num_hung == 1 else "in_a_pack" if num_hung else "between_runs")
    # The worker has told it once its runs are somewhere else, or over.
    rig.wait_for(lambda: not rig.still_running(hang.runs), "the hang to be told")
    for (run, _), before in hang.runs.items():
        expected = before + (num_hung == 1)
        ((charges,),) = rig.ask("SELECT charges FROM rl_runs WHERE id = :run", run=run)
        if charges != expected:
            tally.problems.append(f"{num_hung} runs hung: charges {charges}, not {expected}")
