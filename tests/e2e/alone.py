"""What the engine comes to when it is called directly, with no run beside."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ridgeline.search.engine import Outcome, ProgramIdentity, TrainingRun, native
from ridgeline.search.engine.native import Kernels
from ridgeline.search.space import Config
from ridgeline.search.spec import StudySpec
from ridgeline.search.tasks.base import RunInput
from ridgeline.search.tasks.training import Preparer, open_device


@contextmanager
def preparer() -> Iterator[Preparer]:
    """Prepares runs as a worker with one thread does."""
    threads = torch.get_num_threads()
    try:
        yield Preparer(None, open_device("cpu:0"))
    finally:
        torch.set_num_threads(threads)


@cache
def kernels() -> Kernels | None:
    """The native kernels, compiled for the tests."""
    with tempfile.TemporaryDirectory() as folder:
        return native.kernels(Path(folder))


def run_input(spec: StudySpec, config: Config, seed: int) -> RunInput[Any]:
    """A run of a study, as a worker is told of it."""
    return RunInput(
        task=spec.task,
        config=spec.run_config(config),
        seed=seed,
        objective=spec.objective,
        early_stopping=spec.early_stopping,
        penalty=spec.penalty,
        data_fingerprint=None,
    )


def outcome_alone(
    preparer: Preparer, spec: StudySpec, config: Config, seed: int, program: str
) -> Outcome:
    """The outcome of a run of a study, trained by this program, the other slots left empty."""
    identity = ProgramIdentity.parse(program)
    assert identity.form in ("eager", "native")
    prepared = preparer.prepare(run_input(spec, config, seed))
    alone = TrainingRun(
        *prepared,
        width=identity.width,
        threads=identity.threads,
        kernels=kernels() if identity.form == "native" else None,
    )
    assert str(alone.program) == program
    list(alone.epochs())
    return alone.outcome()
