"""The contenders of the end-to-end benchmark, in turn, each in processes of its own."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.end_to_end_scripts import Contender, Job
from benchmarks.end_to_end_service import StudySeen, environment, running_service
from benchmarks.rows import tell
from benchmarks.studies import StudyWork
from ridgeline.search.samplers.random import draws
from ridgeline.search.space import Config, Space
from ridgeline.search.tasks.datasets import load
from ridgeline.search.tasks.settings import Split
from ridgeline.search.tasks.splits import split_column
from ridgeline.service import processes

STATES = ("cold", "warm")

_WORST: Config = {"learning_rate": 0.024, "l2": 0.0012}
"""With batches of 32, where Adam's moments become denormal numbers."""

_SLOW_SEED = 7

Result = dict[str, Any]


@dataclass
class Rounds:
    """What the rounds of one study and sampler came to, in order.

    Attributes:
        seen: by state, our study of each round.
        results: of each other contender, by its name; of the loader the first round's alone.
    """

    seen: dict[str, list[StudySeen]] = field(default_factory=dict)
    results: dict[Contender, list[Result]] = field(default_factory=dict)


class Contenders:
    """Runs studies, scripts and the engine.

    Args:
        scratch: for all that they write.
        data_root: of the service; has MNIST in its folder mnist.
    """

    def __init__(self, scratch: Path, data_root: Path) -> None:
        self._scratch = scratch
        self._data_root = data_root
        self._numbers = itertools.count(1)

    def num_samples(self, work: StudyWork) -> int:
        """Training samples of a whole study, each counted once an epoch."""
        rows = split_column(load(work.name, self._data_root), Split())
        return len(rows.train) * work.epochs * work.trials

    def measure(
        self,
        work: StudyWork,
        sampler: str,
        states: Sequence[str],
        num_rounds: int,
        *,
        with_loader: bool,
    ) -> Rounds:
        """All contenders, round by round."""
        rounds = Rounds()
        for seed in range(1, num_rounds + 1):
            tell(f"{work.name}, {sampler}, round {seed} of {num_rounds}")
            cache = self._folder()
            for state, seen in self._studies(work, sampler, seed, cache, states):
                rounds.seen.setdefault(state, []).append(seen)
            ours = rounds.seen[states[-1]][-1]
            configs, run_seeds = list(ours.configs), list(ours.run_seeds)
            given = configs if sampler == "random" else None
            job = Job("resident", work, seed, given, run_seeds, str(self._data_root), str(cache))
            jobs = [job, replace(job, contender="engine", configs=configs)]
            if with_loader and seed == 1:
                jobs.append(replace(job, contender="loader"))
            for each in jobs:
                rounds.results.setdefault(each.contender, []).append(self._run(each))
        return rounds

    def one_by_one(self, work: StudyWork, num_configs: int) -> tuple[list[Config], Result]:
        """Some random configurations, as many of each batch size, trained one by one."""
        configs = _spread_configs(work, num_configs)
        job = Job(
            "engine_one_by_one",
            work,
            _SLOW_SEED,
            configs,
            [_SLOW_SEED] * num_configs,
            str(self._data_root),
            str(self._folder()),
        )
        return configs, self._run(job)

    def _studies(
        self, work: StudyWork, sampler: str, seed: int, cache: Path, states: Sequence[str]
    ) -> Iterator[tuple[str, StudySeen]]:
        """Our study, in each state that is asked for."""
        with running_service(self._folder(), cache, self._data_root) as service:
            for state in STATES:
                if state == "warm":
                    service.wait_until_quiet()
                if state == "warm" and state not in states:
                    return
                seen = service.run_study(work.spec(state, sampler, seed))
                tell(f"  {state}: {seen.seconds:.1f} s, {seen.programs}")
                if state in states:
                    yield state, seen

    def _run(self, job: Job) -> Result:
        """Have a process do a job.

        Raises:
            RuntimeError: it has failed; the text is what it printed.
        """
        folder = self._folder()
        order, result, log = (folder / name for name in ("job.json", "result.json", "log"))
        order.write_text(job.as_json())
        command = [sys.executable, "-m", "benchmarks.end_to_end_scripts"]
        command += [str(order), str(result), str(folder)]
        with log.open("wb") as output:
            process = processes.spawn(command, env=environment(home=folder), output=output)
        try:
            if process.wait() != 0:
                raise RuntimeError(f"{job.contender} failed: {log.read_text(errors='replace')}")
        finally:
            processes.terminate(process, grace_seconds=1)
        found: Result = json.loads(result.read_text())
        seconds = found["seconds"]
        tell(f"  {job.contender}: {seconds if isinstance(seconds, float) else sum(seconds):.1f} s")
        return found

    def _folder(self) -> Path:
        """A new one, for this user alone, as the worker demands of its cache."""
        folder = self._scratch / str(next(self._numbers))
        folder.mkdir(mode=0o700)
        return folder


def _spread_configs(work: StudyWork, num_configs: int) -> list[Config]:
    """Random configurations over the batch sizes in turn; the first one is the worst corner."""
    drawn = draws(Space.model_validate(work.space), 0, _SLOW_SEED)
    sizes = itertools.cycle(work.batch_sizes)
    configs = [{**next(drawn).config, "batch_size": next(sizes)} for _ in range(num_configs)]
    configs[0] |= _WORST
    return configs
