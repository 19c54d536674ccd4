"""Learning rates: against torch's schedulers, and the same bits however they are asked for."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from ridgeline.search.engine.config import ScheduleName
from ridgeline.search.engine.rates import learning_rates
from tests.engine.plain import scheduler_for
from tests.engine.sets import config

SCHEDULES = get_args(ScheduleName)
RATE = 0.3


def rates(num_epochs: int, steps_per_epoch: int, **settings: Any) -> list[float]:
    """The rates of a whole run."""
    run = config(epochs=num_epochs, learning_rate=RATE, **settings)
    return learning_rates(run, 0, num_epochs * steps_per_epoch, steps_per_epoch).tolist()


def torchs(schedule: str, num_steps: int, num_warmup_steps: int = 0) -> list[float]:
    """The rates that torch's scheduler gives a run of so many steps."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
    scheduler = scheduler_for(optimizer, schedule, num_steps, num_warmup_steps)
    found = []
    for _ in range(num_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("num_epochs", "steps_per_epoch"), [(1, 5), (7, 1), (9, 7), (20, 63)])
def test_schedules_are_those_of_torch(schedule: str, num_epochs: int, steps_per_epoch: int) -> None:
    expected = torchs(schedule, num_epochs * steps_per_epoch)
    got = rates(num_epochs, steps_per_epoch, schedule=schedule)
    assert got == pytest.approx(expected, rel=0, abs=1e-12)


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine"])
@pytest.mark.parametrize(("warmup", "num_steps"), [(0.1, 20), (0.5, 100), (0.003, 1), (0.999, 199)])
def test_warmup_is_that_of_torch(schedule: str, warmup: float, num_steps: int) -> None:
    expected = torchs(schedule, 200, num_warmup_steps=num_steps)
    got = rates(20, 10, schedule=schedule, warmup=warmup)
    assert got == pytest.approx(expected, rel=0, abs=1e-12)


def test_a_stepped_rate_falls_with_the_epochs() -> None:
    """As StepLR does, where the epochs can be divided by three."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
    scheduler = lr_scheduler.StepLR(optimizer, step_size=4, gamma=0.1)
    expected: list[float] = []
    for _ in range(12):
        expected += [optimizer.param_groups[0]["lr"]] * 5
        optimizer.step()
        scheduler.step()
    assert rates(12, 5, schedule="step") == pytest.approx(expected, rel=1e-12)


def test_one_cycle_does_not_read_warmup() -> None:
    assert rates(5, 6, schedule="one_cycle", warmup=0.5) == rates(5, 6, schedule="one_cycle")


def test_the_rate_of_a_constant_schedule_is_the_configured_one() -> None:
    assert rates(2, 3) == [RATE] * 6


runs = st.builds(
    lambda epochs, schedule, warmup, rate: config(
        epochs=epochs, schedule=schedule, warmup=warmup, learning_rate=rate
    ),
    st.integers(1, 40),
    st.sampled_from(SCHEDULES),
    st.floats(0, 1, exclude_max=True),
    st.floats(1e-6, 10),
)


@given(runs, st.integers(1, 50), st.data())
def test_pieces_are_the_whole_to_the_bit(run: Any, steps_per_epoch: int, data: Any) -> None:
    total = run.epochs * steps_per_epoch
    whole = learning_rates(run, 0, total, steps_per_epoch)
    assert whole.dtype == np.float64
    cuts = data.draw(st.lists(st.integers(0, total), max_size=6).map(sorted))
    ends = [*cuts, total]
    pieces = [
        learning_rates(run, start, end - start, steps_per_epoch)
        for start, end in zip([0, *cuts], ends, strict=True)
    ]
    assert np.concatenate(pieces).tobytes() == whole.tobytes()


@given(runs, st.integers(1, 50))
def test_rates_lie_above_zero_and_never_above_the_highest(run: Any, steps_per_epoch: int) -> None:
    total = run.epochs * steps_per_epoch
    whole = learning_rates(run, 0, total, steps_per_epoch)
    assert (whole > 0).all()
    assert (whole <= run.learning_rate * (1 + 1e-15)).all()
    after = learning_rates(run, total, 3, steps_per_epoch)
    assert after.tolist() == [whole[-1]] * 3
