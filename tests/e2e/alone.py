"""What the engine comes to when it is called directly, with no run beside."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from ridgeline.search import engine
from ridgeline.search.engine import Outcome, ProgramIdentity, TrainingRun, native
from ridgeline.search.engine.native import Kernels
from ridgeline.search.space import Config
from ridgeline.search.spec import StudySpec
from ridgeline.search.tasks.training import RunInput, Trainer


@contextmanager
def trainer() -> Iterator[Trainer]:
    """Prepares runs as a worker with one thread does."""
    threads = torch.get_num_threads()
    try:
        yield Trainer(None, "cpu:0", engine.LaneOptions(compile=False))
    finally:
        torch.set_num_threads(threads)


@cache
def kernels() -> Kernels | None:
    """The native kernels, compiled for the tests."""
    with tempfile.TemporaryDirectory() as folder:
        return native.kernels(Path(folder))


def outcome_alone(
    trainer: Trainer, spec: StudySpec, config: Config, seed: int, program: str
) -> Outcome:
    """The outcome of a run of a study, trained by this program, the other slots left empty."""
    identity = ProgramIdentity.parse(program)
    assert identity.form in ("eager", "native")
    prepared = trainer.prepare(
        RunInput(
            task=spec.task,  # type: ignore[arg-type]
            config=spec.run_config(config),
            seed=seed,
            objective=spec.objective,
            early_stopping=spec.early_stopping,
            penalty=spec.penalty,
            data_fingerprint=None,
        )
    )
    alone = TrainingRun(
        *prepared,
        width=identity.width,
        threads=identity.threads,
        kernels=kernels() if identity.form == "native" else None,
    )
    assert str(alone.program) == program
    list(alone.epochs())
    return alone.outcome()
