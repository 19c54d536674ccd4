"""Campaigns: what injects one kind of fault many times, and what each came to.

A campaign runs in parts, each with a study or a few of its own and as many faults as fit: parts
are small and independent, so a campaign that was interrupted goes on with the next one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from random import Random
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.chaos.rig import Rig

CONFIDENCE = 0.95


@dataclass
class Tally:
    """What a part of a campaign came to.

    Attributes:
        injected: faults.
        lost: trials or runs that did not end, or ended without what they should have come to.
        twice: what there is twice and may be once, such as results of a run.
        wrong_values: trials that ended with other values than in the undisturbed study.
        noticed_seconds: how long the service took to notice each fault, where that is measured.
        others: further counts, by name.
        problems: a line for each of the lost, twice and wrong ones.
    """

    injected: int = 0
    lost: int = 0
    twice: int = 0
    wrong_values: int = 0
    noticed_seconds: list[float] = field(default_factory=list)
    others: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.twice or self.wrong_values or self.problems)

    def count(self, what: str, number: int = 1) -> None:
        """Count something else."""
        self.others[what] = self.others.get(what, 0) + number

    def add(self, other: Tally) -> None:
        self.injected += other.injected
        self.lost += other.lost
        self.twice += other.twice
        self.wrong_values += other.wrong_values
        self.noticed_seconds += other.noticed_seconds
        for what, number in other.others.items():
            self.count(what, number)
        self.problems += other.problems

    def summary(self) -> dict[str, Any]:
        """What there is to say of a whole campaign."""
        values = asdict(self)
        seconds = values.pop("noticed_seconds")
        failed = bool(self.lost or self.twice or self.wrong_values)
        values["rate_bound"] = None if failed else rate_bound(self.injected)
        if seconds:
            values["noticed_median_seconds"] = round(median(seconds), 3)
            values["noticed_worst_seconds"] = round(max(seconds), 3)
        return values


def rate_bound(num_tries: int) -> float | None:
    """The rate below which a fault lies (95 %) that was not seen in so many tries: about 3 / n."""
    if num_tries == 0:
        return None
    return float(f"{1 - math.pow(1 - CONFIDENCE, 1 / num_tries):.2g}")


@dataclass(frozen=True)
class Campaign:
    """One kind of fault.

    Attributes:
        name: on the command line.
        part: injects at most so many faults, at least one, in a running service; makes the checks.
        target: faults of the long run, on each database.
        settings: of the service, as environment variables.
        num_workers: that run when a part begins, and again when it has ended.
        databases: that it makes sense on.
        small_disk: whether the database lies on a disk of its own, which `Rig.disk` can fill.
    """

    name: str
    part: Callable[[Rig, Random, int], Tally]
    target: int
    settings: Mapping[str, str]
    num_workers: int
    databases: tuple[str, ...]
    small_disk: bool = False


CAMPAIGNS: dict[str, Campaign] = {}


def campaign(
    name: str,
    *,
    target: int,
    settings: Mapping[str, str] | None = None,
    num_workers: int = 2,
    databases: Iterable[str] = ("sqlite", "postgresql"),
    small_disk: bool = False,
) -> Callable[[Callable[[Rig, Random, int], Tally]], Callable[[Rig, Random, int], Tally]]:
    """Enter a function among the campaigns; `tests.chaos.__main__` imports its module."""

    def enter(part: Callable[[Rig, Random, int], Tally]) -> Callable[[Rig, Random, int], Tally]:
        assert name not in CAMPAIGNS
        CAMPAIGNS[name] = Campaign(
            name, part, target, settings or {}, num_workers, tuple(databases), small_disk
        )
        return part

    return enter
