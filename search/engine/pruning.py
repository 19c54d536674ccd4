"""Pruning rules as a device applies them: thresholds by epoch.  Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ridgeline.search.engine.config import Direction


@dataclass(frozen=True)
class PruningRules:
    """The rules of one study, at one version.

    Attributes:
        version: rises whenever the thresholds change; a run that is pruned names it.
        metric: what the thresholds are of.
        direction: which values of the metric are the better ones.
        thresholds: by epoch, counted from 1, what a run must reach to go on.
    """

    version: int
    metric: str
    direction: Direction
    thresholds: Mapping[int, float]

    def prunes(self, epoch: int, value: float) -> bool:
        """Whether a run that stands at `value` after `epoch` is to end there.

        Only one that is strictly worse than the epoch's threshold is: an equal one goes on, and so
        does every run at an epoch that has none.  A run that is over at this epoch anyhow is
        complete, not pruned; its caller asks only for those that would go on.

        Args:
            value: what the run would end with here, the metric at its kept epoch: its best so far
                under early stopping, else that of this epoch.
        """
        threshold = self.thresholds.get(epoch)
        if threshold is None:
            return False
        return value < threshold if self.direction == "maximize" else value > threshold
