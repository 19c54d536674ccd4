"""Workers with real device processes: what they do all day, and devices that die."""

from __future__ import annotations

import os
import select
import signal
import tempfile
import threading
from pathlib import Path
from random import Random

import pytest

from ridgeline.search.engine import ProgramIdentity
from ridgeline.search.space import Config
from ridgeline.search.tasks.mlp import MlpDefaults
from ridgeline.service.processes import CPU_NICENESS
from ridgeline.service.protocol import DeviceInfo
from ridgeline.service.worker import devices as devices_module
from ridgeline.service.worker.api import CallFailed
from ridgeline.service.worker.backend import EngineBackend
from ridgeline.service.worker.messages import DeviceEvent, Died
from ridgeline.service.worker.process import DeviceProcess
from ridgeline.service.worker.training import DeviceSpec
from tests.worker.fakes import DEADLINE_SECONDS, HANG_SECONDS, MAX_CHARGES, FakeApi, ManualClock
from tests.worker.running import (
    all_over,
    at_work,
    check_found,
    ended,
    expected,
    new_agent,
    pid_of,
    told,
)
from tests.worker.trainers import DiesAtStart, DiesOnce, ScriptedBackend

pytestmark = pytest.mark.slow


# ---- devices that die


class Pipe:
    """A named pipe that another process writes to once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def wait(self) -> None:
        assert select.select([self._reader], [], [], DEADLINE_SECONDS)[0], "waited in vain"

    def close(self) -> None:
        os.close(self._reader)


def test_a_killed_device_process_costs_only_the_run_that_trained_alone() -> None:
    api = FakeApi()
    api.add(1, epochs=1, end="linger")
    api.add(2)
    with at_work(new_agent(api, backend=ScriptedBackend(num_slots=1))):
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


def test_what_a_process_leaves_behind_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("TMPDIR", raising=False)
    api = FakeApi()
    api.add(1, epochs=1, end="linger")
    with at_work(new_agent(api, backend=ScriptedBackend(num_slots=1))):
        api.wait_until(lambda: api.runs[1].epochs)
        pid = pid_of(api, 1)
        (folder,) = tmp_path.glob("ridgeline-device-*")
        assert f"TMPDIR={folder}" in Path(f"/proc/{pid}/environ").read_text().split("\0")
        assert "TMPDIR" not in os.environ
        (folder / "unpacked").mkdir()
        (folder / "unpacked" / "program.so").write_text("as a program does")
        os.kill(pid, signal.SIGKILL)
        api.wait_until(lambda: api.runs[1].attempt == 2 and api.runs[1].epochs)
        assert not folder.exists()
        api.cancel(1)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_worker_left_behind_goes_when_the_next_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "ridgeline-device-left").mkdir()
    (tmp_path / "ridgeline-device-left" / "program.so").write_text("as a program does")
    with at_work(new_agent(FakeApi())):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_room_for_files")
def test_a_device_without_room_for_temporary_files_trains() -> None:
    api = FakeApi()
    api.add(1)
    with at_work(new_agent(api)):
        api.wait_until(lambda: api.runs[1].state == "DONE")


@pytest.fixture
def no_room_for_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))


def test_a_killed_device_process_charges_none_of_several() -> None:
    api = FakeApi()
    for run in (1, 2, 3):
        api.add(run, epochs=1, end="linger")
    with at_work(new_agent(api)):
        api.wait_until(lambda: all(run.epochs for run in api.runs.values()))
        os.kill(pid_of(api, 2), signal.SIGKILL)
        api.wait_until(lambda: all(run.ends for run in api.runs.values()))
        for run in (1, 2, 3):
            assert ended(api, run) == ["released"]
            assert api.runs[run].charges == 0
            api.cancel(run)


@pytest.mark.parametrize(
    ("end", "error"),
    [
        ("exit", "the device process ended with code 3"),
        ("segfault", "the device process died with signal 11 (Segmentation fault)"),
    ],
)
@pytest.mark.parametrize("num_epochs", [0, 1])
def test_a_run_that_kills_its_process_is_found_and_fails_alone(
    end: str, error: str, num_epochs: int
) -> None:
    api = FakeApi()
    num_slots = 8
    for run in range(1, num_slots + 4):
        api.add(run) if run != 5 else api.add(5, epochs=num_epochs, end=end)
    with at_work(new_agent(api, backend=ScriptedBackend(num_slots))):
        api.wait_until(lambda: all_over(api))
    check_found(api, 5, num_slots)
    assert {e.error for e in api.runs[5].ends if e.outcome == "crashed"} == {error}


def test_two_guilty_runs_are_both_found() -> None:
    api = FakeApi()
    for run in range(1, 9):
        api.add(run) if run not in (2, 3) else api.add(run, epochs=0, end="exit")
    with at_work(new_agent(api)):
        api.wait_until(lambda: all_over(api))
    charges = {run: api.runs[run].charges for run in api.runs}
    assert charges == {run: MAX_CHARGES if run in (2, 3) else 0 for run in range(1, 9)}


def test_a_run_whose_preparation_kills_the_process_is_found_at_once() -> None:
    api = FakeApi()
    for run in range(1, 6):
        api.add(run) if run != 3 else api.add(run, add="exit")
    with at_work(new_agent(api)):
        api.wait_until(lambda: all_over(api))
    check_found(api, 3, num_slots=1)


def test_a_pack_that_fails_is_tried_again_in_halves() -> None:
    api = FakeApi()
    for run in range(1, 5):
        api.add(run) if run != 4 else api.add(run, epochs=1, end="break_the_pack")
    with at_work(new_agent(api)):
        api.wait_until(lambda: all_over(api))
    assert api.runs[4].state == "FAILED"
    check_found(api, 4, num_slots=4)
    pids = {run.epochs[1]["pid"] for run in api.runs.values()}
    assert len(pids) == 1, "no process has died of it"


def test_a_process_that_dies_at_its_start_is_started_again_with_growing_waits() -> None:
    clock = ManualClock()
    spec = DeviceSpec("cpu:0", None, 1)
    woken = threading.Event()
    process = DeviceProcess(
        spec,
        DiesAtStart(),
        hang_seconds=HANG_SECONDS,
        clock=clock,
        random=Random(0),
        wake=woken.set,
    )
    waits = []
    for _ in range(4):
        events: list[DeviceEvent] = []
        while not events:
            assert woken.wait(DEADLINE_SECONDS)
            woken.clear()
            events += process.poll()
        assert events == [Died("ended with code 7")]
        restart_at = process.due_at
        waits.append(restart_at - clock())
        if waits[-1] > 0:
            assert list(process.poll()) == []
            assert process.due_at == restart_at, "not before its time"
        clock.seconds = restart_at
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


def test_a_run_that_does_not_stop_loses_its_process_and_no_other_is_charged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(devices_module, "STOP_GRACE_SECONDS", 0.0)
    hung = Pipe(tmp_path / "hung")
    api = FakeApi()
    api.add(1, epochs=1, end="hang", beside=3, hung=str(hung.path))
    num_epochs = 500
    for run in range(2, 7):
        api.add(run, epochs=num_epochs)
    with at_work(new_agent(api)):
        hung.wait()
        api.cancel(1)
        api.wait_until(lambda: all_over(api))
    hung.close()
    assert ended(api, 1) == []
    assert 1 in [refusal.run for refusal in api.refused]
    ends = [ended(api, run) for run in range(2, 7)]
    assert ends.count(["released", "complete"]) == 3, "those that trained beside it"
    assert ends.count(["complete"]) == 2
    for run in range(2, 7):
        assert told(api, run) == expected(run, num_epochs)


def test_a_run_cancelled_in_mid_flight_frees_its_slot_and_changes_nothing() -> None:
    api = FakeApi()
    for run in (1, 2):
        api.add(run, epochs=1, end="linger")
    api.add(3, epochs=200)
    api.add(4)
    with at_work(new_agent(api, backend=ScriptedBackend(num_slots=3))):
        api.wait_until(lambda: api.runs[1].epochs and api.runs[2].epochs and api.runs[3].epochs)
        pid = pid_of(api, 1)
        api.cancel(1)
        api.wait_until(lambda: api.runs[3].state == api.runs[4].state == "DONE")
        api.cancel(2)
    assert told(api, 3) == expected(3, 200)
    assert told(api, 4) == expected(4)
    assert [ended(api, run) for run in (1, 2, 3, 4)] == [[], [], ["complete"], ["complete"]]
    assert {pid_of(api, run) for run in (2, 3, 4)} == {pid}, "the process goes on"


def test_a_dead_device_is_replaced_while_the_api_is_silent(tmp_path: Path) -> None:
    begun = Pipe(tmp_path / "begun")
    api = FakeApi()
    api.add(1, epochs=1, end="hang")
    api.add(2, begun=str(begun.path))
    with at_work(new_agent(api, backend=ScriptedBackend(num_slots=1))):
        api.wait_until(lambda: api.runs[1].epochs and api.runs[2].state == "RUNNING")
        api.hold_up(True)
        api.wait_for_calls(1)
        os.kill(pid_of(api, 1), signal.SIGKILL)
        begun.wait()
        api.hold_up(False)
        api.wait_until(lambda: api.runs[2].state == "DONE")
        api.cancel(1)
    begun.close()


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
    with at_work(new_agent(api, backend=EngineBackend(), devices=None)):
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
    for run in range(1, 25):
        api.add(run)
    with at_work(new_agent(api, devices=devices)):
        api.wait_until(lambda: all(run.state == "DONE" for run in api.runs.values()))
    pids = {run.epochs[1]["pid"] for run in api.runs.values()}
    assert len(pids) == 2
    assert {run.epochs[1]["niceness"] for run in api.runs.values()} == {
        float(os.nice(0) + CPU_NICENESS)
    }
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
