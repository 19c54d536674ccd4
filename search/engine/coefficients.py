"""What the steps of runs are worked out with: the rows of `Rate`s and `Constant`s.

# G runs, S steps of an epoch, C columns
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ridgeline.search.engine.config import RunConfig
from ridgeline.search.engine.memory import Constant, Rate
from ridgeline.search.engine.optim import adam_coefficients
from ridgeline.search.engine.penalty import lambda_scale
from ridgeline.search.engine.rates import learning_rates
from ridgeline.search.engine.spec import StepSpec


def constants_row(config: RunConfig, num_samples: int) -> list[float]:
    """A run's `Constant`s."""
    scale = lambda_scale(config, num_samples)
    others = float(config.penalize == "all")
    l1 = config.l1 * scale if config.l1_update == "subgradient" else 0.0
    l2 = 2 * config.l2 * scale
    row = {
        Constant.L1: l1,
        Constant.L1_OTHERS: l1 * others,
        Constant.L2: l2,
        Constant.L2_OTHERS: l2 * others,
        Constant.MOMENTUM: config.momentum,
        Constant.NESTEROV: float(config.nesterov),
        Constant.CLIP_NORM: config.clip_norm,
        Constant.DROPOUT_SCALE: 1 / (1 - config.dropout),
    }
    return [row[column] for column in Constant]


def rate_tables(
    configs: Sequence[RunConfig], first_steps: Sequence[int], spec: StepSpec
) -> NDArray[np.float64]:
    """The `Rate`s of an epoch of each run, float64 [G, S, C].

    Products, quotients and roots only past `learning_rates`, which numpy rounds as Python does:
    a run's are the same bits in any company.

    Args:
        first_steps: of each run's epoch, counted over its life.
    """
    num_steps = spec.num_steps
    rates_GS = np.stack(
        [
            learning_rates(config, first, num_steps, num_steps)
            for config, first in zip(configs, first_steps, strict=True)
        ]
    )
    decay_G1, threshold_G1, others_G1 = (
        np.array(values, dtype=np.float64)[:, None]
        for values in (
            [config.weight_decay for config in configs],
            [_proximal_l1(config, spec.num_samples) for config in configs],
            [config.penalize == "all" for config in configs],
        )
    )
    tables_GSC = np.empty((*rates_GS.shape, len(Rate)))
    if spec.family == "adam":
        scale_GS, epsilon_GS = adam_coefficients(rates_GS, first_steps)
        tables_GSC[:, :, Rate.SCALE], tables_GSC[:, :, Rate.EPSILON] = scale_GS, epsilon_GS
    else:
        tables_GSC[:, :, Rate.SCALE], tables_GSC[:, :, Rate.EPSILON] = rates_GS, 0
    lost_GS, threshold_GS = rates_GS * decay_G1, rates_GS * threshold_G1
    tables_GSC[:, :, Rate.KEEP] = 1 - lost_GS
    tables_GSC[:, :, Rate.KEEP_OTHERS] = 1 - lost_GS * others_G1
    tables_GSC[:, :, Rate.THRESHOLD] = threshold_GS
    tables_GSC[:, :, Rate.THRESHOLD_OTHERS] = threshold_GS * others_G1
    return tables_GSC


def _proximal_l1(config: RunConfig, num_samples: int) -> float:
    return config.l1 * lambda_scale(config, num_samples) if config.l1_update == "proximal" else 0.0
