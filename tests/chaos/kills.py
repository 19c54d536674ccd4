"""SIGKILL of workers."""

from __future__ import annotations

import time
from random import Random

from tests.chaos.campaign import Tally, campaign
from tests.chaos.rig import Rig
from tests.chaos.studies import study


@campaign("kill-worker", target=200, num_workers=3)
def kill_workers(rig: Rig, random: Random, count: int) -> Tally:
    """Workers die at random moments while they train, report and start."""
    tally = Tally()
    spec = study("kill-worker")
    rig.undisturbed(spec)
    name = rig.post(spec)
    while tally.injected < count and not rig.has_ended(name):
        time.sleep(random.uniform(0.0, 1.5))
        victim = random.choice(rig.workers)
        rig.hire()
        orphans = rig.kill(victim)
        tally.injected += 1
        rig.count_orphans(orphans, tally)
    tally.add(rig.check(name, spec))
    return tally
