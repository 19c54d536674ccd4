"""Real device processes that hang, in one way or another: none holds its worker up."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from random import Random

import pytest

from ridgeline.service.worker import process as process_module
from ridgeline.service.worker.devices import SLOW_SECONDS
from ridgeline.service.worker.messages import Beat, DeviceEvent, Died, Hello
from ridgeline.service.worker.process import DeviceProcess
from ridgeline.service.worker.training import DeviceSpec
from tests.worker.fakes import DEADLINE_SECONDS, MAX_CHARGES, FakeApi, ManualClock
from tests.worker.running import all_over, at_work, check_found, ended, new_agent, pid_of
from tests.worker.trainers import ScriptedBackend, StopsOnce

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("end", "reason"),
    [("hang", "a step did not end for 2 s"), ("stop", "it said nothing for too long")],
)
def test_a_run_that_hangs_is_found_and_fails_alone(end: str, reason: str) -> None:
    api = FakeApi()
    num_slots = 4
    for run in range(1, num_slots + 3):
        api.add(run) if run != 2 else api.add(2, epochs=1, end=end)
    with at_work(new_agent(api, backend=ScriptedBackend(num_slots), hang_seconds=2)):
        api.wait_until(lambda: all_over(api))
    check_found(api, 2, num_slots, outcome="timeout")
    errors = {end.error for end in api.runs[2].ends if end.outcome == "timeout"}
    assert errors == {f"the device process was killed: {reason}"}


def test_a_run_that_trains_for_too_long_is_stopped_and_its_process_goes_on() -> None:
    api = FakeApi()
    api.add(1, end="linger")
    api.runs[1].order = api.runs[1].order.model_copy(update={"run_seconds": 0.3})
    api.add(2)
    with at_work(new_agent(api, backend=ScriptedBackend(num_slots=1))):
        api.wait_until(lambda: all_over(api))
        api.add(3)
        api.wait_until(lambda: all_over(api))
    assert ended(api, 1) == ["timeout"] * MAX_CHARGES
    assert [ended(api, run) for run in (2, 3)] == [["complete"], ["complete"]]
    assert pid_of(api, 2) == pid_of(api, 3)


def test_a_process_that_does_not_get_ready_is_started_anew(tmp_path: Path) -> None:
    clock, woken = ManualClock(), threading.Event()
    spec = DeviceSpec("cpu:0", tmp_path)
    process = DeviceProcess(
        spec, StopsOnce(), hang_seconds=5, clock=clock, random=Random(0), wake=woken.set
    )
    assert process.due_at == clock() + SLOW_SECONDS
    for _ in ("doubted", "killed"):
        clock.seconds = process.due_at
        assert list(process.poll()) == []
    (tmp_path / "cpu:0").touch()  # the next one does not stop, whatever the first had come to
    events: list[DeviceEvent] = []
    while not any(isinstance(event, Hello) for event in events):
        assert process.due_at <= clock() or woken.wait(DEADLINE_SECONDS)
        woken.clear()
        events += process.poll()
    assert events[0] == Died("was killed: it said nothing for too long", is_hung=True)
    process.hang_up()
    process.finish(clock() + DEADLINE_SECONDS)


def test_a_worker_that_was_stopped_itself_takes_no_device_for_hung() -> None:
    clock, woken = ManualClock(), threading.Event()
    process = DeviceProcess(
        DeviceSpec("cpu:0", None),
        ScriptedBackend(),
        hang_seconds=5,
        clock=clock,
        random=Random(0),
        wake=woken.set,
    )
    while process.due_at != clock() + 5:
        assert woken.wait(DEADLINE_SECONDS)
        woken.clear()
        list(process.poll())
    clock.seconds += 1_000
    heard = list(process.poll())
    while not heard:
        assert woken.wait(DEADLINE_SECONDS)
        woken.clear()
        heard += process.poll()
    assert {type(message) for message in heard} == {Beat}
    assert process.due_at == clock() + 5
    process.hang_up()
    process.finish(clock() + DEADLINE_SECONDS)


def test_a_device_that_closes_its_pipes_and_lives_on_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process_module, "REAP_SECONDS", 0.5)
    api = FakeApi()
    api.add(1, epochs=1, end="hang_up")
    api.add(2)
    with at_work(new_agent(api, backend=ScriptedBackend(num_slots=1))):
        api.wait_until(lambda: all_over(api))
    assert ended(api, 1) == ["crashed"] * MAX_CHARGES
    error = "the device process was killed: it closed its pipe and did not end"
    assert api.runs[1].ends[0].error == error
    assert ended(api, 2) == ["complete"]


def test_a_message_that_is_cut_off_holds_nobody_up() -> None:
    api = FakeApi()
    api.add(1, epochs=1, end="stop_in_a_message")
    with at_work(new_agent(api, devices=("cpu:0", "cpu:1"))):
        api.wait_until(lambda: api.runs[1].epochs)
        api.add(2)
        api.wait_until(lambda: api.runs[2].state == "DONE")
        os.kill(pid_of(api, 1), signal.SIGKILL)
        api.wait_until(lambda: api.runs[1].ends)
        assert ended(api, 1) == ["crashed"]
        api.cancel(1)


def test_a_device_that_does_not_read_holds_nobody_up() -> None:
    api = FakeApi()
    api.add(1, epochs=1, end="stop")
    with at_work(new_agent(api, backend=ScriptedBackend(num_slots=400))):
        api.wait_until(lambda: api.runs[1].epochs)
        for run in range(2, 400):  # orders past what a pipe takes
            api.add(run, text="x" * 1_000)
        api.wait_until(lambda: all(run.state == "RUNNING" for run in api.runs.values()))
        api.wait_for_calls(3)
        os.kill(pid_of(api, 1), signal.SIGCONT)
        api.cancel(1)
        api.wait_until(lambda: all_over(api))
