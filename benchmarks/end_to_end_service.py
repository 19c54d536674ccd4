"""The service's side of the end-to-end benchmark: a real `ridgeline up`, seen through its API."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.rows import tell
from ridgeline.search.space import Config
from ridgeline.service import processes
from ridgeline.service.cli.sockets import free_port
from ridgeline.service.client import Client
from ridgeline.service.lifecycle import StudyState
from ridgeline.service.resources import Study, Trial

_START_SECONDS = 120.0
_STOP_SECONDS = 40.0
_POLL_SECONDS = 0.25
"""Seldom, since each of two answers costs the api 3 ms of the cores that train."""

_COMPILE_SECONDS = 900.0
"""How long compilations are waited for."""


@dataclass(frozen=True)
class StudySeen:
    """What a person sees of a study that has ended.

    Attributes:
        seconds: from before the POST until the service's `finished_at`, on one machine's clock.
        first_finished_seconds: from before the POST until the first trial had ended.
        occupancy: the share of `seconds` in which the device had a run in training.
        idle_slots: of packs in training, as the worker says; the mean over the polls.
        programs: how many runs were trained by each form of program.
    """

    seconds: float
    first_finished_seconds: float
    occupancy: float
    idle_slots: float
    programs: dict[str, int]
    num_complete: int
    best_value: float
    configs: tuple[Config, ...]
    run_seeds: tuple[int, ...]

    @classmethod
    def of(
        cls, study: Study, trials: list[Trial], posted_at: float, idle_slots: float
    ) -> StudySeen:
        assert study.finished_at is not None
        assert study.best is not None
        seconds = study.finished_at - posted_at
        ended = [trial.finished_at for trial in trials if trial.finished_at is not None]
        runs = [run for trial in trials for run in trial.runs]
        forms = Counter((run.program or "none").partition("/")[0] for run in runs)
        return cls(
            seconds=seconds,
            first_finished_seconds=min(ended) - posted_at,
            occupancy=study.device_seconds / seconds,
            idle_slots=idle_slots,
            programs=dict(forms),
            num_complete=study.trials.complete,
            best_value=study.best.value,
            configs=tuple(trial.config for trial in trials),
            run_seeds=tuple(run.seed for run in runs),
        )


class Service:
    """A running `ridgeline up`."""

    def __init__(self, client: Client, home: Path) -> None:
        self._client = client
        self._home = home

    def run_study(self, spec: dict[str, Any]) -> StudySeen:
        """Post a study and wait until it is COMPLETED.

        Raises:
            RuntimeError: it has ended otherwise.
        """
        posted_at = time.time()
        study = self._client.create_study(spec)
        idle_slots = []
        while study.finished_at is None:
            time.sleep(_POLL_SECONDS)
            study = self._client.study(study.name)
            idle_slots.append(sum(sum(w.idle_slots.values()) for w in self._client.workers()))
        if study.state is not StudyState.COMPLETED:
            raise RuntimeError(f"study {study.name} is {study.state}: {study.reason}")
        trials = list(self._client.trials(study.name))
        return StudySeen.of(study, trials, posted_at, statistics.mean(idle_slots))

    def wait_until_quiet(self) -> None:
        """Return once the worker has no run, and nothing is being compiled for it."""
        _wait(
            lambda: not any(worker.num_runs for worker in self._client.workers()), _COMPILE_SECONDS
        )
        wait_for_compilations(self._home)


@contextmanager
def running_service(folder: Path, cache: Path, data_root: Path) -> Iterator[Service]:
    """`ridgeline up` on a free port for the time of the block, its worker registered.

    Args:
        folder: for its home and its log.
        cache: the folder of its compiled programs.
    """
    home, url = folder / "home", f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-P", "-m", "ridgeline.service.cli", "up", "--die-with-parent"]
    command += ["--home", str(home), "--port", str(port), "--data-root", str(data_root)]
    with (folder / "up.log").open("wb") as output:
        up = processes.spawn(command, env=environment(cache=cache), output=output)
    try:
        with Client(url) as client:

            def is_ready() -> bool:
                if up.poll() is not None:
                    raise RuntimeError((folder / "up.log").read_text(errors="replace"))
                return client.is_ready() and any(w.state == "LIVE" for w in client.workers())

            _wait(is_ready, _START_SECONDS)
            yield Service(client, home)
    finally:
        processes.terminate(up, grace_seconds=_STOP_SECONDS)


def environment(*, cache: Path | None = None, home: Path | None = None) -> dict[str, str]:
    """That of this process, but for settings of the service, which are these alone."""
    env = {name: text for name, text in os.environ.items() if not name.startswith("RIDGELINE_")}
    settings = {"RIDGELINE_CACHE_DIR": cache, "RIDGELINE_HOME": home}
    return env | {name: str(path) for name, path in settings.items() if path is not None}


def wait_for_compilations(home: Path) -> bool:
    """Return once none goes on for this home folder; whether there was one."""
    if not _num_compiling(home):
        return False
    tell("  waiting for compilations to end")
    _wait(lambda: not _num_compiling(home), _COMPILE_SECONDS)
    return True


def _num_compiling(home: Path) -> int:
    """Processes that compile; they inherit the environment of the worker they compile for."""
    mark, found = f"RIDGELINE_HOME={home}\0".encode(), 0
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                found += b"ridgeline.search.engine.compiling" in (entry / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def _wait(condition: Callable[[], bool], seconds: float) -> None:
    """Return once the condition holds.

    Raises:
        TimeoutError: it does not in so many seconds.
    """
    gives_up_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > gives_up_at:
            raise TimeoutError(f"waited {seconds:g} seconds in vain")
        time.sleep(_POLL_SECONDS)
