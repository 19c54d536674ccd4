"""The schema is changed by two starters at once, and under an api that runs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from random import Random

from ridgeline.service.store import migrate
from tests.chaos.by_hand import Crowd
from tests.chaos.campaign import Tally, campaign
from tests.chaos.program import Program
from tests.chaos.races import second_api
from tests.chaos.rig import Rig
from tests.deployment import ROOT

_OLD = ("0006", "0007", "0008")
"""Earlier schemas: they know which program has a trial, so that none is lost by going back."""

_MIGRATIONS_A_PART = 4


@campaign("migration", target=20, num_workers=0)
def migrate_twice(rig: Rig, random: Random, count: int) -> Tally:
    """Down and up again, by two commands at once; and two apis start on an old database."""
    tally = Tally()
    program = Program(rig, may_be_cut_off=True)
    with Crowd(2) as crowd:
        for _ in range(min(count, _MIGRATIONS_A_PART)):
            time.sleep(random.uniform(0.0, 1.0))
            migrate.downgrade(rig.url, random.choice(_OLD))
            time.sleep(random.uniform(0.0, 0.5))
            _all_succeed(crowd.at_once([partial(_command, rig)] * 2), tally)
            _wait_for_success(rig, program, tally)
        rig.deployment.kill(rig.deployment.api)
        migrate.downgrade(rig.url, random.choice(_OLD))
        with second_api(rig, start=False) as other:
            starters: list[Callable[[], None]] = [rig.deployment.start_api, other.start_api]
            crowd.at_once(starters)
            _wait_for_success(rig, program, tally)
    tally.add(program.finish())
    return tally


def _command(rig: Rig) -> str:
    """`ridgeline migrate`; what it says where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "ridgeline.service.cli", "migrate"],
        cwd=ROOT,
        env=rig.deployment.env,
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def _all_succeed(said: list[str], tally: Tally) -> None:
    tally.problems += [f"migrate: {text[-500:]}" for text in said if text]


def _wait_for_success(rig: Rig, program: Program, tally: Tally) -> None:
    if not migrate.is_current(rig.url):
        tally.problems.append("the schema is not this version's")
    taken = program.taken
    rig.wait_for(lambda: program.taken > taken, "a call to be taken")
    tally.injected += 1
