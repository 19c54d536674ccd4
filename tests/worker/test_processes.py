"""Workers with real device processes: what they do all day, and devices that die."""

from __future__ import annotations

import os
import select
import signal
from multiprocessing.connection import wait
from pathlib import Path
from random import Random

import pytest

from search.engine import ProgramIdentity
from search.space import Config
from search.tasks.settings import MlpDefaults
from service.protocol import DeviceInfo
from service.worker import holdings as holdings_module
from service.worker.api import CallFailed
from service.worker.messages import DeviceEvent, Died
from service.worker.process import DeviceProcess
from service.worker.training import DeviceSpec, MlpBackend
from tests.worker.fakes import DEADLINE_SECONDS, FakeApi, ManualClock
from tests.worker.running import at_work, ended, new_agent, pid_of
from tests.worker.trainers import DiesAtStart, DiesOnce, PackBackend

pytestmark = pytest.mark.slow


# ---- devices that die


def test_a_killed_device_process_costs_only_the_run_it_trained() -> None:
    api = FakeApi()
    api.add(1, epochs=1, end="hang")
    api.add(2)
    with at_work(new_agent(api)):
        api.wait_until(lambda: api.runs[1].epochs and api.runs[2].state == "RUNNING")
        first_pid = pid_of(api, 1)
        os.kill(first_pid, signal.SIGKILL)
        api.wait_until(lambda: api.runs[2].state == "DONE")
        assert ended(api, 1) == ["crashed"]
        assert api.runs[1].ends[0].error == "the device process died with signal 9 (Killed)"
        assert ended(api, 2) == ["complete"]
        assert api.runs[2].attempt == 1, "it waited, and was neither charged nor handed out again"
        assert pid_of(api, 2) != first_pid
        api.wait_until(lambda: api.runs[1].attempt == 2 and api.runs[1].epochs)
        api.cancel(1)


@pytest.mark.parametrize(
    ("end", "error"),
    [
        ("exit", "the device process ended with code 3"),
        ("segfault", "the device process died with signal 11 (Segmentation fault)"),
    ],
)
def test_a_run_that_kills_its_process_fails_alone(end: str, error: str) -> None:
    api = FakeApi()
    api.add(1, epochs=1, end=end)
    for run in (2, 3, 4):
        api.add(run)
    with at_work(new_agent(api)):
        api.wait_until(lambda: all(run.state in ("DONE", "FAILED") for run in api.runs.values()))
    assert ended(api, 1) == ["crashed"] * 3
    assert {e.error for e in api.runs[1].ends} == {error}
    for run in (2, 3, 4):
        assert ended(api, run) == ["complete"]
        assert sorted(api.runs[run].epochs) == [1, 2]


@pytest.mark.parametrize("end", ["exit", "segfault"])
def test_a_run_that_kills_a_pack_is_found_by_halves(end: str) -> None:
    api = FakeApi()
    for run in range(1, 8):
        api.add(run, epochs=2, **({"end": end} if run == 3 else {}))
    with at_work(new_agent(api, backend=PackBackend())):
        api.wait_until(lambda: all(run.state in ("DONE", "FAILED") for run in api.runs.values()))
    assert api.runs[3].state == "FAILED"
    assert ended(api, 3).count("crashed") == 3
    # Beside others of four at first, then of two, then alone.
    assert ended(api, 3)[:-3].count("released") == len(ended(api, 3)) - 3 <= 2
    for run in (1, 2, 4, 5, 6, 7):
        assert ended(api, run)[-1] == "complete"
        assert set(ended(api, run)[:-1]) <= {"released"}
        assert api.runs[run].charges == 0


def test_a_run_that_hangs_in_a_pack_costs_the_others_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holdings_module, "STOP_GRACE_SECONDS", 0.0)
    api = FakeApi()
    api.add(1, epochs=1, end="hang")
    for run in (2, 3):
        api.add(run, epochs=4)
    with at_work(new_agent(api, backend=PackBackend())):
        api.wait_until(lambda: api.runs[1].epochs)
        api.cancel(1)
        api.wait_until(lambda: api.runs[2].state == api.runs[3].state == "DONE")
    for run in (2, 3):
        assert ended(api, run) in (["complete"], ["released", "complete"])
        assert api.runs[run].charges == 0


def test_a_process_that_dies_at_its_start_is_started_again_with_growing_waits() -> None:
    clock = ManualClock()
    spec = DeviceSpec("cpu:0", None, 1)
    process = DeviceProcess(spec, DiesAtStart(), clock=clock, random=Random(0))
    waits = []
    for _ in range(4):
        events: list[DeviceEvent] = []
        while not events:
            assert wait(process.waitables, DEADLINE_SECONDS)
            events += process.poll()
        assert events == [Died("ended with code 7")]
        assert process.restart_at is not None
        waits.append(process.restart_at - clock())
        assert process.waitables == []
        if waits[-1] > 0:
            assert list(process.poll()) == []
            assert process.waitables == [], "not before its time"
        clock.seconds = process.restart_at
        assert list(process.poll()) == []
    assert waits[0] == 0
    assert 0 < waits[1] <= 0.25 <= 2 * waits[2] <= 1.0 <= 4 * waits[3]
    process.hang_up()
    process.finish(clock())


def test_a_worker_waits_for_devices_that_die_at_their_start(tmp_path: Path) -> None:
    api = FakeApi()
    api.add(1)
    with at_work(new_agent(api, backend=DiesOnce(), devices=None, data_root=tmp_path)):
        api.wait_until(lambda: api.runs[1].state == "DONE")
    assert len(api.workers["w0"].registration.devices) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"cpu:0", "cpu:1"}


def test_a_run_that_does_not_stop_loses_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdings_module, "STOP_GRACE_SECONDS", 0.0)
    api = FakeApi()
    api.add(1, epochs=1, end="hang")
    api.add(2)
    with at_work(new_agent(api)):
        api.wait_until(lambda: api.runs[1].epochs and api.runs[2].state == "RUNNING")
        api.cancel(1)
        api.wait_until(lambda: api.runs[2].state == "DONE")
    assert ended(api, 1) == []
    assert [refusal.run for refusal in api.refused] == [1]
    assert ended(api, 2) == ["complete"]


def test_a_dead_device_is_replaced_while_the_api_is_silent(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    api = FakeApi()
    api.add(1, epochs=1, end="hang")
    api.add(2, fifo=str(fifo))
    with at_work(new_agent(api)):
        api.wait_until(lambda: api.runs[1].epochs and api.runs[2].state == "RUNNING")
        api.hold_up(True)
        api.wait_for_calls(1)
        os.kill(pid_of(api, 1), signal.SIGKILL)
        assert select.select([reader], [], [], DEADLINE_SECONDS)[0], "run 2 does not begin"
        api.hold_up(False)
        api.wait_until(lambda: api.runs[2].state == "DONE")
        api.cancel(1)
    os.close(reader)


# ---- what the agent does all day


def test_digits_are_learned() -> None:
    defaults: Config = MlpDefaults().model_dump()
    api = FakeApi()
    for run in range(1, 6):
        api.add(run)
        api.runs[run].order = api.runs[run].order.model_copy(
            update={
                "task": {"name": "mlp", "dataset": "digits", "hidden": [32]},
                "config": {**defaults, "learning_rate": 0.01, "epochs": 3},
                "objective": {"metric": "validation_accuracy", "direction": "maximize"},
                "early_stopping": {"patience": 3} if run == 2 else None,
                "penalty": {"penalize": "weights"},
            }
        )
    bad = api.runs[3].order
    api.runs[3].order = bad.model_copy(update={"task": {"name": "mlp", "dataset": "nothing"}})
    with at_work(new_agent(api, backend=MlpBackend(), devices=None)):
        api.wait_until(lambda: all(run.state in ("DONE", "FAILED") for run in api.runs.values()))
    for run in (1, 2, 4, 5):
        (end,) = api.runs[run].ends
        assert end.outcome == "complete"
        assert end.value is not None
        assert end.value > 0.85
        assert end.metrics["test_accuracy"] > 0.8
        assert end.program is not None
        assert end.device_seconds > 0
        assert sorted(api.runs[run].epochs) == [1, 2, 3]
        assert api.runs[run].epochs[3]["validation_accuracy"] == end.metrics["validation_accuracy"]
    assert ended(api, 3) == ["crashed"] * 3
    assert "there is no data set nothing" in str(api.runs[3].ends[0].error)
    assert "Traceback" in str(api.runs[3].ends[0].log_tail)
    (worker,) = api.workers.values()
    (device,) = worker.registration.devices
    assert isinstance(device, DeviceInfo)
    program = ProgramIdentity.parse(api.runs[1].ends[0].program or "")
    assert program.form == "eager"
    assert device.num_slots == 32
    assert {"digits", "breast-cancer"} <= {data.name for data in worker.registration.datasets}
    assert worker.state == "GONE"


@pytest.mark.parametrize("devices", [None, ("cpu:0", "cpu:1", "cpu:0")])
def test_two_devices_share_the_work_and_both_are_registered(
    devices: tuple[str, ...] | None,
) -> None:
    api = FakeApi()
    for run in range(1, 13):
        api.add(run)
    with at_work(new_agent(api, devices=devices)):
        api.wait_until(lambda: all(run.state == "DONE" for run in api.runs.values()))
    pids = {run.epochs[1]["pid"] for run in api.runs.values()}
    assert len(pids) == 2
    assert {run.epochs[1]["niceness"] for run in api.runs.values()} == {float(os.nice(0) + 5)}
    (worker,) = api.workers.values()
    assert [device.name for device in worker.registration.devices] == ["cpu:0", "cpu:1"]


def test_an_api_that_is_away_gets_everything_when_it_is_back() -> None:
    api = FakeApi()
    api.add(1, epochs=1, end="hang")
    with at_work(new_agent(api)):
        api.wait_until(lambda: api.runs[1].epochs)
        api.fail(CallFailed(None, "no route"))
        api.wait_for_calls(1)
        os.kill(pid_of(api, 1), signal.SIGKILL)
        api.wait_for_calls(3)
        api.fail(None)
        api.wait_until(lambda: len(api.runs[1].ends) == 1)
        assert ended(api, 1) == ["crashed"]
        api.cancel(1)


def test_a_fault_in_a_call_is_no_end_of_it(caplog: pytest.LogCaptureFixture) -> None:
    api = FakeApi()
    api.add(1)
    api.fail(RuntimeError("a fault"))
    with at_work(new_agent(api)):
        api.wait_for_calls(2)
        api.fail(None)
        api.wait_until(lambda: api.runs[1].state == "DONE")
    assert "no answer from the api; trying on: RuntimeError: a fault" in caplog.text


def test_a_lost_worker_comes_back_as_a_new_one() -> None:
    api = FakeApi()
    api.add(1, epochs=1, end="hang")
    api.add(2)
    with at_work(new_agent(api)):
        api.wait_until(lambda: api.runs[1].epochs)
        api.lose("w0")
        api.wait_until(lambda: "w1" in api.workers and api.runs[2].attempt == 2)
        api.cancel(1)
    assert api.workers["w0"].state == "LOST"
    assert [run.charges for run in api.runs.values()] == [0, 0]
