"""How a worker with real device processes ends."""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from ridgeline.service.protocol import DatasetInfo
from ridgeline.service.worker import agent as agent_module
from ridgeline.service.worker.agent import run_worker
from ridgeline.service.worker.api import CallFailed
from tests.tasks.idx_files import write_folder
from tests.worker.fakes import DEADLINE_SECONDS, HANG_SECONDS, FakeApi
from tests.worker.running import Running, at_work, new_agent, pid_of, wait_for_death
from tests.worker.trainers import DiesAtStart, NoDevice

pytestmark = pytest.mark.slow


ROOT = Path(__file__).parents[2]


@contextmanager
def agent_process(folder: Path = ROOT) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A worker process that trains, in a group of its own, and the id of its device process."""
    process = subprocess.Popen(
        [sys.executable, ROOT / "tests" / "worker" / "agent_process.py"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert process.stdout is not None
    try:
        assert select.select([process.stdout], [], [], DEADLINE_SECONDS)[0], "waited in vain"
        yield process, json.loads(process.stdout.readline())["device_pid"]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_no_device_process_outlives_a_killed_agent() -> None:
    with agent_process() as (process, device_pid):
        process.kill()
        wait_for_death(device_pid)


def test_a_device_process_that_is_stopped_does_not_outlive_its_worker() -> None:
    with agent_process() as (process, device_pid):
        os.kill(device_pid, signal.SIGSTOP)
        process.kill()
        wait_for_death(device_pid)


@pytest.mark.parametrize(
    ("number", "whole_group"),
    [(signal.SIGTERM, False), (signal.SIGTERM, True), (signal.SIGINT, True)],
)
def test_a_worker_told_to_end_gives_its_runs_back(
    number: signal.Signals, whole_group: bool
) -> None:
    with agent_process() as (process, device_pid):
        if whole_group:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        assert process.stdout is not None
        told: dict[str, Any] = json.loads(process.stdout.readline())
        assert process.wait(DEADLINE_SECONDS) == 0
        wait_for_death(device_pid)
    assert told == {
        "ends": [[1, "released"], [2, "released"]],
        "states": ["WAITING", "WAITING"],
        "worker": "GONE",
        "torch": False,
    }


def test_a_worker_runs_nothing_that_lies_in_the_current_folder(tmp_path: Path) -> None:
    for module in ("signal", "socket", "multiprocessing", "pickle", "torch", "ridgeline"):
        (tmp_path / f"{module}.py").write_text(
            "import os, sys\nopen('ran', 'a').write(f'{__name__} {sys.orig_argv}\\n')\n"
        )
    with agent_process(tmp_path) as (process, _):
        process.terminate()
        assert process.wait(DEADLINE_SECONDS) == 0
    ran = tmp_path / "ran"
    assert not ran.exists(), ran.read_text()


@pytest.mark.parametrize("twice", [False, True])
def test_a_worker_leaves_even_if_the_api_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, twice: bool
) -> None:
    if not twice:
        monkeypatch.setattr(agent_module, "LEAVE_SECONDS", 0.0)
    api = FakeApi()
    api.add(1, epochs=1, end="hang")
    running = Running(new_agent(api))
    running.start()
    api.wait_until(lambda: api.runs[1].epochs)
    device_pid = pid_of(api, 1)
    api.fail(CallFailed(None, "no route"))
    running.agent.leave()
    if twice:
        running.agent.leave()
    assert running.result() == 0
    wait_for_death(device_pid)


@pytest.mark.parametrize("end", ["hang", "hang_up", "stop", "stop_in_a_message"])
def test_a_worker_leaves_however_its_device_hangs(end: str) -> None:
    api = FakeApi()
    api.add(1, epochs=1, end=end)
    running = Running(new_agent(api))
    running.start()
    api.wait_until(lambda: api.runs[1].epochs)
    device_pid = pid_of(api, 1)
    running.agent.leave()
    assert running.result() == 0
    assert api.workers["w0"].state == "GONE"
    wait_for_death(device_pid)


def test_a_worker_leaves_before_its_devices_are_ready() -> None:
    agent = new_agent(FakeApi())
    agent.leave()
    assert agent.run() == 0


def test_a_device_that_is_not_there_ends_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    agent = new_agent(FakeApi(), backend=NoDevice(), devices=("cpu:9",))
    assert agent.run() == 2
    assert [record.getMessage() for record in caplog.records] == [
        "cpu:9 cannot be used: there is no device cpu:9 here"
    ]


def test_a_device_that_dies_at_each_start_ends_the_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    agent = new_agent(FakeApi(), backend=DiesAtStart(), devices=("cpu:0",))
    assert agent.run() == 2
    assert [record.getMessage() for record in caplog.records][-1] == (
        "cpu:0 cannot be used: at each of its starts the process ended with code 7"
    )


def test_a_token_that_is_refused_ends_the_worker(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    api = FakeApi()
    api.fail(CallFailed(401, "no such token (HTTP 401)"))
    assert new_agent(api).run() == 1
    assert [record.getMessage() for record in caplog.records] == [
        "the api refuses this worker: no such token (HTTP 401); it needs a token with the scope "
        "worker, in RIDGELINE_TOKEN or RIDGELINE_TOKEN_FILE"
    ]


SETTINGS: dict[str, Any] = {
    "name": "test",
    "data_root": None,
    "device_threads": 1,
    "pack_width": None,
    "compile": False,
    "cache_dir": None,
    "checkpoint_seconds": 10.0,
    "hang_seconds": HANG_SECONDS,
    "function_slots": None,
    "log_format": "text",
}


@pytest.mark.parametrize(("url", "token"), [("nowhere", None), ("http://localhost", "caf\u00e9")])
def test_an_address_or_token_that_cannot_be_one_ends_the_worker(
    url: str, token: str | None
) -> None:
    assert run_worker(url, token, devices=None, **SETTINGS) == 2


class Refusing(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert self.headers["Authorization"] == "Bearer rl_canary_secret"
        self.send_response(403)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_worker_over_http(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    before = signal.getsignal(signal.SIGTERM)
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        status = run_worker(
            f"http://127.0.0.1:{server.server_port}",
            "rl_canary_secret",
            devices=["cpu:0"],
            **SETTINGS,
        )
    assert status == 1
    assert "(HTTP 403); it needs a token with the scope worker" in caplog.text
    assert "canary" not in caplog.text
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_folder_that_comes_later_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ridgeline.service.worker.folders.LOOK_SECONDS", 0.01)
    write_folder(tmp_path / "one")
    api = FakeApi()

    def names(datasets: Sequence[DatasetInfo] | None) -> list[str]:
        return [dataset.name for dataset in datasets or ()]

    with at_work(new_agent(api, data_root=tmp_path)):
        api.wait_until(lambda: api.workers)
        assert names(api.workers["w0"].registration.datasets) == ["one"]
        write_folder(tmp_path / "new" / "two")
        (tmp_path / "new" / "two").rename(tmp_path / "two")
        api.wait_until(lambda: names(api.told_datasets.get("w0")) == ["one", "two"])
