"""A run in a slot: what its epochs came to, which weights are kept, and whether it goes on.

What training has changed in its slot, and this progress, is all that it needs to go on elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from ridgeline.search.engine.checkpoint import CheckpointError
from ridgeline.search.engine.config import RunConfig
from ridgeline.search.engine.measures import Measures
from ridgeline.search.engine.pack import Pack, Weights
from ridgeline.search.engine.pruning import PruningRules
from ridgeline.search.engine.saved import SavedRun
from ridgeline.search.engine.stopping import EarlyStopping

_RUNS_AT_ONCE = 8
"""That end together and are tested at once: as many as a program on a CPU evaluates, and no more,
since the weights of all of them are copied."""


@dataclass(frozen=True)
class EpochReport:
    """The metrics of one epoch, counted from 1.  Every value is finite.

    `train_loss` and the other metrics of the loss, such as `train_accuracy`, are of the epoch's
    samples as they were met, in training mode and before the step that learned from them;
    `validation_loss` and the like are those of the weights at the epoch's end, in evaluation mode.
    Losses are without penalties.  A run that is judged by one of `metrics` has that one too.
    `weight_norm` is √Σw² over the parameters that the model penalises, `near_zero_share` the share
    of their numbers with |w| < NEAR_ZERO.
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
        diverged_epoch: the epoch in which a training loss, or after which the validation loss or
            what it is judged by, was not finite.
        kept_epoch: whose weights are kept; None for a diverged run, or before any epoch.
        value: the monitored metric at the kept epoch; None where kept_epoch is.
        metrics: the report of the kept epoch with `test_loss` and such as `test_accuracy` of its
            weights, and with all of `metrics` where it is judged by one of them; empty where
            kept_epoch is None.
        measures: what the kept weights look like; of a complete run alone, since they cost too much
            of the time of those that end early, such as pruned ones.
        weights: the kept weights and statistics by the model's names, on the CPU; empty where
            nobody keeps them, or kept_epoch is None.
        rule_version: of the rules that pruned it.
    """

    state: Literal["complete", "diverged", "pruned", "stopped"]
    epochs_trained: int
    diverged_epoch: int | None
    kept_epoch: int | None
    value: float | None
    metrics: dict[str, float]
    measures: Measures | None
    weights: dict[str, Tensor]
    rule_version: int | None = None


class Progress:
    """Follows one run through the epochs that it spends in one slot of a pack."""

    def __init__(self, config: RunConfig, pack: Pack, slot: int) -> None:
        self.config = config
        self.slot = slot
        self._pack = pack
        self._stopping = EarlyStopping.of(config)
        self.kept: Weights | None = None
        self._kept_metrics: dict[str, float] = {}
        self._diverged_epoch: int | None = None
        self._rule_version: int | None = None
        self._standings: dict[int, float] = {}
        self.is_over = False

    def move(self, pack: Pack, slot: int) -> None:
        """Go on in a free slot of this pack, which takes the run over."""
        pack.take_over(slot, self._pack, self.slot)
        self._pack, self.slot = pack, slot

    @property
    def epochs_trained(self) -> int:
        """Epochs finished, a diverged one not."""
        return self._pack.epochs_done(self.slot) - (self._diverged_epoch is not None)

    def end_epoch(
        self, values: Sequence[float], rules: PruningRules | None = None
    ) -> EpochReport | None:
        """Take in the metrics of the epoch that has just ended; None where it diverged."""
        epoch = self._pack.epochs_done(self.slot)
        metrics = dict(zip(self._pack.metrics_of(self.config), values, strict=True))
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
        kept_value = self._stopping.kept_value
        assert kept_value is not None
        self._standings[epoch] = kept_value
        if (
            not self.is_over
            and rules is not None
            and rules.prunes(epoch, kept_value, self._standings)
        ):
            self._rule_version, self.is_over = rules.version, True
        return EpochReport(epoch, dict(metrics))

    def kept_weights(self) -> Weights | None:
        """Those that are kept of the run, up to now; None of a diverged one, or of no epoch."""
        if self._diverged_epoch is not None or self._stopping.kept_epoch is None:
            return None
        return self.kept or self._pack.weights(self.slot)

    def outcome(
        self, kept: Weights | None, tested: Mapping[str, float], *, keep_weights: bool
    ) -> Outcome:
        """What has become of the run, up to now, without measures; see `outcomes`.

        Args:
            kept: its `kept_weights`.
            tested: their metrics on the test data.
        """
        kept_epoch = self._stopping.kept_epoch
        if kept is None:
            return Outcome(
                state="stopped" if self._diverged_epoch is None else "diverged",
                epochs_trained=self.epochs_trained,
                diverged_epoch=self._diverged_epoch,
                kept_epoch=None,
                value=None,
                metrics={},
                measures=None,
                weights={},
            )
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
            metrics={**self._kept_metrics, **tested},
            measures=None,
            weights=self._pack.named(kept) if keep_weights else {},
            rule_version=self._rule_version,
        )

    @property
    def kept_metrics(self) -> Mapping[str, float]:
        """Those of the epoch whose weights are kept."""
        return self._kept_metrics

    def checkpoint(self) -> bytes:
        """All that the run needs to go on elsewhere.  Between epochs; not for a diverged run."""
        assert self._diverged_epoch is None, "a diverged run has nothing to go on with"
        saved = SavedRun(
            program=self._pack.program,
            state=self._pack.state(self.slot),
            stopping=self._stopping,
            kept=self.kept,
            kept_metrics=self._kept_metrics,
            standings=self._standings,
            is_over=self.is_over,
        )
        return saved.as_bytes(self.config, self._pack.spec, self._pack.data)

    def resume(self, saved: SavedRun) -> None:
        """Load the run into its slot, which is free, as it was saved.

        It then goes on after the epoch at which it was, and ends with the same bits as if it had
        never stopped.

        Raises:
            CheckpointError: where the pack is not of its program.
        """
        if saved.program != self._pack.program:
            raise CheckpointError(f"the checkpoint is of another program: {saved.program}")
        device = self._pack.device
        if saved.kept is not None:
            self.kept = Weights(
                saved.kept.parameters_P.to(device), saved.kept.statistics_Q.to(device)
            )
        self._pack.load(self.slot, self.config, saved.state)
        self.is_over = saved.is_over
        self._stopping = saved.stopping
        self._kept_metrics = saved.kept_metrics
        self._standings = dict(saved.standings)


def outcomes(pack: Pack, over: Sequence[tuple[Progress, bool]]) -> list[Outcome]:
    """What has become of runs in this pack, up to now: tests their kept weights, and measures them.

    Of many runs at once, as far as the pack's program evaluates several.

    Args:
        over: the runs, each with whether its kept weights are copied to the CPU, for which the host
            waits.
    """
    found = []
    for start in range(0, len(over), _RUNS_AT_ONCE):
        found += _outcomes(pack, over[start : start + _RUNS_AT_ONCE])
    return found


def _outcomes(pack: Pack, over: Sequence[tuple[Progress, bool]]) -> list[Outcome]:
    kept = {progress: progress.kept_weights() for progress, _ in over}
    # All are tested, then all measured: what is done twice in a row is in the processor's cache.
    weights = {progress: its for progress, its in kept.items() if its is not None}
    configs = [progress.config for progress in weights]
    tested = dict(zip(weights, pack.tested([*weights.values()], configs), strict=True))
    found = {
        progress: progress.outcome(
            kept[progress], tested.get(progress, {}), keep_weights=keep_weights
        )
        for progress, keep_weights in over
    }
    complete = {p: its for p, its in weights.items() if found[p].state == "complete"}
    measured = pack.measured(
        [*complete.values()], [p.config for p in complete], [p.kept_metrics for p in complete]
    )
    for progress, measures in zip(complete, measured, strict=True):
        found[progress] = replace(found[progress], measures=measures)
    return [found[progress] for progress, _ in over]
