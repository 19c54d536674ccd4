"""Runs that break the real engine in its process: found, and the others' values unchanged."""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ridgeline.search.engine.program import ProgramIdentity
from ridgeline.search.space import Config
from ridgeline.search.tasks.mlp import MlpDefaults
from ridgeline.service.worker.agent import Agent
from ridgeline.service.worker.backend import EngineBackend
from ridgeline.service.worker.process import DeviceProcess
from ridgeline.service.worker.training import DeviceSpec, Trainer
from tests.worker.fakes import HANG_SECONDS, MAX_CHARGES, FakeApi
from tests.worker.running import all_over, at_work, ended, new_agent

pytestmark = pytest.mark.slow

GUILTY = 3
NUM_RUNS = 5
WIDE = range(1, 5)


class Deadly(EngineBackend):
    """Packs end their process as soon as they step the guilty run."""

    def trainer(self, device: str, spec: DeviceSpec) -> Trainer:
        from ridgeline.search.engine.pack import Pack

        tick: Any = Pack.tick

        def deadly_tick(pack: Any, *args: Any) -> None:
            if any(run is not None and run.config.seed == GUILTY for run in pack._occupants):
                os._exit(5)
            tick(pack, *args)

        Pack.tick = deadly_tick  # type: ignore[assignment,method-assign]
        return super().trainer(device, spec)


class Hanging(EngineBackend):
    """Packs take a step of the guilty run that does not end."""

    def trainer(self, device: str, spec: DeviceSpec) -> Trainer:
        from ridgeline.search.engine.pack import Pack

        tick: Any = Pack.tick

        def hanging_tick(pack: Any, *args: Any) -> None:
            if any(run is not None and run.config.seed == GUILTY for run in pack._occupants):
                threading.Event().wait()
            tick(pack, *args)

        Pack.tick = hanging_tick  # type: ignore[assignment,method-assign]
        return super().trainer(device, spec)


@dataclass(frozen=True)
class Confined(EngineBackend):
    """Its process may take `room` bytes of address space past what it has when packs begin."""

    room: int
    width: int

    def trainer(self, device: str, spec: DeviceSpec) -> Trainer:
        from ridgeline.search.engine.pack import Pack

        init: Any = Pack.__init__

        def confining_init(*args: Any, **options: Any) -> None:
            Pack.__init__ = init  # type: ignore[method-assign]
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + self.room
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            init(*args, **options)

        Pack.__init__ = confining_init  # type: ignore[method-assign]
        return super().trainer(device, replace(spec, width=self.width))


def trained(
    backend: EngineBackend,
    runs: Mapping[int, tuple[int, ...]],
    *,
    hang_seconds: float = HANG_SECONDS,
    num_threads: int = 1,
    epochs: int = 2,
    meanwhile: Callable[[FakeApi, Agent], None] | None = None,
) -> FakeApi:
    """The api after all runs, given by the hidden layers of their models, have ended."""
    defaults: Config = MlpDefaults().model_dump()
    api = FakeApi()
    for run, hidden in runs.items():
        api.add(run)
        api.runs[run].order = api.runs[run].order.model_copy(
            update={
                "task": {"name": "mlp", "dataset": "digits", "hidden": list(hidden)},
                "config": {**defaults, "epochs": epochs},
                "objective": {"metric": "validation_accuracy", "direction": "maximize"},
                "penalty": {"penalize": "weights"},
                "reproducible": True,
            }
        )
    agent = new_agent(api, backend=backend, hang_seconds=hang_seconds, num_threads=num_threads)
    with at_work(agent):
        if meanwhile is not None:
            meanwhile(api, agent)
        while not all_over(api):
            before = num_ends(api)
            api.wait_until(lambda: all_over(api) or num_ends(api) > before)  # noqa: B023
    return api


def num_ends(api: FakeApi) -> int:
    return sum(len(run.ends) for run in api.runs.values())


def assert_same(one: FakeApi, other: FakeApi, run: int) -> None:
    assert one.runs[run].charges == 0
    assert one.runs[run].epochs == other.runs[run].epochs
    assert one.runs[run].ends[-1].value == other.runs[run].ends[-1].value


def test_a_run_that_kills_the_engine_is_found_and_changes_no_value() -> None:
    innocent = {run: (16,) for run in range(1, NUM_RUNS + 1) if run != GUILTY}
    api = trained(Deadly(), {**innocent, GUILTY: (16,)})
    assert ended(api, GUILTY)[-MAX_CHARGES:] == ["crashed"] * MAX_CHARGES
    assert set(ended(api, GUILTY)[:-MAX_CHARGES]) <= {"released"}
    undisturbed = trained(EngineBackend(), innocent)
    for run in innocent:
        assert_same(api, undisturbed, run)


def test_a_run_that_hangs_in_the_engine_is_found_and_changes_no_value() -> None:
    innocent = {1: (16,), 2: (32,)}
    api = trained(Hanging(), {**innocent, GUILTY: (16,)}, hang_seconds=4, num_threads=2)
    assert ended(api, GUILTY)[-MAX_CHARGES:] == ["timeout"] * MAX_CHARGES
    assert set(ended(api, GUILTY)[:-MAX_CHARGES]) <= {"released"}
    undisturbed = trained(EngineBackend(), innocent)
    for run in innocent:
        assert_same(api, undisturbed, run)


def test_a_process_that_is_stopped_while_several_train_charges_none_and_changes_no_value() -> None:
    runs: dict[int, tuple[int, ...]] = {1: (16,), 2: (16,), 4: (32,)}

    def stop(api: FakeApi, agent: Agent) -> None:
        api.wait_until(lambda: all(run.epochs for run in api.runs.values()))
        (process,) = agent._processes
        assert isinstance(process, DeviceProcess)
        assert process._child is not None
        os.kill(process._child._process.pid or 0, signal.SIGSTOP)
        api.wait_until(lambda: all(run.ends for run in api.runs.values()))

    epochs = 50
    stopped = trained(
        EngineBackend(), runs, hang_seconds=4, num_threads=2, epochs=epochs, meanwhile=stop
    )
    undisturbed = trained(EngineBackend(), runs, num_threads=2, epochs=epochs)
    for run in runs:
        assert ended(stopped, run)[0] == "released"
        assert_same(stopped, undisturbed, run)


def test_a_pack_that_does_not_fit_is_halved_and_a_run_that_does_not_fit_alone_fails() -> None:
    # A slot of the wide model takes 87 MB, and 70 more in a step of a pack that is not full: 8 do
    # not fit, 4 do once those 8 have gone, with room for what threads reserve.  The big model takes
    # five copies of 340 MB.
    room, wide, small, big = 1100 * 2**20, (2048, 2048), (16,), (9216, 9216)
    runs = dict.fromkeys(WIDE, wide) | {7: small, 8: big, 9: small}
    api = trained(Confined(room, width=8), runs)
    assert ended(api, 8).count("out_of_memory") == MAX_CHARGES
    assert set(ended(api, 8)) <= {"out_of_memory", "released"}, "charged only when alone"
    programs = {api.runs[run].ends[-1].program or "" for run in WIDE}
    (width,) = {ProgramIdentity.parse(program).width for program in programs}
    assert width in (2, 4), "what threads reserve differs from time to time"
    for run in (7, 9):
        assert ended(api, run) == ["complete"], "a lane that fits is left alone"

    undisturbed = trained(Confined(2**40, width=width), dict.fromkeys(WIDE, wide))
    for run in WIDE:
        assert_same(api, undisturbed, run)
