"""The dashboard's process and the api on a socket, for tests that need the real ones."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn
from starlette.types import ASGIApp

from ridgeline.service.api.connections import Connection
from ridgeline.service.cli.sockets import listen


@contextmanager
def dashboard_process(database_url: str, socket: Path) -> Iterator[subprocess.Popen[str]]:
    """The process of the dashboard; `wait_until_listening` returns when it can be called."""
    command = [sys.executable, "-m", "ridgeline.service.dashboard", "--die-with-parent"]
    process = subprocess.Popen(
        [*command, "--socket", str(socket), "--database-url", database_url],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait()
        process.stderr.close()


def wait_until_listening(process: subprocess.Popen[str], *, said: list[str] | None = None) -> None:
    """Returns once the dashboard logs that it listens; what it logs later is read and dropped.

    Args:
        said: gets the lines until then.
    """
    assert process.stderr is not None
    said = [] if said is None else said
    for line in process.stderr:
        said.append(line)
        if "dashboard on the socket" in line:
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return
    raise AssertionError("".join(said))


def through(socket: Path) -> httpx.Client:
    """A client of what listens on a Unix socket."""
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://any.host")


@contextmanager
def serving(app: ASGIApp, port: int = 0) -> Iterator[str]:
    """The app on a port of loopback, a free one where left out; its URL."""
    listening = listen("127.0.0.1", port)
    server = uvicorn.Server(
        uvicorn.Config(app, http=Connection, log_level="warning", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
