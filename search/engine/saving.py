"""When the runs of a pack are saved: as often as it costs little, and spares much if they are lost.

Free of torch.
"""

from __future__ import annotations

import math
from collections.abc import Hashable

SAVE_SECONDS = 10.0
"""Of a pack's training, between two times that a run of it is saved."""

RUNG_SHARE = 0.1
"""Of these, that must have passed at a rung: to train it again costs more than it takes to send."""

MAX_SHARE = 0.01
"""Of a pack's time, what saving its runs may take; past that they are saved less often.

64-64-10 with batches of 64 takes 0.3 % in a pack of 32 slots, at a millisecond a run."""


class Saving:
    """Which runs of one pack are due to be saved.

    Its seconds are those of the pack's training, so runs that wait for their pack's turn do not
    become due.

    Args:
        seconds: in the place of SAVE_SECONDS; 0 saves at the end of each epoch, whatever it costs,
            and None never.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._since: dict[Hashable, float] = {}
        # The least of all: others were held up by something else.
        self._cost_seconds = math.inf

    def begin(self, key: Hashable, now: float) -> None:
        """A run trains from now on; there is nothing to save yet."""
        self._since[key] = now

    def end(self, key: Hashable) -> None:
        """The run trains no more."""
        self._since.pop(key, None)

    def is_due(self, key: Hashable, now: float, *, at_rung: bool) -> bool:
        """Whether to save the run now, at the end of an epoch."""
        if self._seconds is None:
            return False
        wanted = self._seconds * (RUNG_SHARE if at_rung else 1.0)
        if self._seconds > 0 and self._cost_seconds < math.inf:
            wanted = max(wanted, len(self._since) * self._cost_seconds / MAX_SHARE)
        return now - self._since[key] >= wanted

    def saved(self, key: Hashable, before: float, after: float) -> None:
        """Take in that the run was saved, and how long that took."""
        self._since[key] = after
        self._cost_seconds = min(self._cost_seconds, after - before)
