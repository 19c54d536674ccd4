"""How long to wait before trying again."""

from __future__ import annotations

from random import Random

FIRST_SECONDS = 0.25


def backoff_seconds(num_failures: int, random: Random, *, cap_seconds: float) -> float:
    """The wait after so many failures in a row (at least 1): it doubles, up to a cap.

    Half of it is drawn by lot, so that workers cut off by the same fault do not all return at once.
    """
    doublings = min(num_failures - 1, 30)
    return min(cap_seconds, FIRST_SECONDS * 2.0**doublings) * random.uniform(0.5, 1.0)
