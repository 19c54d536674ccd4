"""What a running service listens on, as the kernel tells it, and who may come in there."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from ridgeline.service.client import Client
from tests.api.calling import problem
from tests.cli.test_up import SPEC, up
from tests.listening import doors

pytestmark = pytest.mark.slow


def test_the_api_is_the_one_way_in(tmp_path: Path) -> None:
    """While a worker trains and the dashboard runs: the api's port, and the dashboard's socket."""
    with up(tmp_path) as service:
        with Client(service.url) as client:
            client.create_study({**SPEC, "budget": {"trials": 100_000, "epochs": 100}})
            next(event for event in client.events("s") if event.type == "report")
            # The dashboard starts last, and says so through the api.
            while httpx.get(f"{service.url}/dashboard").status_code == 503:
                assert service.process.poll() is None
        pids = service.pids() | {service.process.pid}
        assert len(pids) >= 5  # `up`, api, worker, its device, dashboard
        port = httpx.URL(service.url).port
        found = doors(pids)
        (dashboard,) = (door for door in found if door.startswith("unix "))
        assert found == {f"tcp 127.0.0.1 {port}", dashboard}

        # Behind the port a token is asked for, from the first one on; other users of the machine
        # cannot reach the socket.
        subprocess.run(
            [
                sys.executable,
                "-m",
                "ridgeline.service.cli",
                "token",
                "create",
                "me",
                "--scope",
                "read",
            ],
            env={**os.environ, "RIDGELINE_HOME": str(tmp_path)},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        for path in ("/v1/studies", "/dashboard", "/api/studies"):
            problem(httpx.get(service.url + path), 401)
        behind = Path(dashboard.removeprefix("unix "))
        for place, mode in ((behind, 0o600), (behind.parent, 0o700)):
            status = place.stat()
            assert stat.S_IMODE(status.st_mode) == mode
            assert status.st_uid == os.getuid()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_port_would_be_found(family: socket.AddressFamily, kind: socket.SocketKind) -> None:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.socket(family, kind) as door:
        door.bind((host, 0))
        if kind == socket.SOCK_STREAM:
            door.listen()
        name = ("tcp" if kind == socket.SOCK_STREAM else "udp") + ("6" if ":" in host else "")
        assert f"{name} {host} {door.getsockname()[1]}" in doors([os.getpid()])


def test_a_unix_socket_would_be_found() -> None:
    with socket.socket(socket.AF_UNIX) as door:
        door.bind("\0ridgeline-test")  # a name without a file, which anybody could connect to
        door.listen()
        assert "unix @ridgeline-test" in doors([os.getpid()])
