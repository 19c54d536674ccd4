"""A short run of the campaigns against the database, and against what the api decides by it."""

from __future__ import annotations

import os
from random import Random

import pytest

from tests.chaos import __main__  # noqa: F401  it knows all campaigns
from tests.chaos.campaign import CAMPAIGNS, Campaign, Tally
from tests.chaos.rig import Rig, running

SHORT = {
    "sqlite": {"full-disk": 1, "full-database": 1, "races": 4, "migration": 1, "cancel": 1},
    "postgresql": {
        "full-disk": 1,
        "database-restart": 1,
        "repeated-creates": 2,
        "lying-worker": 5,
    },
}
"""How many faults of each campaign."""

CAN_MAKE_A_DISK = os.geteuid() == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHORT)
def test_the_campaigns_in_short(kind: str) -> None:
    settings = {"RIDGELINE_LEASE_SECONDS": "20"}
    service = Campaign("short", _never, 0, settings, 1, (kind,), small_disk=CAN_MAKE_A_DISK)
    with running(service, kind, {}, num_epochs=10) as rig:
        for name, count in SHORT[kind].items():
            if name == "full-disk" and not CAN_MAKE_A_DISK:
                continue  # to make one takes root; `full-database` does without
            rig.staff()
            tally = CAMPAIGNS[name].part(rig, Random(name), count)
            assert tally.is_good, (name, tally.problems)
            assert tally.injected > 0, name


def _never(rig: Rig, random: Random, count: int) -> Tally:
    raise AssertionError("it stands for the campaigns that run in its service")
