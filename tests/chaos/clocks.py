"""The database's clock is set while studies train."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

from tests.chaos.campaign import Tally, campaign
from tests.chaos.program import Program
from tests.chaos.rig import Rig
from tests.chaos.studies import study

_HOUR = 3_600
_SHIFTS_A_PART = 4
_HERE = Path(__file__).parent


@campaign("clock", target=20, num_workers=2, settings={"RIDGELINE_LEASE_SECONDS": "10"})
def set_clocks(rig: Rig, random: Random, count: int) -> Tally:
    """An hour forward or back; then a worker dies, or none does, and all that live go on."""
    tally = Tally()
    offset, hours = rig.home / "offset", 0
    _set(offset, hours)
    rig.deployment.kill(rig.deployment.api)
    rig.deployment.start_api(str(_HERE / "shifted_api.py"), str(offset))
    spec = study("clock", epochs=rig.num_epochs)
    spec["budget"]["seconds"] = _HOUR / 2
    rig.undisturbed(spec)
    name = rig.post(spec)
    program = Program(rig)
    while tally.injected < min(count, _SHIFTS_A_PART) and not rig.has_ended(name):
        time.sleep(random.uniform(0.0, 2.0))
        hours += random.choice((-1, 1))
        _set(offset, hours)
        tally.injected += 1
        if random.random() < 0.5:
            _kill_worker(rig, tally)
    tally.add(program.finish())
    tally.add(rig.check_undisturbed(name, spec))
    living = {rig.name(worker) for worker in rig.workers}
    for worker in rig.client.workers():
        if worker.state == "LOST" and worker.name in living:
            tally.problems.append(f"{worker.name} lost its lease and lived")
    return tally


def _kill_worker(rig: Rig, tally: Tally) -> None:
    """Kill a worker, wait until it is missed, and hire another."""
    victim = rig.workers[0]
    name = rig.name(victim)
    rig.kill(victim)
    killed_at = time.monotonic()
    rig.wait_for(lambda: _state(rig, name) == "LOST", f"{name} to be lost")
    tally.noticed_seconds.append(time.monotonic() - killed_at)
    rig.staff()


def _set(offset: Path, hours: int) -> None:
    new = offset.with_suffix(".new")
    new.write_text(str(hours * _HOUR))
    new.rename(offset)


def _state(rig: Rig, worker_name: str) -> str:
    return {worker.name: str(worker.state) for worker in rig.client.workers()}[worker_name]
