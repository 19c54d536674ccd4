"""What the service is held against, in a process of its own.

    python -m benchmarks.end_to_end_scripts JOB RESULT HOME

JOB and RESULT are files of JSON, HOME a folder for what it writes, in RIDGELINE_HOME too.

A script is what a person would write: Optuna's `study.optimize` on SQLite storage around a loop of
plain torch with its default threads, run by run (`benchmarks.engine_loops`).  It reports a value at
the end of a trial only; reporting every epoch would cost it more.  Its time starts after the
imports and has the loading of the data in it.

The engine alone trains the same configurations, all given at once, by the program cache of the
service and as many threads as its worker has.  Its time starts when the data are on the device.

All train on the machine's first GPU, or else on its CPU, as the service's worker does.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
import sklearn.datasets  # noqa: F401 (else it would be imported within the script's time)
import torch
from sqlalchemy.engine import URL

from benchmarks.end_to_end_service import wait_for_compilations
from benchmarks.engine_data import NUM_CLASSES, Part, Work
from benchmarks.engine_loops import train_resident, train_with_loader
from benchmarks.studies import StudyWork
from ridgeline.search.engine import DeviceData, LaneOptions, Lanes, Mlp, RunConfig
from ridgeline.search.events import Began
from ridgeline.search.objective import Objective, Penalty
from ridgeline.search.space import Config
from ridgeline.search.tasks.base import RunInput
from ridgeline.search.tasks.datasets import load
from ridgeline.search.tasks.mlp import MlpDefaults, MlpSettings
from ridgeline.search.tasks.settings import Split
from ridgeline.search.tasks.splits import prepare
from ridgeline.search.tasks.training import PreparedRun, Preparer, device_names, open_device
from ridgeline.service import processes
from ridgeline.service.worker.agent import device_specs

_MAX_PASSES = 3
"""Of the engine over its configurations, until nothing is compiled meanwhile."""

Contender = Literal["resident", "loader", "engine", "engine_one_by_one"]


@dataclass(frozen=True)
class Job:
    """What a process is to do.

    Attributes:
        work: the study.
        configs: of the trials, in their order; None has the script's sampler choose.
        run_seeds: of the engine's runs.
        cache: of compiled programs, for the engine.
    """

    contender: Contender
    work: StudyWork
    seed: int
    configs: list[Config] | None
    run_seeds: list[int]
    data_root: str
    cache: str

    @classmethod
    def from_json(cls, text: str) -> Job:
        values = json.loads(text)
        work = values.pop("work")
        work["batch_sizes"] = tuple(work["batch_sizes"])
        return cls(work=StudyWork(**work), **values)

    def as_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))


def main(job_file: str, result_file: str, home: str) -> None:
    processes.watch_parent()
    job = Job.from_json(Path(job_file).read_text())
    result = {
        "resident": _search,
        "loader": _search,
        "engine": _train_at_once,
        "engine_one_by_one": _train_one_by_one,
    }[job.contender](job, Path(home))
    Path(result_file).write_text(json.dumps(result))


def _search(job: Job, home: Path) -> dict[str, Any]:
    """The script: `seconds`, and the `best` value."""
    before = time.perf_counter()
    work, train_one = job.work, _script_loop(job)

    def objective(trial: optuna.Trial) -> float:
        config = RunConfig(
            seed=trial.number,
            learning_rate=trial.suggest_float("learning_rate", 1e-4, 3e-2, log=True),
            batch_size=trial.suggest_categorical("batch_size", work.batch_sizes),
            l2=trial.suggest_float("l2", 1e-6, 1e-2, log=True),
            dropout=trial.suggest_float("dropout", 0.0, 0.6),
            epochs=work.epochs,
        )
        return train_one(config)

    sampler: optuna.samplers.BaseSampler = (
        optuna.samplers.TPESampler(seed=job.seed) if job.configs is None else _Given(job.configs)
    )
    storage = URL.create("sqlite", database=str(home / "optuna.db")).render_as_string()
    search = optuna.create_study(storage=storage, sampler=sampler, direction="maximize")
    search.optimize(objective, n_trials=work.trials)
    return {"seconds": time.perf_counter() - before, "best": search.best_value}


class _Given(optuna.samplers.RandomSampler):
    """Random search whose draws are those of the service's study."""

    def __init__(self, configs: list[Config]) -> None:
        super().__init__()
        self._configs = configs

    def sample_independent(
        self, study: Any, trial: Any, param_name: str, param_distribution: Any
    ) -> Any:
        return self._configs[trial.number][param_name]


def _script_loop(job: Job) -> Callable[[RunConfig], float]:
    """The loop of the contender: trains a run, and gives the accuracy that it ends with."""
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    parts = prepare(load(job.work.name, Path(job.data_root)), Split())
    train, validation = Part(*parts.train), Part(*parts.validation)
    shape = Mlp(train.x_ND.shape[1], (job.work.hidden,), NUM_CLASSES)
    if job.contender == "resident":
        arrays = (parts.train, parts.validation, parts.test)
        data = DeviceData.from_arrays(*arrays, num_classes=NUM_CLASSES, device=device)
        return lambda config: train_resident(data, shape, [config]).accuracies[0]
    name, epochs = job.work.name, job.work.epochs
    work = Work(name, shape, job.work.batch_sizes, 0, epochs, name, train, validation)
    return lambda config: train_with_loader(work, device, [config]).accuracies[0]


def _train_at_once(job: Job, home: Path) -> dict[str, Any]:
    """The engine: `seconds` of the fastest pass, and the form of each run's program in the last."""
    lanes, runs = _engine(job)
    seconds = []
    for _ in range(_MAX_PASSES):
        before = time.perf_counter()
        for key, run in enumerate(runs):
            lanes.add(key, *run)
        programs = _train_all(lanes)
        seconds.append(time.perf_counter() - before)
        if not wait_for_compilations(home) and len(set(programs)) == 1:
            break
    return {"seconds": min(seconds), "programs": programs}


def _train_one_by_one(job: Job, home: Path) -> dict[str, Any]:
    """The engine: the `seconds` of each run alone, and the form of its program."""
    lanes, runs = _engine(job)
    lanes.add("warm-up", *runs[0])  # compiles the native kernels
    _train_all(lanes)
    seconds, programs = [], []
    for key, run in enumerate(runs):
        before = time.perf_counter()
        lanes.add(key, *run)
        programs += _train_all(lanes)
        seconds.append(time.perf_counter() - before)
    return {"seconds": seconds, "programs": programs}


def _engine(job: Job) -> tuple[Lanes, list[PreparedRun]]:
    """Lanes like the worker's by default, and the runs for them, their data on the device."""
    threads = device_specs(None, None, None)[0].threads
    options = LaneOptions(cache=Path(job.cache), threads=threads)
    device = open_device(device_names()[0])
    preparer = Preparer(Path(job.data_root), device)
    task = MlpSettings.model_validate(job.work.task)
    defaults = {**MlpDefaults().model_dump(), "epochs": job.work.epochs}
    penalty = Penalty(penalize="all")
    assert job.configs is not None
    runs = [
        preparer.prepare(
            RunInput(task, {**defaults, **config}, seed, Objective(), None, penalty, None)
        )
        for config, seed in zip(job.configs, job.run_seeds, strict=True)
    ]
    return Lanes(device, options), runs


def _train_all(lanes: Lanes) -> list[str]:
    """Train until no run is left; the form of each run's program."""
    programs = []
    while not lanes.is_idle:
        for event in lanes.advance():
            if isinstance(event, Began):
                programs.append(event.program.partition("/")[0])
    return programs


if __name__ == "__main__":
    main(*sys.argv[1:])
