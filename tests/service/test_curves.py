"""Means over runs, epoch by epoch."""

from __future__ import annotations

from ridgeline.service.curves import mean_curve

HUGE = 1.75e308


def test_the_mean_of_huge_numbers_is_no_larger_than_they_are() -> None:
    runs = [[(1, {"loss": HUGE}), (2, {"loss": 1.0})], [(1, {"loss": HUGE}), (2, {"loss": 2.0})]]
    assert mean_curve(runs, "loss") == [(1, HUGE, HUGE, HUGE), (2, 1.5, 1.0, 2.0)]
