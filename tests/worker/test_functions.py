"""Workers that call functions, each in a process of its own: whatever one does, it pays alone."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ridgeline.service.processes import CPU_NICENESS
from ridgeline.service.protocol import (
    FUNCTIONS,
    RunEnded,
    StudyRules,
    SyncRequest,
    SyncResponse,
)
from ridgeline.service.worker.functions.device import FUNCTION_SCRATCH_PREFIX
from ridgeline.service.worker.functions.slots import FunctionSlots
from tests.sites import install, installed_here
from tests.worker.fakes import MAX_CHARGES, ApiRun, ApiWorker, FakeApi
from tests.worker.odd_functions import ENTRY_POINTS, LIMIT_BYTES
from tests.worker.running import (
    all_over,
    at_work,
    children,
    command,
    ended,
    new_agent,
    wait_for_death,
)

pytestmark = pytest.mark.slow

SLOTS = FunctionSlots(2, threads=3, max_bytes=None)


@pytest.fixture(autouse=True, scope="module")
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The odd functions are installed, here and for the processes that call them."""
    site = tmp_path_factory.mktemp("site")
    install(site, "odd-functions", ENTRY_POINTS)
    with installed_here(site):
        yield


class FunctionApi(FakeApi):
    """Hands out runs of functions, to the device for them alone."""

    def call(self, run: int, task: str, x: float = 0.0, **changes: Any) -> None:
        """Have a function called."""
        self.add(run, name=task)
        order = self.runs[run].order
        self.runs[run].order = order.model_copy(update={"config": {"x": x}, **changes})

    def _answer(self, worker_id: str, worker: ApiWorker, request: SyncRequest) -> SyncResponse:
        free = {FUNCTIONS: request.free_slots[FUNCTIONS]}
        return super()._answer(worker_id, worker, request.model_copy(update={"free_slots": free}))


def called(*tasks: str) -> FunctionApi:
    """An api after some functions were called once, or until they were given up, side by side."""
    api = FunctionApi()
    for run, task in enumerate(tasks, start=1):
        api.call(run, task)
    with at_work(new_agent(api, function_slots=SLOTS)):
        for each in api.runs.values():
            api.wait_until(partial(is_over, each))
    return api


def is_over(run: ApiRun) -> bool:
    return run.state in ("DONE", "FAILED")


def test_functions_are_called_side_by_side_and_their_values_are_told() -> None:
    api = FunctionApi()
    for run in range(1, 7):
        api.call(run, "square", x=run / 2, seed=2**40 + run)
    api.call(7, "seeded", seed=2**40 + 7)
    with at_work(new_agent(api, function_slots=SLOTS)):
        api.wait_until(lambda: all_over(api))
    for run in range(1, 7):
        (end,) = api.runs[run].ends
        x = run / 2
        assert (end.outcome, end.value, end.metrics) == ("complete", x**2, {"loss": x**2})
        assert api.runs[run].epochs == {s: {"loss": x**2 + 3 - s} for s in (1, 2, 3)}
        assert end.device_seconds > 0
    assert api.runs[7].ends[0].value == 7, "seeds have 32 bits, as numpy and scikit-learn take"
    programs = {end.program for run in api.runs.values() for end in run.ends}
    assert len(programs) == 1
    (worker,) = api.workers.values()
    _, device = worker.registration.devices
    assert (device.name, device.kind, device.num_slots) == (FUNCTIONS, FUNCTIONS, 2)
    assert set(ENTRY_POINTS) <= set(worker.registration.tasks)


SAID = {
    "raises": ("failed", "RuntimeError: the solver \\0 \\ud800 found\nnothing"),
    "signals": ("failed", "LookupError: -15 set() set()"),
    "closes-output": ("failed", "ValueError: the real reason"),
    "closes-descriptors-of-output": ("failed", "ValueError: the real reason"),
    "replaces-output": ("failed", "ValueError: the real reason"),
    "removes-output": ("failed", "ValueError: the real reason"),
    "blocks-output": ("failed", "ValueError: the real reason"),
    "leaves": ("failed", "SystemExit: not today"),
    "not-a-number": ("diverged", "it returned nan"),
    "reports-infinity": ("diverged", "it reported inf at step 2"),
    "returns-text": (
        "failed",
        "TypeError: what the function returned is of the type str, not a number",
    ),
    "returns-nothing": ("failed", "TypeError: what the function returned is None, not a number"),
    "returns-many": (
        "failed",
        "TypeError: what the function returned has the shape (2, 1); it must be one number",
    ),
    "returns-complex": (
        "failed",
        "TypeError: what the function returned is of the type complex, not a number",
    ),
    "reports-flag": (
        "failed",
        "TypeError: the value of a report is of the type bool, not a number",
    ),
    "reports-text": (
        "failed",
        "TypeError: the value of a report is of the type str, not a number",
    ),
    "reports-backwards": (
        "failed",
        "ValueError: step 1 comes after 2; steps count from 1, rise, and end at 100000",
    ),
    "prints": ("failed", "RuntimeError: it was too much"),
}
"""What functions say of themselves, which is final."""

DONE = {
    "exits": ("crashed", "its process ended with code 0 before the function returned"),
    "segfaults": ("crashed", "its process died with signal 11 (Segmentation fault)"),
    "closes": ("crashed", "it has closed the descriptors by which its process is heard"),
    "closes-all-it-has": ("crashed", "it has closed the descriptors by which its process is heard"),
    "garbles": ("crashed", "what the function's process told cannot be read"),
    "kills-its-guard": ("crashed", "the process that guards it died with signal 9 (Killed)"),
    "hangs": ("timeout", "it took longer than max_seconds of the task hangs, which is 2"),
    "ignores-signals": (
        "timeout",
        "it took longer than max_seconds of the task ignores-signals, which is 2",
    ),
    "allocates": (
        "out_of_memory",
        f"it took more memory than max_bytes of the task allocates, {LIMIT_BYTES} bytes",
    ),
    "allocates-below": (
        "out_of_memory",
        f"it took more memory than max_bytes of the task allocates-below, {LIMIT_BYTES} bytes",
    ),
    "memory-error": ("out_of_memory", "MemoryError: 3 GB are needed"),
}
"""What functions do to their processes, which is charged."""

WELL = ("square", "forks", "waits-for-thread")


@pytest.fixture(scope="module")
def runs(_installed: None) -> dict[str, ApiRun]:
    """By function, what became of its run, all of them called by one worker."""
    tasks = [*WELL, *SAID, *DONE]
    api = called(*tasks)
    return {task: api.runs[number] for number, task in enumerate(tasks, start=1)}


@pytest.mark.parametrize("task", SAID)
def test_what_a_function_says_of_itself_is_final(task: str, runs: dict[str, ApiRun]) -> None:
    (end,) = runs[task].ends
    assert (end.outcome, end.error) == SAID[task]
    assert end.value is None
    assert runs[task].charges == 0


@pytest.mark.parametrize("task", DONE)
def test_what_a_function_does_to_its_process_is_charged(task: str, runs: dict[str, ApiRun]) -> None:
    assert [(end.outcome, end.error) for end in runs[task].ends] == [DONE[task]] * MAX_CHARGES


@pytest.mark.parametrize("task", WELL)
def test_nobody_else_pays(task: str, runs: dict[str, ApiRun]) -> None:
    (end,) = runs[task].ends
    assert end.outcome == "complete"
    assert end.value == (0.0 if task == "square" else 0.5)


def test_of_a_gigabyte_of_output_its_ends_are_kept(runs: dict[str, ApiRun]) -> None:
    (end,) = runs["prints"].ends
    assert end.log_tail is not None
    assert end.log_tail.startswith("first words\n")
    assert "last words\nTraceback" in end.log_tail
    assert "bytes left out" in end.log_tail
    assert len(end.log_tail) < 10_000


def test_what_a_function_has_started_ends_with_it() -> None:
    api = called("leaves-behind")
    wait_for_death(int(api.runs[1].epochs[1]["loss"]))


def left_behind(api: FunctionApi) -> int:
    """Wait for a function that hangs, and has started a process; the id of that."""
    api.wait_until(lambda: api.runs[1].epochs)
    return int(api.runs[1].epochs[1]["loss"])


def test_a_run_that_is_cancelled_ends_at_once_with_all_it_has_started() -> None:
    api = FunctionApi()
    api.call(1, "leaves-behind", x=1.0)
    with at_work(new_agent(api, function_slots=SLOTS)):
        pid = left_behind(api)
        api.cancel(1)
        wait_for_death(pid)
        api.call(2, "square")
        api.wait_until(lambda: api.runs[2].state == "DONE")
    assert api.runs[1].charges == 0


def test_a_worker_that_leaves_gives_its_runs_back_and_ends_all_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    api = FunctionApi()
    api.call(1, "leaves-behind", x=1.0)
    with at_work(new_agent(api, function_slots=SLOTS)):
        pid = left_behind(api)
        assert list(tmp_path.glob(f"{FUNCTION_SCRATCH_PREFIX}*"))
    wait_for_death(pid)
    assert ended(api, 1) == ["released"]
    assert not list(tmp_path.glob(f"{FUNCTION_SCRATCH_PREFIX}*"))


def test_a_guard_that_is_killed_leaves_nothing_behind() -> None:
    api = FunctionApi()
    api.call(1, "starts")
    with at_work(new_agent(api, function_slots=SLOTS)):
        pid = left_behind(api)
        (guard,) = (one for one in children(os.getpid()) if "functions.guard" in command(one))
        (function,) = children(guard)
        os.kill(guard, signal.SIGKILL)
        wait_for_death(function)
        wait_for_death(pid)
        api.wait_until(lambda: api.runs[1].ends)
        api.cancel(1)
    assert ended(api, 1)[0] == "crashed"


def test_a_run_is_pruned_by_its_reports() -> None:
    class PruningApi(FunctionApi):
        def _answer(self, worker_id: str, worker: ApiWorker, request: SyncRequest) -> SyncResponse:
            rules = StudyRules(
                study="study", version=7, metric="loss", direction="minimize", thresholds={2: 5.0}
            )
            answer = super()._answer(worker_id, worker, request)
            return answer.model_copy(update={"rules": (rules,)})

        def _end(self, run: ApiRun, end: RunEnded) -> None:
            run.ends.append(end)
            run.state = "DONE"

    api = PruningApi()
    for run, task in enumerate(("square", "square", "swallows", "gives-up", "gives-up"), start=1):
        api.call(run, task, x=[1.0, 3.0, 6.0, 0.0, 1.0][run - 1])
    with at_work(new_agent(api, function_slots=SLOTS)):
        api.wait_until(lambda: all_over(api))
    ends = {run: api.runs[run].ends[0] for run in api.runs}
    assert [(e.outcome, e.value, e.kept_epoch, e.rule_version) for e in ends.values()] == [
        ("complete", 1.0, None, None),
        ("pruned", 10.0, 2, 7),
        ("pruned", 6.0, 2, 7),
        ("complete", 0.0, None, None),
        ("pruned", 1.0, 1, None),
    ]
    assert list(api.runs[3].epochs) == [1, 2], "what it reports after that is not taken"


def test_a_function_has_no_more_of_its_worker_than_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RIDGELINE_DATABASE_URL", "canary-1")
    monkeypatch.setenv("SOMEBODYS_API_TOKEN", "canary-2")
    api = called("surroundings")
    (end,) = api.runs[1].ends
    niceness = os.nice(0) + CPU_NICENESS
    opened = ["/dev/null", "pipe", "pipe", "socket"]
    assert end.error == f"LookupError: {opened} [] 3 {niceness} True False"


def test_a_run_may_take_as_long_as_its_study_says() -> None:
    api = FunctionApi()
    api.call(1, "leaves-behind", x=1.0, run_seconds=1.0)
    with at_work(new_agent(api, function_slots=SLOTS)):
        api.wait_until(lambda: all_over(api))
    assert ended(api, 1) == ["timeout"] * MAX_CHARGES
    assert api.runs[1].ends[0].error == "it took longer than budget.run_seconds, which is 1"
