"""Pruning rules as a device applies them: thresholds by epoch.  Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ridgeline.search.engine.config import Direction
from ridgeline.search.predicting import Prediction, predicted


@dataclass(frozen=True)
class PruningRules:
    """The rules of one study, at one version, or of one bracket of it.

    Attributes:
        version: rises whenever the thresholds change; a run that is pruned names it.
        metric: what the thresholds are of.
        direction: which values of the metric are the better ones.
        thresholds: by epoch, counted from 1, what a run must reach to go on.
        predictions: by epoch, of those at which a run is compared by what it is predicted to end
            with.
    """

    version: int
    metric: str
    direction: Direction
    thresholds: Mapping[int, float]
    predictions: Mapping[int, Prediction] = field(default_factory=dict)

    def prunes(
        self, epoch: int, value: float, standings: Mapping[int, float] | None = None
    ) -> bool:
        """Whether a run that stands at `value` after `epoch` is to end there.

        Only one that is strictly worse than the epoch's threshold is: an equal one goes on, and so
        does every run at an epoch that has none.  A run that is over at this epoch anyhow is
        complete, not pruned; its caller asks only for those that would go on.

        Args:
            value: what the run would end with here, the metric at its kept epoch: its best so far
                under early stopping, else that of this epoch.
            standings: by epoch, the same at earlier epochs, for predictions.
        """
        threshold = self.thresholds.get(epoch)
        if threshold is None:
            return False
        value = predicted(value, standings or {}, self.predictions.get(epoch))
        return value < threshold if self.direction == "maximize" else value > threshold
