"""One run, trained from its configuration to its outcome.

run = TrainingRun(config, shape, data)
for report in run.epochs():
    ...                        # break, or close the generator, to end it early
outcome = run.outcome()
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from search.engine.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from search.engine.config import ModelShape, RunConfig
from search.engine.data import DeviceData
from search.engine.pack import Pack, SlotState, Weights
from search.engine.program import ProgramIdentity
from search.engine.stopping import EarlyStopping

_SLOT = 0
_KEPT = "kept_"


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
        state: `complete` (all epochs, or early stopping), `diverged`, or `stopped` (the caller went
            no further).
        epochs_trained: epochs finished, a diverged one not among them.
        diverged_epoch: the epoch in which a training loss, or after which the validation loss, was
            not finite.
        kept_epoch: whose weights are kept; None for a diverged run, or before any epoch.
        value: the monitored metric at the kept epoch; None where kept_epoch is.
        metrics: the report of the kept epoch with `test_loss` and `test_accuracy` of its weights;
            empty where kept_epoch is None.
        weights: the kept weights by name, on the CPU, as `ParameterLayout` names them; empty where
            kept_epoch is None.
    """

    state: Literal["complete", "diverged", "stopped"]
    epochs_trained: int
    diverged_epoch: int | None
    kept_epoch: int | None
    value: float | None
    metrics: dict[str, float]
    weights: dict[str, Tensor]


class TrainingRun:
    """A run in a pack of one, on the device and in the float dtype of the data.

    Args:
        checkpoint: bytes of `checkpoint()` of the same run; it then goes on after the epoch at
            which they were taken, and ends with the same bits as if it had never stopped.

    Raises:
        ValueError: where shape and data do not fit.
        CheckpointError: where the checkpoint is damaged, or not of this configuration, shape, data
            size and program.
    """

    def __init__(
        self,
        config: RunConfig,
        shape: ModelShape,
        data: DeviceData,
        *,
        checkpoint: bytes | None = None,
    ) -> None:
        self._config, self._shape, self._data = config, shape, data
        self._pack = Pack(
            shape, data, width=1, batch_size=config.batch_size, optimizer=config.optimizer
        )
        self._stopping = EarlyStopping(config.patience, config.min_delta, config.direction)
        self._kept: Weights | None = None
        self._kept_metrics: dict[str, float] = {}
        self._diverged_epoch: int | None = None
        self._is_over = False
        if checkpoint is None:
            self._pack.load(_SLOT, config)
        else:
            self._resume(checkpoint)

    @property
    def program(self) -> ProgramIdentity:
        """The program that trains this run, for life."""
        return self._pack.program

    @property
    def epochs_trained(self) -> int:
        """Epochs finished, those before a checkpoint included, a diverged one not."""
        return self._pack.epochs_done(_SLOT) - (self._diverged_epoch is not None)

    def epochs(self) -> Iterator[EpochReport]:
        """Train on, epoch by epoch, until the run is over.

        Between two reports the run may be checkpointed.  Stopping to iterate loses nothing: a later
        call goes on.  No report is given of the epoch in which a run diverges.
        """
        while not self._is_over:
            for _ in range(self._pack.steps_per_epoch):
                self._pack.tick()
            epoch = self._pack.epochs_done(_SLOT)
            metrics = self._metrics()
            if not all(math.isfinite(value) for value in metrics.values()):
                self._diverged_epoch, self._is_over = epoch, True
                return
            stop = self._stopping.update(metrics[self._config.monitor])
            if self._stopping.kept_epoch == epoch:
                self._kept_metrics = metrics
                # Without patience the kept epoch is the last one: no copy until it is asked for.
                if self._config.patience is not None:
                    self._kept = self._pack.copy_weights(_SLOT)
            self._is_over = stop or epoch >= self._config.epochs
            yield EpochReport(epoch, dict(metrics))

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
        kept = self._kept or self._pack.weights(_SLOT)
        test_loss, test_accuracy = self._pack.evaluate(kept, self._data.test).tolist()
        return Outcome(
            state="complete" if self._is_over else "stopped",
            epochs_trained=self.epochs_trained,
            diverged_epoch=None,
            kept_epoch=kept_epoch,
            value=self._stopping.kept_value,
            metrics={
                **self._kept_metrics,
                "test_loss": test_loss,
                "test_accuracy": test_accuracy,
            },
            weights=self._pack.named(kept),
        )

    def checkpoint(self) -> bytes:
        """All that the run needs to go on elsewhere.  Not for a diverged run."""
        assert self._diverged_epoch is None, "a diverged run has nothing to go on with"
        tensors = dict(self._pack.state(_SLOT).tensors)
        if self._kept is not None:
            tensors[f"{_KEPT}parameters"] = self._kept.parameters_P
            tensors[f"{_KEPT}statistics"] = self._kept.statistics_Q
        metadata = {
            **self._identity(),
            "epochs_done": self._pack.epochs_done(_SLOT),
            "is_over": self._is_over,
            "stopping": self._stopping.state(),
            "kept_metrics": self._kept_metrics,
        }
        return save_checkpoint(tensors, metadata)

    def _metrics(self) -> dict[str, float]:
        """The epoch's metrics: the one place where the host waits for the device."""
        values = torch.cat(
            [
                self._pack.training_metrics(_SLOT),
                self._pack.evaluate(self._pack.weights(_SLOT), self._data.validation),
                self._pack.weight_metrics(_SLOT),
            ]
        ).tolist()
        names = (
            "train_loss",
            "train_accuracy",
            "validation_loss",
            "validation_accuracy",
            "weight_norm",
            "near_zero_share",
        )
        return dict(zip(names, values, strict=True))

    def _identity(self) -> dict[str, Any]:
        """What must be equal for a checkpoint to be of this run; plain JSON data."""
        shape = asdict(self._shape)
        return {
            "config": self._config.as_dict(),
            "shape": {**shape, "hidden": list(self._shape.hidden)},
            "num_train_samples": self._data.train.num_samples,
            "program": str(self.program),
        }

    def _resume(self, checkpoint: bytes) -> None:
        tensors, metadata = load_checkpoint(checkpoint)
        for name, value in self._identity().items():
            if metadata.get(name) != value:
                raise CheckpointError(f"the checkpoint is of another {name}: {metadata.get(name)}")
        sizes = self._pack.state_sizes()
        for name, size in sizes.items():
            _check_row(name, tensors, size, self._data.dtype)
        if f"{_KEPT}parameters" in tensors:
            for name in ("parameters", "statistics"):
                _check_row(f"{_KEPT}{name}", tensors, sizes[name], self._data.dtype)
            self._kept = Weights(
                tensors[f"{_KEPT}parameters"].to(self._data.device),
                tensors[f"{_KEPT}statistics"].to(self._data.device),
            )
        state = SlotState({name: tensors[name] for name in sizes}, metadata["epochs_done"])
        self._pack.load(_SLOT, self._config, state)
        self._stopping.restore(metadata["stopping"])
        self._kept_metrics = metadata["kept_metrics"]
        self._is_over = metadata["is_over"]


def _check_row(name: str, tensors: dict[str, Tensor], size: int, dtype: torch.dtype) -> None:
    tensor = tensors.get(name)
    if tensor is None or tensor.shape != (size,) or tensor.dtype != dtype:
        raise CheckpointError(f"the checkpoint's {name} does not fit the model")
