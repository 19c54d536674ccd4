"""People pause, resume and cancel studies at any moment."""

from __future__ import annotations

import time
from functools import partial
from random import Random
from typing import Any

from tests.chaos.campaign import Tally, campaign
from tests.chaos.rig import Rig
from tests.chaos.studies import study

_CANCELS_A_PART = 10


@campaign("cancel", target=200, num_workers=2)
def cancel(rig: Rig, random: Random, count: int) -> Tally:
    """A study is paused or not, goes on or not, and is cancelled: then nothing of it changes."""
    tally = Tally()
    for _ in range(min(count, _CANCELS_A_PART)):
        name = rig.post(study("cancel", trials=100, epochs=20))
        for _ in range(random.randint(0, 2)):
            time.sleep(random.uniform(0.0, 0.5))
            _pause(rig, random, name, tally)
        time.sleep(random.uniform(0.0, 1.0))
        revision = rig.client.cancel(name).revision
        rig.wait_for(partial(_is_quiet, rig, name), "the workers to hear of it")
        _check_cancelled(rig, name, revision, tally)
        tally.injected += 1
    return tally


def _pause(rig: Rig, random: Random, name: str, tally: Tally) -> None:
    """While it is paused no run is handed out."""
    revision = rig.client.pause(name).revision
    time.sleep(random.uniform(0.0, 0.5))
    tally.count("pauses")
    (begun,) = rig.ask(
        "SELECT count(*) FROM rl_trials t JOIN rl_studies s ON s.id = t.study_id"
        " WHERE s.name = :name AND t.created_revision > :revision",
        name=name,
        revision=revision,
    )
    if begun != (0,):
        tally.problems.append(f"{name}: {begun[0]} trials were made while it was paused")
    rig.client.resume(name)


def _is_quiet(rig: Rig, name: str) -> bool:
    return all(row.state != "RUNNING" for row in _open(rig, name))


def _open(rig: Rig, name: str) -> list[Any]:
    return rig.ask(
        "SELECT r.id, r.state FROM rl_runs r JOIN rl_studies s ON s.id = r.study_id"
        " WHERE s.name = :name AND r.state IN ('WAITING', 'RUNNING')",
        name=name,
    )


def _check_cancelled(rig: Rig, name: str, revision: int, tally: Tally) -> None:
    """What was said of it afterwards was not taken."""
    time.sleep(0.5)  # the workers have the runs until their next call, and may say more
    late = [
        f"{table}: {row}"
        for table in ("rl_trials", "rl_runs", "rl_reports")
        for row in rig.ask(
            f"SELECT x.* FROM {table} x JOIN rl_studies s ON s.id = x.study_id"
            " WHERE s.name = :name AND x.revision > :revision",
            name=name,
            revision=revision,
        )
    ]
    tally.twice += len(late)
    tally.problems += [f"{name}: after it was cancelled, {one}"[:500] for one in late]
    left = _open(rig, name)
    tally.lost += len(left)
    tally.problems += [f"{name}: cancelled, but {row}" for row in left]
