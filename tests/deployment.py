"""The whole service as processes: api, workers, and the client's view."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ridgeline.service import processes
from ridgeline.service.client import Client
from ridgeline.service.lifecycle import StudyState
from ridgeline.service.resources import Event, Trial

ROOT = Path(__file__).parents[1]

REGISTER_SECONDS = 120.0
"""A bound on what may go wrong, not a measure: a loaded machine takes long to import torch."""


class Deployment:
    """An api and workers on one database, each a process that can be killed.

    Leases are short, so that a killed worker's runs come back soon.

    Args:
        home: of logs and of files that the service keeps.
        settings: variables of the environment, before those below.
    """

    def __init__(
        self, database_url: str, home: Path, settings: Mapping[str, str] | None = None
    ) -> None:
        self.database_url = database_url
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._home = home
        self.env = {
            **os.environ,
            "RIDGELINE_DATABASE_URL": database_url,
            "RIDGELINE_HOME": str(home),
            "RIDGELINE_PORT": str(self.port),
            "RIDGELINE_URL": self.url,
            "RIDGELINE_LEASE_SECONDS": "5",
            "RIDGELINE_SYNC_INTERVAL_SECONDS": "0.2",
            "RIDGELINE_DEVICE_THREADS": "1",
            # The same program for every run, so that outcomes can be compared to the bit.
            "RIDGELINE_PACK_WIDTH": "4",
            "RIDGELINE_COMPILE": "false",
            "PYTHONPATH": str(ROOT),
            **(settings or {}),
        }
        self._processes: dict[subprocess.Popen[bytes], str] = {}
        # Patient: the api is killed and started again under its hands, on machines that are busy.
        self.client = Client(self.url, retry_delays_seconds=(0.25,) * 1_200)
        self.api: subprocess.Popen[bytes]

    def start_api(self, *args: str) -> None:
        """Start the api, or what `args` name in its place, and wait until it answers."""
        self.spawn_api(*args)
        self.client.workers()

    def spawn_api(self, *args: str) -> None:
        """The same without waiting."""
        command = args or ("-m", "ridgeline.service.cli", "serve")
        self.api = self._spawn("api", *command)

    def start_worker(self) -> subprocess.Popen[bytes]:
        """Start a worker and wait until the api knows it."""
        process = self.spawn_worker()
        deadline = time.monotonic() + REGISTER_SECONDS
        while not any(worker.name == self.name(process) for worker in self.client.workers()):
            assert process.poll() is None, f"the worker ended; see {self.log(process)}"
            assert time.monotonic() < deadline, "the worker did not register"
        return process

    def spawn_worker(self, *args: str) -> subprocess.Popen[bytes]:
        """Start a worker, or what `args` name in its place."""
        name = f"worker-{len(self._processes)}"
        command = args or ("-m", "ridgeline.service.cli", "worker")
        return self._spawn(name, *command, "--name", name)

    def name(self, process: subprocess.Popen[bytes]) -> str:
        """What a worker is called in the api's list."""
        return self._processes[process]

    def log(self, process: subprocess.Popen[bytes]) -> Path:
        return self._home / f"{self._processes[process]}.log"

    def kill(self, process: subprocess.Popen[Any]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()

    def follow(self, name: str) -> Iterator[Event]:
        """The events of a study, to its end; survives the api's death."""
        last = 0
        while True:
            for event in self.client.events(name, after=last):
                last = event.id
                yield event
            if self.client.study(name).finished_at is not None:
                return

    def outcome(self, name: str) -> list[Trial]:
        """Wait for the study to complete; its trials."""
        for _ in self.follow(name):
            pass
        assert self.client.study(name).state is StudyState.COMPLETED
        return list(self.client.trials(name))

    def close(self) -> None:
        self.client.close()
        for process in reversed(self._processes):
            processes.terminate(process, grace_seconds=20)

    def _spawn(self, name: str, *args: str) -> subprocess.Popen[bytes]:
        log = (self._home / f"{name}.log").open("ab")
        with log:
            process = processes.spawn(
                [sys.executable, *args, "--die-with-parent"],
                env=self.env,
                output=log.fileno(),
            )
        self._processes[process] = name
        return process


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
