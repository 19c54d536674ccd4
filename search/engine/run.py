"""One run, trained from its configuration to its outcome.

run = TrainingRun(config, model, data)
for report in run.epochs():
    ...                        # break, or close the generator, to end it early
outcome = run.outcome()
"""

from __future__ import annotations

from collections.abc import Iterator

from ridgeline.search.engine.compiled import CompiledProgram
from ridgeline.search.engine.config import RunConfig
from ridgeline.search.engine.data import DeviceData
from ridgeline.search.engine.models.base import Model
from ridgeline.search.engine.native import Kernels
from ridgeline.search.engine.pack import Pack
from ridgeline.search.engine.program import ProgramIdentity
from ridgeline.search.engine.progress import EpochReport, Outcome, Progress, outcomes
from ridgeline.search.engine.saved import SavedRun
from ridgeline.search.engine.spec import StepSpec

_SLOT = 0


class TrainingRun:
    """A run alone in its pack, on the device and in the float dtype of the data.

    Beside others in a pack of the same program it comes to the same, to the bit.

    Args:
        width: of the pack.
        threads, compiled, kernels: as of a `Pack`; a compiled program must have the regularisers of
            the run, and no others.
        checkpoint: to go on from, see `SavedRun` and `Progress.resume`.

    Raises:
        ValueError: where model and data do not fit.
        CheckpointError: where the checkpoint is damaged, or not of this configuration, model, data
            and program.
    """

    def __init__(
        self,
        config: RunConfig,
        model: Model,
        data: DeviceData,
        *,
        width: int = 1,
        threads: int = 1,
        compiled: CompiledProgram | None = None,
        kernels: Kernels | None = None,
        checkpoint: bytes | None = None,
    ) -> None:
        dtype = str(data.dtype).removeprefix("torch.")
        spec = StepSpec.of(config, model, data.train.num_samples, dtype)
        spec = spec.regularising(config.regularisers)
        self._pack = Pack(
            spec, data, width=width, threads=threads, compiled=compiled, kernels=kernels
        )
        self._progress = Progress(config, self._pack, _SLOT)
        if checkpoint is None:
            self._pack.load(_SLOT, config)
        else:
            self._progress.resume(SavedRun.read(checkpoint, config, spec, data))

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
        """What has become of the run, up to now, with its weights; tests and measures them."""
        (outcome,) = outcomes(self._pack, [(self._progress, True)])
        return outcome

    def checkpoint(self) -> bytes:
        """See `Progress.checkpoint`."""
        return self._progress.checkpoint()
