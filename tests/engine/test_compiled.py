"""Compiled programs: right against the plain loop, and the same bits whoever rides along."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from torch.testing import assert_close

from ridgeline.search.engine import compiling, native
from ridgeline.search.engine.compilation import INDUCTOR_CACHE, Compilation
from ridgeline.search.engine.compiled import CompiledProgram, Job
from ridgeline.search.engine.native import SCRATCH_PREFIX
from ridgeline.search.engine.pack import Pack
from ridgeline.search.engine.programs import Programs
from ridgeline.search.scratch import scratch_folder
from tests.engine.plain import train_plainly
from tests.engine.program_checks import (
    CASES,
    check_that_a_slot_without_a_run_is_frozen,
    check_that_denormals_are_flushed,
    check_that_it_agrees_with_the_plain_loop,
    check_that_neighbours_slots_and_refills_change_no_bit,
)
from tests.engine.sets import step_spec
from tests.parallel import locked

pytestmark = pytest.mark.slow

TWO_THREADS = "adam64 on two threads"
JOBS = {
    **{name: Job.of(case.spec, case.data, threads=1) for name, case in CASES.items()},
    TWO_THREADS: Job.of(CASES["adam64"].spec, CASES["adam64"].data, threads=2),
}


@pytest.fixture(scope="session")
def folder(shared_folder: Path) -> Path:
    """The programs of all cases, each made by the process that makes them in a worker."""
    folder = shared_folder / "programs"
    paths = {folder / job.name: job for job in JOBS.values()}
    with locked(shared_folder / "programs.lock"):
        if not all(path.exists() for path in paths):
            folder.mkdir(exist_ok=True)
            compilations = [Compilation(job, path, hurry=True) for path, job in paths.items()]
            for compilation in compilations:
                compilation.finish()
            assert set(folder.iterdir()) == {*paths, folder / INDUCTOR_CACHE}
    return folder


@pytest.fixture(scope="session")
def compiled(folder: Path, one_thread: None) -> dict[str, CompiledProgram]:
    kernels = native.kernels(folder)
    assert kernels is not None, "the tests need a C++ compiler"
    return {name: CompiledProgram(folder / job.name, kernels, job) for name, job in JOBS.items()}


@pytest.fixture(params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_neighbours_slots_and_refills_change_no_bit(
    name: str, compiled: dict[str, CompiledProgram]
) -> None:
    check_that_neighbours_slots_and_refills_change_no_bit(CASES[name], {"compiled": compiled[name]})


def test_a_slot_without_a_run_is_frozen(name: str, compiled: dict[str, CompiledProgram]) -> None:
    check_that_a_slot_without_a_run_is_frozen(CASES[name], {"compiled": compiled[name]})


def test_denormals_are_flushed(compiled: dict[str, CompiledProgram]) -> None:
    check_that_denormals_are_flushed(CASES["adam"], {"compiled": compiled["adam"]})


@pytest.mark.parametrize("name", ["adam64", "sgd64"])
def test_it_agrees_with_the_plain_loop(name: str, compiled: dict[str, CompiledProgram]) -> None:
    check_that_it_agrees_with_the_plain_loop(CASES[name], {"compiled": compiled[name]})


def test_a_program_of_several_threads_updates_by_itself(
    compiled: dict[str, CompiledProgram],
) -> None:
    assert [name for name, job in JOBS.items() if job.updates] == [TWO_THREADS]
    program = {"compiled": compiled[TWO_THREADS], "threads": 2}
    check_that_it_agrees_with_the_plain_loop(CASES["adam64"], program)


@pytest.mark.parametrize(("width", "batch_size"), [(1, 23), (1, 101), (2, 1), (7, 50), (9, 16)])
@pytest.mark.parametrize("name", ["adam64", "sgd64"])
def test_one_program_serves_every_width_and_batch_size(
    name: str, width: int, batch_size: int, compiled: dict[str, CompiledProgram]
) -> None:
    case = CASES[name]
    configs = [replace(c, batch_size=batch_size, epochs=2) for c in case.configs[:width]]
    spec = step_spec(configs[0], case.shape, case.data)
    assert Job.of(spec, case.data, threads=1) == JOBS[name]
    pack = Pack(spec, case.data, width=width, compiled=compiled[name])
    for slot, run_config in enumerate(configs):
        pack.load(slot, run_config)
    while pack.epochs_done(0) < 2:
        pack.tick(pack.ticks_to_epoch_end)
    for slot, run_config in enumerate(configs):
        plain = train_plainly(run_config, case.shape, case.data)
        weights = pack.named(pack.weights(slot))
        for key, weight in weights.items():
            assert_close(weight, plain.model.state_dict()[key], rtol=1e-10, atol=1e-12)


def test_a_program_is_made_once_and_found_again(
    folder: Path, compiled: dict[str, CompiledProgram]
) -> None:
    job = JOBS["adam"]
    programs = Programs(folder)
    assert programs.get(job) is not None
    programs.request(job, hurry=True)  # there is one: nothing is started
    assert programs._running is None
    assert programs.get(replace(job, clips=True)) is None


def test_a_damaged_program_is_done_without(
    tmp_path: Path, compiled: dict[str, CompiledProgram]
) -> None:
    job = JOBS["adam"]
    (tmp_path / job.name).mkdir()
    (tmp_path / job.name / "step.so").write_bytes(b"no program")
    programs = Programs(tmp_path)
    assert programs.get(job) is None
    assert programs.get(job) is None
    assert not (tmp_path / job.name).exists(), "a later process may make it anew"


def test_drafts_of_killed_processes_are_swept(tmp_path: Path) -> None:
    (tmp_path / "compiling-left").mkdir()
    (tmp_path / "compiling-left" / "step.so").touch()
    with scratch_folder(SCRATCH_PREFIX, tmp_path) as in_use:
        Programs(tmp_path)
        assert list(tmp_path.iterdir()) == [in_use]


def test_where_no_compiler_can_be_started_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    programs = Programs(tmp_path)
    job = JOBS["adam"]
    for _ in range(2):
        programs.request(job, hurry=False)
        assert programs.get(job) is None
    assert [record.message for record in caplog.records] == [
        "nothing is compiled: no more processes"
    ]
    assert not any(tmp_path.iterdir())


class FakeCompilation:
    """Stands in for the compiler: ends when the test says so."""

    made: ClassVar[list[FakeCompilation]] = []
    news: ClassVar[threading.Condition] = threading.Condition()

    def __init__(self, job: Job, folder: Path, *, hurry: bool) -> None:
        self.name, self.is_hurried, self.is_given_up = folder.name, hurry, False
        self._ended = threading.Event()
        self._problem: str | None = None
        with self.news:
            self.made.append(self)
            self.news.notify_all()

    def end(self, problem: str | None = None) -> None:
        self._problem = problem
        self._ended.set()

    def give_up(self) -> None:
        self.is_given_up = True
        self.end("given up")

    def finish(self) -> None:
        self._ended.wait()
        if self._problem is not None:
            raise RuntimeError(self._problem)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[FakeCompilation]]:
    monkeypatch.setattr("ridgeline.search.engine.programs.Compilation", FakeCompilation)
    FakeCompilation.made = []
    yield FakeCompilation.made
    while not all(one._ended.is_set() for one in FakeCompilation.made):
        for one in FakeCompilation.made:
            one.end()


def until(number: int, made: list[FakeCompilation]) -> FakeCompilation:
    """The compilation of that number, which another thread starts."""
    with FakeCompilation.news:
        assert FakeCompilation.news.wait_for(lambda: len(made) > number, timeout=30)
    return made[number]


def test_one_program_is_made_at_a_time_those_in_a_hurry_first(
    tmp_path: Path, made: list[FakeCompilation]
) -> None:
    first = JOBS["adam"]
    second, third = replace(first, clips=True), replace(first, drops=False)
    programs = Programs(tmp_path)
    for _ in range(2):
        programs.request(first, hurry=False)
        programs.request(second, hurry=False)
    assert [one.name for one in made] == [first.name]
    programs.request(third, hurry=True)
    assert made[0].is_given_up
    assert (until(1, made).name, made[1].is_hurried) == (third.name, True)
    programs.request(first, hurry=True)
    assert not made[1].is_given_up, "it hurries already"
    made[1].end()
    assert (until(2, made).name, made[2].is_hurried) == (first.name, True)
    made[2].end("it failed")
    assert (until(3, made).name, made[3].is_hurried) == (second.name, False)
    made[3].end()
    programs.request(first, hurry=True)
    assert len(made) == 4, "what failed is not tried again"


def test_the_compiler_ends_with_whoever_started_it(tmp_path: Path) -> None:
    compilation = Compilation(JOBS["adam"], tmp_path / "program", hurry=True)
    stdin = compilation._process.stdin
    assert stdin is not None
    stdin.close()
    assert compilation._process.wait(timeout=60) != 0
    assert {path.name for path in tmp_path.iterdir()} <= {INDUCTOR_CACHE}


@pytest.mark.parametrize("hurry", [False, True])
def test_in_a_hurry_a_compiler_has_the_priority_of_the_runs(
    monkeypatch: pytest.MonkeyPatch, hurry: bool
) -> None:
    asked: list[str] = []

    def refuse(_: str) -> Job:
        raise ValueError("no job")

    monkeypatch.setattr(Job, "from_json", refuse)
    monkeypatch.setattr(compiling, "_end_with_parent", lambda _: None)
    for name in ("nice", "sched_setscheduler"):
        monkeypatch.setattr(os, name, lambda *_, name=name: asked.append(name))
    assert compiling.main("job", "folder", "scratch", *["--hurry"] * hurry) == 1
    assert asked == ([] if hurry else ["sched_setscheduler"])
