"""The learning rate of each step of a run's life, in closed form.

A rate follows from the configuration and the number of the step alone, not from the rate before it:
a run that goes on from a checkpoint, or in another pack, meets the same bits.

# S steps asked for, T steps of the whole run, W of them warm-up
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ridgeline.search.engine.config import RunConfig, ScheduleName

_STEP_FACTORS = np.array([1.0, 0.1, 0.01])

# As torch's OneCycleLR has them: where it is highest, and highest/first and first/last.
_RISING_SHARE = 0.3
_DIV_FACTOR = 25.0
_FINAL_DIV_FACTOR = 1e4


def learning_rates(
    config: RunConfig, first_step: int, num_steps: int, steps_per_epoch: int
) -> NDArray[np.float64]:
    """The rates of the steps first_step, …, first_step + num_steps - 1, counted from 0.

    With T = epochs·steps_per_epoch, W = warmup·T to the nearest whole number but less than T, and
    η the highest rate, step t has

    * for t < W: η·(t + 1)/(W + 1), the linear warm-up of Goyal et al. ("Accurate, large minibatch
      SGD", 2017).  No step is wasted on rate 0, and step W is the first with all of η.
    * else, with u = t - W and U = T - W:

      * constant: η
      * step: η·0.1^⌊3u/U⌋, a tenth after each third
      * cosine: η·(1 + cos(π·u/U))/2, towards 0 at step T, the first that is not taken (Loshchilov
        and Hutter, "SGDR", 2017, eq. 5, without restarts)

    one_cycle has no warm-up but its own.  It goes along half cosines from η/25 up to η at step
    0.3·T - 1 and down to η/250,000 at step T - 1 (Smith and Topin, "Super-convergence", 2017), as
    `torch.optim.lr_scheduler.OneCycleLR` does by default, but for momentum, which stays.

    A step past the last has the rate of the last.

    Returns:
        float64 [S], S = num_steps.
    """
    total = config.epochs * steps_per_epoch
    return config.learning_rate * _factors(
        config.schedule, config.warmup, total, first_step, num_steps
    )


@lru_cache(maxsize=64)
def _factors(
    schedule: ScheduleName, warmup_share: float, total: int, first_step: int, num_steps: int
) -> NDArray[np.float64]:
    """Shares of the highest rate; most slots of a pack ask for the same."""
    steps_S = np.minimum(np.arange(first_step, first_step + num_steps), total - 1)
    if schedule == "one_cycle":
        return _one_cycle(steps_S, total)
    warmup = min(round(warmup_share * total), total - 1)
    ramp_S = np.minimum((steps_S + 1) / (warmup + 1), 1.0)
    # Where the ramp still rises, what follows it is at its beginning: a factor of 1.
    return ramp_S * _after_warmup(schedule, np.maximum(steps_S - warmup, 0), total - warmup)


def _after_warmup(
    schedule: ScheduleName, steps_S: NDArray[np.int64], total: int
) -> NDArray[np.float64]:
    if schedule == "step":
        return _STEP_FACTORS[3 * steps_S // total]
    if schedule == "cosine":
        return _half_cosine(steps_S / total)
    return np.ones(len(steps_S))


def _one_cycle(steps_S: NDArray[np.int64], total: int) -> NDArray[np.float64]:
    first, last = 1 / _DIV_FACTOR, 1 / _DIV_FACTOR / _FINAL_DIV_FACTOR
    # Not a whole number; below 0 for a run of three steps or fewer, which then only falls.
    top = _RISING_SHARE * total - 1
    rises_S = steps_S <= top
    share_S = np.where(rises_S, steps_S / top, (steps_S - top) / (total - 1 - top))
    start_S, end_S = np.where(rises_S, first, 1.0), np.where(rises_S, 1.0, last)
    return end_S + (start_S - end_S) * _half_cosine(share_S)


def _half_cosine(share_S: NDArray[np.float64]) -> NDArray[np.float64]:
    """From 1 to 0 as the share goes from 0 to 1."""
    return (1 + np.cos(np.pi * share_S)) / 2
