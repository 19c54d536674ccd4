"""One run, trained from its configuration to its outcome.

run = TrainingRun(config, shape, data)
for report in run.epochs():
    ...                        # break, or close the generator, to end it early
outcome = run.outcome()
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from ridgeline.search.engine.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from ridgeline.search.engine.compiled import CompiledProgram
from ridgeline.search.engine.config import ModelShape, RunConfig
from ridgeline.search.engine.data import DeviceData
from ridgeline.search.engine.native import Kernels
from ridgeline.search.engine.pack import Pack, SlotState, Weights
from ridgeline.search.engine.program import ProgramIdentity
from ridgeline.search.engine.progress import EpochReport, Outcome, Progress
from ridgeline.search.engine.spec import StepSpec

_SLOT = 0
_KEPT = "kept_"


class TrainingRun:
    """A run alone in its pack, on the device and in the float dtype of the data.

    Beside others in a pack of the same program it comes to the same, to the bit.

    Args:
        width: of the pack.
        threads, compiled, kernels: as of a `Pack`.
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
        width: int = 1,
        threads: int = 1,
        compiled: CompiledProgram | None = None,
        kernels: Kernels | None = None,
        checkpoint: bytes | None = None,
    ) -> None:
        self._config, self._shape, self._data = config, shape, data
        dtype = str(data.dtype).removeprefix("torch.")
        spec = StepSpec.of(config, shape, data.train.num_samples, dtype)
        self._pack = Pack(
            spec, data, width=width, threads=threads, compiled=compiled, kernels=kernels
        )
        self._progress = Progress(config, self._pack, _SLOT)
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
        return self._progress.epochs_trained

    def epochs(self) -> Iterator[EpochReport]:
        """Train on, epoch by epoch, until the run is over.

        Between two reports the run may be checkpointed.  Stopping to iterate loses nothing: a later
        call goes on.  No report is given of the epoch in which a run diverges.
        """
        while not self._progress.is_over:
            self._pack.tick(self._pack.ticks_to_epoch_end)
            (values,) = self._pack.epoch_metrics([_SLOT])
            report = self._progress.end_epoch(values)
            if report is None:
                return
            yield report

    def outcome(self) -> Outcome:
        """What has become of the run, up to now.  Evaluates the kept weights on the test data."""
        return self._progress.outcome()

    def checkpoint(self) -> bytes:
        """All that the run needs to go on elsewhere.  Not for a diverged run."""
        epochs_done = self._pack.epochs_done(_SLOT)
        assert self.epochs_trained == epochs_done, "a diverged run has nothing to go on with"
        tensors = dict(self._pack.state(_SLOT).tensors)
        kept = self._progress.kept
        if kept is not None:
            tensors[f"{_KEPT}parameters"] = kept.parameters_P
            tensors[f"{_KEPT}statistics"] = kept.statistics_Q
        metadata = {**self._identity(), "epochs_done": epochs_done, **self._progress.state()}
        return save_checkpoint(tensors, metadata)

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
        kept = None
        if f"{_KEPT}parameters" in tensors:
            for name in ("parameters", "statistics"):
                _check_row(f"{_KEPT}{name}", tensors, sizes[name], self._data.dtype)
            kept = Weights(
                tensors[f"{_KEPT}parameters"].to(self._data.device),
                tensors[f"{_KEPT}statistics"].to(self._data.device),
            )
        state = SlotState({name: tensors[name] for name in sizes}, metadata["epochs_done"])
        self._pack.load(_SLOT, self._config, state)
        self._progress.restore(metadata, kept)


def _check_row(name: str, tensors: dict[str, Tensor], size: int, dtype: torch.dtype) -> None:
    tensor = tensors.get(name)
    if tensor is None or tensor.shape != (size,) or tensor.dtype != dtype:
        raise CheckpointError(f"the checkpoint's {name} does not fit the model")
