"""The dashboard's process and the api on a socket, for tests that need the real ones."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from service.cli.sockets import listen


@contextmanager
def dashboard_process(database_url: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m service.dashboard` on a free port; `wait_for_url` tells where."""
    command = [sys.executable, "-m", "service.dashboard", "--port", "0", "--die-with-parent"]
    process = subprocess.Popen(
        [*command, "--database-url", database_url],
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


def wait_for_url(process: subprocess.Popen[str]) -> str:
    """Where the dashboard listens, as it logs it; what it logs later is read and dropped."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        match = re.search(r"dashboard on (http://\S+),", line)
        if match:
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return match[1]
    raise AssertionError("".join(said))


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The app on a free port of loopback; its URL."""
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
