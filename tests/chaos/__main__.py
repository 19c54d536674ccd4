"""Faults, injected into a running service: `python -m tests.chaos --help`.

Prints one line of JSON for each campaign; progress goes to standard error.  Exit status 1 when
something was lost, is there twice, or is wrong.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

from tests.chaos import (  # noqa: F401  they enter campaigns
    clocks,
    creates,
    hangs,
    kills,
    liars,
    migrations,
    operations,
    outages,
    pauses,
    races,
    verbs,
)
from tests.chaos.campaign import CAMPAIGNS, Campaign, Tally
from tests.chaos.databases import DATABASES
from tests.chaos.oracle import Values
from tests.chaos.rig import Rig, Stuck, running
from tests.chaos.soak import soak

log = logging.getLogger("chaos")


class Results:
    """A file of JSON lines, one for each part of a campaign: what is in it need not run again."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lines: list[dict[str, Any]] = []
        if path is not None and path.exists():
            self._lines = [json.loads(line) for line in path.read_text().splitlines()]

    def parts(self, fault: str, database: str) -> list[Tally]:
        return [
            Tally(**line["tally"])
            for line in self._lines
            if (line["fault"], line["database"]) == (fault, database)
        ]

    def add(self, fault: str, database: str, seed: str, tally: Tally) -> None:
        line = {"fault": fault, "database": database, "seed": seed, "tally": asdict(tally)}
        self._lines.append(line)
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")


def run_campaign(
    campaign: Campaign,
    database: str,
    *,
    count: int,
    seed: int,
    results: Results,
    undisturbed: dict[str, Values],
) -> Tally:
    """Inject faults until there are `count` with those that the results have; their sum."""
    total = Tally()
    parts = results.parts(campaign.name, database)
    for part in parts:
        total.add(part)
    if total.injected >= count:
        return total
    with running(campaign, database, undisturbed) as rig:
        while total.injected < count and not rig.has_failed:
            part_seed = f"{seed} {campaign.name} {database} {len(parts)}"
            tally = run_part(campaign, rig, Random(part_seed), count - total.injected)
            parts.append(tally)
            total.add(tally)
            results.add(campaign.name, database, part_seed, tally)
            log.info(
                "%s on %s: %d of %d, %d lost, %d twice, %d wrong; %s",
                *(campaign.name, database, total.injected, count),
                *(total.lost, total.twice, total.wrong_values, total.others),
            )
    return total


def run_part(campaign: Campaign, rig: Rig, random: Random, count: int) -> Tally:
    """One part; one that fails is the last in this rig, whose logs stay."""
    try:
        rig.staff()
        tally = campaign.part(rig, random, count)
        assert tally.injected > 0, "a part that injects nothing would go on for ever"
    except Stuck as exc:
        tally = Tally(problems=[str(exc)])
    if not tally.is_good:
        rig.has_failed = True
        for problem in tally.problems:
            log.error("%s", problem)
    return tally


def run(args: argparse.Namespace) -> Iterator[tuple[str, str, Tally]]:
    """What the arguments ask for: name, database and sum of each campaign, as it ends."""
    if args.soak is not None:
        for kind in args.database:
            yield "soak", kind, soak(kind, seconds=args.soak, seed=args.seed, out=args.out)
        return
    results = Results(args.out)
    undisturbed: dict[str, dict[str, Values]] = {kind: {} for kind in DATABASES}
    for name in args.fault:
        campaign = CAMPAIGNS[name]
        for kind in (kind for kind in args.database if kind in campaign.databases):
            tally = run_campaign(
                campaign,
                kind,
                count=args.count or campaign.target,
                seed=args.seed,
                results=results,
                undisturbed=undisturbed[kind],
            )
            yield name, kind, tally


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--fault", nargs="+", choices=sorted(CAMPAIGNS), default=[*CAMPAIGNS])
    parser.add_argument("--database", nargs="+", choices=DATABASES, default=DATABASES)
    parser.add_argument("--count", type=int, help="faults of each; left out: those of the long run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--soak", type=float, metavar="SECONDS", help="mixed faults for so long, in place of these"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="file of JSON lines, one for each part; what it has is not run again. "
        "With --soak: samples of memory and descriptors",
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    log.setLevel(logging.INFO)
    # However it is ended, it ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    all_good = True
    for name, kind, tally in run(args):
        all_good = all_good and tally.is_good
        print(json.dumps({"fault": name, "database": kind, **tally.summary()}), flush=True)
    return 0 if all_good else 1


if __name__ == "__main__":
    sys.exit(main())
