"""A short run of the campaigns: in one service, some on each database."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.chaos.__main__ import Results
from tests.chaos.campaign import CAMPAIGNS, Campaign, Tally, rate_bound
from tests.chaos.figures import published, table
from tests.chaos.rig import Rig, running

SHORT = {
    "sqlite": {"kill-worker": 2, "kill-api": 2, "drain-worker": 1, "hang-in-a-pack": 1},
    "postgresql": {"kill-device": 2, "stall-worker": 1, "operation": 3, "deaf-device": 1},
}
"""How many faults of each campaign."""

# Only where a process is to hang: on a busy machine others are silent for as long, too.
SETTINGS = {"sqlite": {"RIDGELINE_HANG_SECONDS": "5"}, "postgresql": {}}


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHORT)
def test_the_campaigns_in_short(kind: str) -> None:
    service = Campaign("short", _never, 0, SETTINGS[kind], num_workers=2, databases=(kind,))
    with running(service, kind, {}, num_epochs=30) as rig:
        for name, count in SHORT[kind].items():
            rig.staff()
            tally = CAMPAIGNS[name].part(rig, Random(name), count)
            assert tally.is_good, (name, tally.problems)
            assert tally.injected > 0, name


def _never(rig: Rig, random: Random, count: int) -> Tally:
    raise AssertionError("it stands for the campaigns that run in its service")


def test_results_of_a_run_that_was_interrupted_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    first = Tally(injected=3, noticed_seconds=[0.5], others={"orphans": 0})
    Results(path).add("kill-worker", "sqlite", "0 kill-worker sqlite 0", first)
    results = Results(path)
    assert results.parts("kill-worker", "sqlite") == [first]
    assert results.parts("kill-worker", "postgresql") == []


def test_every_campaign_and_its_figures_are_documented() -> None:
    page = Path("docs/reliability.md").read_text(encoding="utf-8")
    for name in CAMPAIGNS:
        assert f"| `{name}` |" in page
    _, _, rest = page.partition("<!-- python -m tests.chaos.figures -->\n")
    figures, _, _ = rest.partition("<!-- end -->")
    assert figures.splitlines() == list(table(published()))


def test_what_a_number_of_tries_bounds() -> None:
    assert rate_bound(0) is None
    assert rate_bound(200) == 0.015  # (1 - 0.015)²⁰⁰ = 5 %
    assert Tally(injected=200).summary()["rate_bound"] == 0.015
    assert Tally(injected=200, lost=1).summary()["rate_bound"] is None
