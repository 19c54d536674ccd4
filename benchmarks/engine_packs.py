"""The engine as a contender: all that the benchmark asks of `search.engine` past data stands here.

# K slots
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine_loops import Training, synchronise
from ridgeline.search.engine import (
    Began,
    DeviceData,
    LaneOptions,
    Lanes,
    Mlp,
    Over,
    Pack,
    Reported,
    RunConfig,
    TrainingRun,
)
from ridgeline.search.engine.admission import Widths, compiled_width, prior_width
from ridgeline.search.engine.compilation import Compilation
from ridgeline.search.engine.compiled import CompiledProgram, Job
from ridgeline.search.engine.losses import LOSSES, epoch_metrics
from ridgeline.search.engine.models.base import Model
from ridgeline.search.engine.native import kernels
from ridgeline.search.engine.spec import StepSpec
from ridgeline.search.engine.threads import threads_for_step

ACCURACY = epoch_metrics(LOSSES["cross_entropy"]).index("validation_accuracy")


def num_threads(device: torch.device) -> int:
    """Threads of the device that packs train on side by side."""
    return torch.get_num_threads() if device.type == "cpu" else 1


class Packs:
    """Lanes for the runs of one model and data set; every run added waits for a slot.

    Args:
        width: of every pack; None takes the engine's own.
        cache: the folder of compiled programs; None steps eagerly.
    """

    def __init__(
        self, shape: Model, data: DeviceData, *, width: int | None, cache: Path | None
    ) -> None:
        self._shape, self._data, self._width, self._cache = shape, data, width, cache
        self._threads = num_threads(data.device)
        self._lanes = Lanes(
            data.device,
            LaneOptions(width=width, compile=cache is not None, cache=cache, threads=self._threads),
        )

    def num_slots(self, config: RunConfig) -> int:
        """The number of slots of the packs that train such runs side by side."""
        spec = _spec(config, self._shape, self._data)
        width = self._width or self._fixed_width(config)
        return self._threads * (width or compiled_width(spec, self._data.device))

    def compile(self, config: RunConfig) -> float:
        """Have what trains such a run at hand; the seconds that took, 0 where it was."""
        if self._cache is None:
            return 0.0
        width = self._width or self._fixed_width(config)
        return _form(config, self._shape, self._data, self._cache, width or 1)[1]

    def _fixed_width(self, config: RunConfig) -> int | None:
        """The width that the engine finds best for programs of this model; None where any is."""
        spec, device = _spec(config, self._shape, self._data), self._data.device
        is_native = self._cache is not None and spec.native() is not None
        if not self._shape.fixes_sizes or is_native:
            return None
        threads = threads_for_step(spec.model.step_flops(spec.batch_size), device, self._threads)
        has_kernels = self._cache is not None and threads == 1
        return Widths(self._cache).best(
            *(spec, self._data, config, prior_width(spec, device), threads),
            form="native" if has_kernels else "eager",
        )

    def train(self, configs: Sequence[RunConfig]) -> Training:
        """Add all the runs at once, and train until the last is over.

        Raises:
            RuntimeError: one of them diverged or failed.
        """
        synchronise(self._data.device)
        start = now = time.perf_counter()
        for key, config in enumerate(configs):
            self._lanes.add(key, config, self._shape, self._data)
        began: dict[object, float] = {}
        accuracies: dict[object, float] = {}
        programs: set[str] = set()
        slot_seconds, num_epochs = 0.0, 0
        while not self._lanes.is_idle:
            before, events, now = now, self._lanes.advance(), time.perf_counter()
            for event in events:
                if isinstance(event, Began):
                    began[event.key] = before
                    programs.add(str(event.program))
                elif isinstance(event, Reported):
                    num_epochs += 1
                    accuracies[event.key] = event.report.metrics["validation_accuracy"]
                elif isinstance(event, Over) and event.outcome.state == "complete":
                    slot_seconds += now - began[event.key]
                else:
                    raise RuntimeError(f"a run went wrong: {event}")
        synchronise(self._data.device)
        seconds = time.perf_counter() - start
        return Training(
            num_samples=num_epochs * self._data.train.num_samples,
            seconds=seconds,
            accuracies=tuple(accuracies[key] for key in range(len(configs))),
            programs=frozenset(programs),
            occupancy=slot_seconds / (self.num_slots(configs[0]) * (now - start)),
        )


class Solo:
    """The engine with one run at a time, which has all threads of a CPU.

    Args:
        cache: the folder of compiled programs; None steps eagerly.
    """

    def __init__(self, shape: Mlp, data: DeviceData, *, cache: Path | None) -> None:
        self._shape, self._data, self._cache = shape, data, cache
        self._threads = num_threads(data.device)
        self._program: dict[Job, CompiledProgram] = {}

    def compile(self, config: RunConfig) -> float:
        """Have the program for such a run at hand; the seconds that took, 0 where it was."""
        return 0.0 if self._cache is None else _compile(self._job(config), self._cache)

    def train(self, configs: Sequence[RunConfig]) -> Training:
        """Train the runs one after the other.

        Raises:
            RuntimeError: one of them diverged.
        """
        synchronise(self._data.device)
        start = time.perf_counter()
        accuracies: list[float] = []
        programs: set[str] = set()
        for config in configs:
            run = TrainingRun(
                config,
                self._shape,
                self._data,
                threads=self._threads,
                compiled=self._compiled(config),
            )
            *_, last = run.epochs()
            if run.outcome().state != "complete":
                raise RuntimeError("a run diverged")
            accuracies.append(last.metrics["validation_accuracy"])
            programs.add(str(run.program))
        synchronise(self._data.device)
        return Training(
            num_samples=self._data.train.num_samples * sum(config.epochs for config in configs),
            seconds=time.perf_counter() - start,
            accuracies=tuple(accuracies),
            programs=frozenset(programs),
        )

    def _job(self, config: RunConfig) -> Job:
        return Job.of(_spec(config, self._shape, self._data), self._data, self._threads)

    def _compiled(self, config: RunConfig) -> CompiledProgram | None:
        if self._cache is None:
            return None
        job = self._job(config)
        if job not in self._program:
            self._program[job] = _program(job, self._cache)
        return self._program[job]


def open_pack(
    config: RunConfig, shape: Mlp, data: DeviceData, width: int, cache: Path | None
) -> tuple[Pack, float]:
    """A pack for such runs on one thread, and the seconds that compiling for it took."""
    form, seconds = ({}, 0.0) if cache is None else _form(config, shape, data, cache)
    return Pack(_spec(config, shape, data), data, width=width, **form), seconds


def _form(
    config: RunConfig, shape: Model, data: DeviceData, cache: Path, width: int = 1
) -> tuple[dict[str, Any], float]:
    """What a pack is given to step fast, as `Lanes` does; the seconds it took.

    Args:
        width: of the pack, where a program is for one width.
    """
    start = time.perf_counter()
    native = kernels(cache)
    if native is not None and shape.native("cross_entropy") is not None:
        return {"kernels": native}, time.perf_counter() - start
    spec = _spec(config, shape, data)
    threads = threads_for_step(
        spec.model.step_flops(spec.batch_size), data.device, num_threads(data.device)
    )
    job = Job.of(spec, data, threads, width)
    seconds = _compile(job, cache)
    return {"compiled": _program(job, cache)}, seconds


def _program(job: Job, cache: Path) -> CompiledProgram:
    native = kernels(cache)
    if native is None:
        raise RuntimeError("the native kernels cannot be compiled")
    return CompiledProgram(cache / job.name, native, job)


def _spec(config: RunConfig, shape: Model, data: DeviceData) -> StepSpec:
    dtype = str(data.train.x.dtype).removeprefix("torch.")
    return StepSpec.of(config, shape, data.train.num_samples, dtype)


def _compile(job: Job, cache: Path) -> float:
    """Compile in a process of its own, as `Lanes` does, with the device otherwise at rest."""
    folder = cache / job.name
    if folder.exists():
        return 0.0
    start = time.perf_counter()
    Compilation(job, folder, hurry=True).finish()
    return time.perf_counter() - start
