"""A run in a slot: what its epochs came to, which weights are kept, and whether it goes on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from ridgeline.search.engine.config import RunConfig
from ridgeline.search.engine.pack import METRICS, Pack, Weights
from ridgeline.search.engine.pruning import PruningRules
from ridgeline.search.engine.stopping import EarlyStopping


@dataclass(frozen=True)
class EpochReport:
    """The metrics of one epoch, counted from 1.  Every value is finite.

    `train_loss` and `train_accuracy` are means over the epoch's samples as they were met, in
    training mode and before the step that learned from them; `validation_loss` and
    `validation_accuracy` are those of the weights at the epoch's end, in evaluation mode.  Losses
    are mean cross-entropies in nats, without penalties.  `weight_norm` is √Σw² over the weight
    matrices, `near_zero_share` the share of their entries with |w| < NEAR_ZERO.
    """

    epoch: int
    metrics: dict[str, float]


@dataclass(frozen=True)
class Outcome:
    """What has become of a run.

    Attributes:
        state: `complete` (all epochs, or early stopping), `diverged`, `pruned`, or `stopped` (the
            caller went no further).
        epochs_trained: epochs finished, a diverged one not among them.
        diverged_epoch: the epoch in which a training loss, or after which the validation loss, was
            not finite.
        kept_epoch: whose weights are kept; None for a diverged run, or before any epoch.
        value: the monitored metric at the kept epoch; None where kept_epoch is.
        metrics: the report of the kept epoch with `test_loss` and `test_accuracy` of its weights;
            empty where kept_epoch is None.
        weights: the kept weights by name, on the CPU, as `ParameterLayout` names them; empty where
            kept_epoch is None.
        rule_version: of the rules that pruned it.
    """

    state: Literal["complete", "diverged", "pruned", "stopped"]
    epochs_trained: int
    diverged_epoch: int | None
    kept_epoch: int | None
    value: float | None
    metrics: dict[str, float]
    weights: dict[str, Tensor]
    rule_version: int | None = None


class Progress:
    """Follows one run through the epochs that it spends in one slot of a pack."""

    def __init__(self, config: RunConfig, pack: Pack, slot: int) -> None:
        self.config = config
        self.slot = slot
        self._pack = pack
        self._stopping = EarlyStopping(config.patience, config.min_delta, config.direction)
        self.kept: Weights | None = None
        self._kept_metrics: dict[str, float] = {}
        self._diverged_epoch: int | None = None
        self._rule_version: int | None = None
        self.is_over = False

    @property
    def epochs_trained(self) -> int:
        """Epochs finished, a diverged one not."""
        return self._pack.epochs_done(self.slot) - (self._diverged_epoch is not None)

    def end_epoch(
        self, values: Sequence[float], rules: PruningRules | None = None
    ) -> EpochReport | None:
        """Take in the METRICS of the epoch that has just ended; None where it diverged."""
        epoch = self._pack.epochs_done(self.slot)
        metrics = dict(zip(METRICS, values, strict=True))
        if not all(map(math.isfinite, values)):
            self._diverged_epoch, self.is_over = epoch, True
            return None
        stop = self._stopping.update(metrics[self.config.monitor])
        if self._stopping.kept_epoch == epoch:
            self._kept_metrics = metrics
            # Without patience the kept epoch is the last one: no copy until it is asked for.
            if self.config.patience is not None:
                self.kept = self._pack.weights(self.slot)
        self.is_over = stop or epoch >= self.config.epochs
        if not self.is_over and rules is not None:
            kept_value = self._stopping.kept_value
            assert kept_value is not None
            if rules.prunes(epoch, kept_value):
                self._rule_version, self.is_over = rules.version, True
        return EpochReport(epoch, dict(metrics))

    def outcome(self) -> Outcome:
        """What has become of the run, up to now.  Evaluates the kept weights on the test data."""
        kept_epoch = self._stopping.kept_epoch
        if self._diverged_epoch is not None or kept_epoch is None:
            return Outcome(
                state="stopped" if self._diverged_epoch is None else "diverged",
                epochs_trained=self.epochs_trained,
                diverged_epoch=self._diverged_epoch,
                kept_epoch=None,
                value=None,
                metrics={},
                weights={},
            )
        kept = self.kept or self._pack.weights(self.slot)
        test_loss, test_accuracy = self._pack.test(kept).tolist()
        test = {"test_loss": test_loss, "test_accuracy": test_accuracy}
        if self._rule_version is not None:
            state: Literal["complete", "pruned", "stopped"] = "pruned"
        else:
            state = "complete" if self.is_over else "stopped"
        return Outcome(
            state=state,
            epochs_trained=self.epochs_trained,
            diverged_epoch=None,
            kept_epoch=kept_epoch,
            value=self._stopping.kept_value,
            metrics={**self._kept_metrics, **test},
            weights=self._pack.named(kept),
            rule_version=self._rule_version,
        )

    def state(self) -> dict[str, Any]:
        """Plain JSON data for `restore`, the kept weights aside."""
        return {
            "is_over": self.is_over,
            "stopping": self._stopping.state(),
            "kept_metrics": self._kept_metrics,
        }

    def restore(self, state: dict[str, Any], kept: Weights | None) -> None:
        """Go on from a `state()` of the same run."""
        self.is_over = state["is_over"]
        self._stopping.restore(state["stopping"])
        self._kept_metrics = state["kept_metrics"]
        self.kept = kept
