"""Which runs may train at once, after a crash that one of several must have caused.

When many runs train and their process dies, nobody knows whose fault it was.  Each is tried again
among at most half as many, and so on, until the guilty one trains alone: ⌈log2 K⌉ + 1 tries.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

from ridgeline.service.worker.messages import Key

MAX_REMEMBERED = 10_000
"""Runs; past it the oldest are forgotten, and if guilty are found once more."""


class Limits:
    """How many may train at once while a run is among them; by run, whatever the attempt."""

    def __init__(self) -> None:
        self._by_run: OrderedDict[int, int] = OrderedDict()

    def lower(self, run: int, limit: int) -> None:
        """Have the run trained among at most `limit`, itself counted; a lower limit stays."""
        assert limit >= 1
        self._by_run[run] = min(limit, self._by_run.get(run, limit))
        self._by_run.move_to_end(run)
        while len(self._by_run) > MAX_REMEMBERED:
            self._by_run.popitem(last=False)

    def forget(self, run: int) -> None:
        """The run has ended, and comes back no more."""
        self._by_run.pop(run, None)

    def allow(self, key: Key, others: Collection[Key]) -> bool:
        """Whether the run may join the others, by its limit and by theirs."""
        num_runs = len(others) + 1
        limits = (self._by_run.get(run, num_runs) for run, _ in (key, *others))
        return not self._by_run or all(num_runs <= limit for limit in limits)
