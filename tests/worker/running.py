"""Agents with real device processes, for tests, and what runs have come to there."""

from __future__ import annotations

import math
import os
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

from ridgeline.service.worker.agent import Agent, device_specs
from ridgeline.service.worker.functions.slots import FunctionSlots
from ridgeline.service.worker.training import Backend
from tests.worker.fakes import DEADLINE_SECONDS, HANG_SECONDS, MAX_CHARGES, FakeApi
from tests.worker.trainers import ScriptedBackend


def new_agent(
    api: FakeApi,
    *,
    backend: Backend | None = None,
    devices: tuple[str, ...] | None = ("cpu:0",),
    data_root: Path | None = None,
    hang_seconds: float = HANG_SECONDS,
    num_threads: int = 1,
    function_slots: FunctionSlots | None = None,
) -> Agent:
    return Agent(
        api,
        name="test",
        specs=device_specs(data_root, devices, num_threads),
        backend=backend or ScriptedBackend(),
        hang_seconds=hang_seconds,
        function_slots=function_slots,
        clock=time.monotonic,
        random=Random(0),
    )


class Running(threading.Thread):
    """An agent at work in a thread."""

    def __init__(self, agent: Agent) -> None:
        super().__init__(daemon=True)
        self.agent = agent
        self.status: int | None = None

    def run(self) -> None:
        self.status = self.agent.run()

    def result(self) -> int | None:
        self.join(DEADLINE_SECONDS)
        return self.status


@contextmanager
def at_work(agent: Agent) -> Iterator[Running]:
    running = Running(agent)
    running.start()
    try:
        yield running
    finally:
        agent.leave()
        assert running.result() == 0


def ended(api: FakeApi, run: int) -> list[str]:
    return [end.outcome for end in api.runs[run].ends]


def pid_of(api: FakeApi, run: int) -> int:
    return int(api.runs[run].epochs[1]["pid"])


def wait_for_death(pid: int) -> None:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([process], [], [], DEADLINE_SECONDS)[0], f"{pid} lives on"
    finally:
        os.close(process)


def all_over(api: FakeApi) -> bool:
    return all(run.state in ("DONE", "FAILED", "CANCELLED") for run in api.runs.values())


def told(api: FakeApi, run: int) -> tuple[dict[int, float], list[float | None]]:
    """What a run has come to, whatever process it was trained in, and in whose company."""
    epochs = {epoch: metrics["loss"] for epoch, metrics in api.runs[run].epochs.items()}
    return epochs, [end.value for end in api.runs[run].ends if end.outcome == "complete"]


def expected(run: int, num_epochs: int = 2) -> tuple[dict[int, float], list[float]]:
    return {epoch: run / epoch for epoch in range(1, num_epochs + 1)}, [1 / run]


def check_found(api: FakeApi, guilty: int, num_slots: int, outcome: str = "crashed") -> None:
    """The run was charged, after no more tries than it takes to halve a pack, and no other was."""
    outcomes = ended(api, guilty)
    num_released = len(outcomes) - MAX_CHARGES
    assert outcomes == ["released"] * num_released + [outcome] * MAX_CHARGES
    assert num_released + 1 <= math.ceil(math.log2(num_slots)) + 1
    for run in api.runs.keys() - {guilty}:
        assert api.runs[run].charges == 0
        assert told(api, run) == expected(run)


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def command(pid: int) -> str:
    """What a process was started with."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""
