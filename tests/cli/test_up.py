"""`ridgeline up` as people start and end it: real processes, a real study."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx
import pytest

from ridgeline.service.client import Client
from ridgeline.service.lifecycle import StudyState
from tests.chaos.disk import small_disk

pytestmark = pytest.mark.slow

DEADLINE_SECONDS = 120

SPEC = {
    "name": "s",
    "task": {"name": "mlp", "dataset": "digits", "hidden": [16]},
    "space": {"learning_rate": {"type": "float", "low": 1e-3, "high": 1e-1, "log": True}},
    "sampler": {"name": "random", "seed": 1},
    "budget": {"trials": 4, "epochs": 2},
}


class Up:
    """A running `ridgeline up`."""

    def __init__(self, process: subprocess.Popen[str], home: Path, url: str) -> None:
        self.process = process
        self.home = home
        self.url = url

    def pids(self) -> set[int]:
        """Every process of this service, the first one left out."""
        mark = f"RIDGELINE_HOME={self.home}\0".encode()
        found = set()
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                    found.add(int(entry.name))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return found

    def pid_of(self, command: str) -> int:
        """The process whose command line names `command`."""
        (pid,) = (
            pid
            for pid in self.pids()
            if command.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        )
        return pid

    def end(self, number: signal.Signals) -> tuple[int, str]:
        """Send a signal to the group; the exit status, and the rest of what it printed."""
        os.killpg(self.process.pid, number)
        rest, _ = self.process.communicate(timeout=DEADLINE_SECONDS)
        return self.process.returncode, rest


@contextmanager
def up(home: Path, *options: str, stderr: int | None = None, **variables: str) -> Iterator[Up]:
    env = {name: text for name, text in os.environ.items() if not name.startswith("RIDGELINE_")}
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "ridgeline.service.cli",
            "up",
            "--home",
            str(home),
            "--port",
            "0",
            *options,
        ],
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        env={**env, "PYTHONUNBUFFERED": "1", **variables},
        process_group=0,
    )
    assert process.stdout is not None
    try:
        yield Up(process, home, "" if stderr == subprocess.STDOUT else ready(process.stdout))
    finally:
        process.kill()
        process.communicate()


def ready(output: IO[str]) -> str:
    """The URL, once the service runs."""
    first = output.readline()
    assert first.startswith("Ridgeline runs at http://127.0.0.1:"), first
    return first.split()[-1]


def wait_for_the_end_of(pids: set[int]) -> None:
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            ended, _, _ = select.select([descriptor], [], [], DEADLINE_SECONDS)
            assert ended, f"process {pid} goes on"
        finally:
            os.close(descriptor)


def test_a_study_from_start_to_end_and_ctrl_c(tmp_path: Path) -> None:
    with up(tmp_path) as service:
        with Client(service.url) as client:
            client.create_study(SPEC)
            events = list(client.events("s"))
            assert events[-1].id == client.study("s").revision
            assert client.study("s").state is StudyState.COMPLETED
            assert "test_accuracy" in client.best("s").runs[0].metrics
        status, rest = service.end(signal.SIGINT)
        assert status == 0
        assert rest.splitlines()[-1] == "Ridgeline has stopped."
        assert service.pids() == set()


def test_a_port_and_the_dashboard(tmp_path: Path) -> None:
    with up(tmp_path, "--no-worker") as service:
        assert service.process.stdout is not None
        for page in ("status", "dashboard", "docs"):
            assert service.process.stdout.readline().endswith(f" {service.url}/{page}\n")
        with Client(service.url) as client:
            # The dashboard starts last, and says so through the api.
            while httpx.get(f"{service.url}/dashboard").status_code == 503:
                assert service.process.poll() is None
            assert httpx.get(f"{service.url}/dashboard").status_code == 200
            client.create_study(SPEC)
            assert "no worker is connected" in str(client.study("s").reason)
        assert service.end(signal.SIGTERM)[0] == 0


def test_no_process_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    with up(tmp_path) as service:
        with Client(service.url) as client:
            client.create_study({**SPEC, "budget": {"trials": 100_000, "epochs": 100}})
            # Wait for the worker's own child: it is there when something trains.
            next(event for event in client.events("s") if event.type == "report")
        pids = service.pids()
        assert len(pids) >= 4  # api, worker, its device, dashboard
        service.process.kill()
        wait_for_the_end_of(pids)
        assert service.pids() == set()


def test_parts_that_are_killed_start_again_and_the_study_completes(tmp_path: Path) -> None:
    """Nor does it end where it cannot tell of them."""
    with (
        open("/dev/full", "wb") as full,
        up(tmp_path, "--no-dashboard", stderr=full.fileno()) as service,
    ):
        with Client(service.url, retry_delays_seconds=[0.5] * 100) as client:
            client.create_study({**SPEC, "budget": {"trials": 20, "epochs": 20}})
            events = client.events("s")
            next(event for event in events if event.type == "report")
            os.kill(service.pid_of("serve"), signal.SIGKILL)
            next(event for event in events if event.type == "report")
            os.kill(service.pid_of("worker"), signal.SIGKILL)
            for _ in events:
                pass
            study = client.study("s")
            assert study.state is StudyState.COMPLETED
            assert study.trials.complete == 20
        assert service.end(signal.SIGINT)[0] == 0
        assert service.pids() == set()


def test_the_worker_gets_a_token_once_there_are_tokens(tmp_path: Path) -> None:
    with up(tmp_path, "--no-dashboard") as service:
        made = subprocess.run(
            [
                sys.executable,
                "-m",
                "ridgeline.service.cli",
                "token",
                "create",
                "me",
                "--scope",
                "write",
            ],
            env={**os.environ, "RIDGELINE_HOME": str(tmp_path)},
            check=True,
            capture_output=True,
            text=True,
        )
        with Client(service.url, made.stdout.strip()) as client:
            client.create_study(SPEC)
            for _ in client.events("s"):
                pass
            assert client.study("s").state is StudyState.COMPLETED
        assert service.end(signal.SIGINT)[0] == 0


def test_a_worker_that_cannot_start_ends_it_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ridgeline.service.cli",
            "up",
            "--home",
            str(tmp_path),
            "--port",
            "0",
        ],
        env={**os.environ, "RIDGELINE_CACHE_DIR": str(tmp_path / "file")},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "ridgeline: the worker ended (exit status 2): ridgeline: RIDGELINE_CACHE"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk")
def test_a_disk_without_room_is_told_and_waited_for(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path, size="30m") as disk,
        up(disk.folder, "--no-worker", stderr=subprocess.STDOUT) as service,
    ):
        assert service.process.stdout is not None
        line = service.process.stdout.readline()
        assert line.startswith("ridgeline: the api is not ready yet: the database's disk has")
        assert line.endswith(" MiB left, and 32 are needed: make room on it\n")
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk.folder)], check=True)
        service.url = ready(service.process.stdout)
        assert httpx.get(f"{service.url}/readyz").is_success
        assert service.end(signal.SIGINT)[0] == 0


def test_the_dashboard_answers_where_tmpdir_is_too_long_for_its_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 90) / ("y" * 80)
    folder.mkdir(parents=True)
    with up(tmp_path / "home", "--no-worker", TMPDIR=str(folder)) as service:
        while "degraded" in (answer := httpx.get(f"{service.url}/readyz").text):
            assert service.process.poll() is None, answer
        assert httpx.get(f"{service.url}/dashboard").is_success
        assert service.end(signal.SIGINT)[0] == 0
