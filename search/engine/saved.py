"""A run between two packs: all that it needs to go on, and how that is written and read.

# P parameters a slot, Q statistics a slot
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ridgeline.search.engine.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from ridgeline.search.engine.config import RunConfig
from ridgeline.search.engine.data import DeviceData
from ridgeline.search.engine.memory import state_sizes
from ridgeline.search.engine.pack import SlotState, Weights
from ridgeline.search.engine.program import ProgramIdentity
from ridgeline.search.engine.spec import StepSpec
from ridgeline.search.engine.stopping import EarlyStopping

_KEPT = "kept_"
"""Begins the names of the kept weights' tensors in a checkpoint."""


@dataclass(frozen=True, eq=False)
class SavedRun:
    """A run at the end of an epoch; its tensors are on the CPU.

    Attributes:
        program: in which alone it goes on.
        state: what training has changed in its slot.
        stopping: what early stopping has seen.
        kept: the weights that early stopping keeps; None where they are those of the last epoch.
        kept_metrics: of the kept epoch.
        standings: by epoch, the monitored metric at the epoch that was kept then; those that are
            known.
        is_over: whether that was its last epoch.
    """

    program: ProgramIdentity
    state: SlotState
    stopping: EarlyStopping
    kept: Weights | None
    kept_metrics: dict[str, float]
    standings: dict[int, float]
    is_over: bool

    @classmethod
    def read(cls, content: bytes, config: RunConfig, spec: StepSpec, data: DeviceData) -> SavedRun:
        """The run from what `as_bytes` made of it.

        Raises:
            CheckpointError: the content is damaged, or not of this configuration, step and data.
        """
        tensors, metadata = load_checkpoint(content)
        for name, value in _identity(config, spec, data).items():
            its = metadata.get(name)
            if name == "config" and isinstance(its, dict):
                its = {**RunConfig.defaults(), **its}  # it may be older than some of the fields
            if its != value:
                raise CheckpointError(f"the checkpoint is of another {name}: {its}")
        sizes = state_sizes(spec)
        rows = {name: _row(name, tensors, size, data.dtype) for name, size in sizes.items()}
        kept = None
        if f"{_KEPT}parameters" in tensors:
            parameters_P, statistics_Q = (
                _row(f"{_KEPT}{name}", tensors, sizes[name], data.dtype)
                for name in ("parameters", "statistics")
            )
            kept = Weights(parameters_P, statistics_Q)
        stopping = EarlyStopping.of(config)
        try:
            stopping.restore(metadata["stopping"])
            epochs_done, is_over = metadata["epochs_done"], metadata["is_over"]
            program, kept_metrics = metadata["program"], metadata["kept_metrics"]
            standings = metadata.get("standings", ())  # a checkpoint may be older
            if epochs_done not in range(1, config.epochs + 1):
                raise ValueError(f"{epochs_done} epochs of {config.epochs}")
            return cls(
                program=ProgramIdentity.parse(program),
                state=SlotState(rows, epochs_done),
                stopping=stopping,
                kept=kept,
                kept_metrics=dict(kept_metrics),
                standings={int(epoch): float(value) for epoch, value in standings},
                is_over=bool(is_over),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise CheckpointError(f"the checkpoint makes no sense: {exc!r}") from exc

    def as_bytes(self, config: RunConfig, spec: StepSpec, data: DeviceData) -> bytes:
        """The run as bytes for `read`, which must be given the same."""
        tensors = dict(self.state.tensors)
        if self.kept is not None:
            tensors[f"{_KEPT}parameters"] = self.kept.parameters_P
            tensors[f"{_KEPT}statistics"] = self.kept.statistics_Q
        metadata = {
            **_identity(config, spec, data),
            "program": str(self.program),
            "epochs_done": self.state.epochs_done,
            "is_over": self.is_over,
            "stopping": self.stopping.state(),
            "kept_metrics": self.kept_metrics,
            "standings": [*self.standings.items()],
        }
        return save_checkpoint(tensors, metadata)


def _identity(config: RunConfig, spec: StepSpec, data: DeviceData) -> dict[str, Any]:
    """What must be equal for a checkpoint to be of a run; plain JSON data."""
    return {
        "config": config.as_dict(),
        "model": json.loads(json.dumps(spec.model.as_dict())),  # no tuples
        "loss": spec.loss,
        "data": data.fingerprint,
    }


def _row(name: str, tensors: dict[str, Tensor], size: int, dtype: torch.dtype) -> Tensor:
    tensor = tensors.get(name)
    if tensor is None or tensor.shape != (size,) or tensor.dtype != dtype:
        raise CheckpointError(f"the checkpoint's {name} does not fit the model")
    return tensor
