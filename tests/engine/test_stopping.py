from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline.search.engine.config import Direction
from ridgeline.search.engine.stopping import EarlyStopping


def follow(
    values: list[float],
    patience: int | None,
    min_delta: float = 0.0,
    direction: Direction = "maximize",
) -> tuple[int | None, int | None]:
    """The epoch at which it stops, and the kept one."""
    stopping = EarlyStopping(patience, min_delta, direction)
    for epoch, value in enumerate(values, start=1):
        if stopping.update(value):
            return epoch, stopping.kept_epoch
    return None, stopping.kept_epoch


@pytest.mark.parametrize(
    ("values", "patience", "min_delta", "expected"),
    [
        ([1, 2, 3], None, 0.0, (None, 3)),
        ([3, 2, 1], None, 0.0, (None, 3)),
        ([1, 2, 2, 2], 2, 0.0, (4, 2)),
        ([1, 2, 1, 2, 1], 2, 0.0, (4, 2)),
        ([3, 2, 1], 1, 0.0, (2, 1)),
        ([1, 2, 1, 3, 1, 1], 2, 0.0, (6, 4)),
        # Small steps up: never by more than min_delta at once, but in sum.
        ([1.0, 1.4, 1.8, 2.2], 3, 0.5, (None, 4)),
        # The truly best epoch is kept, though it did not reset the patience.
        ([1.0, 1.3, 1.2], 2, 0.5, (3, 2)),
        # An improvement of exactly min_delta is not more than it.
        ([1.0, 1.5, 2.0], 2, 0.5, (None, 3)),
        ([1.0, 1.5, 1.5], 2, 0.5, (3, 2)),
    ],
)
def test_maximize(
    values: list[float],
    patience: int | None,
    min_delta: float,
    expected: tuple[int | None, int | None],
) -> None:
    assert follow(values, patience, min_delta) == expected
    mirrored = [-value for value in values]
    assert follow(mirrored, patience, min_delta, "minimize") == expected


def test_before_the_first_epoch_nothing_is_kept() -> None:
    stopping = EarlyStopping(3, 0.0, "maximize")
    assert stopping.kept_epoch is None
    assert stopping.kept_value is None


@given(
    values=st.lists(st.integers(0, 5).map(float), min_size=1, max_size=30),
    patience=st.integers(1, 5),
    cut=st.integers(0, 30),
)
def test_kept_epoch_is_the_first_best_and_state_survives(
    values: list[float], patience: int, cut: int
) -> None:
    stopping = EarlyStopping(patience, 0.0, "maximize")
    seen: list[float] = []
    for epoch, value in enumerate(values):
        if epoch == cut:
            state = json.loads(json.dumps(stopping.state()))
            stopping = EarlyStopping(patience, 0.0, "maximize")
            stopping.restore(state)
        stop = stopping.update(value)
        seen.append(value)
        best = seen.index(max(seen)) + 1
        assert stopping.kept_epoch == best
        assert stopping.kept_value == max(seen)
        assert stop == (len(seen) - best >= patience)
        if stop:
            break
