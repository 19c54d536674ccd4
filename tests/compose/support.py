"""What the compose test stands on: the engine's commands, the published port, bounded waiting."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = f"ridgeline-test-{os.getpid()}"
COMMAND_SECONDS = 120.0

_STARTED = time.monotonic()
_T = TypeVar("_T")


class Failed(Exception):
    """Something did not hold; the text says what."""


class Impossible(Exception):
    """The test cannot be run here; the text says why."""


def say(text: str) -> None:
    print(f"[{time.monotonic() - _STARTED:6.1f} s] {text}", flush=True)


def check(holds: bool, what: str) -> None:
    if not holds:
        raise Failed(f"does not hold: {what}")


def wait_for(what: str, ask: Callable[[], _T], timeout_seconds: float) -> _T:
    """The first true answer; asked a few times a second.

    Raises:
        Failed: there was none in time.
    """
    gives_up_at = time.monotonic() + timeout_seconds
    while not (answer := ask()):
        if time.monotonic() > gives_up_at:
            raise Failed(f"not within {timeout_seconds:g} s: {what}")
        time.sleep(0.25)
    return answer


def run(*args: str, timeout_seconds: float = COMMAND_SECONDS) -> str:
    """The standard output of a command that must succeed."""
    done = subprocess.run(
        args,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
        raise Failed(f"{' '.join(args[:6])} … ended with status {done.returncode}:\n{tail}")
    return done.stdout


def compose(*args: str, timeout_seconds: float = COMMAND_SECONDS) -> str:
    return run("docker", "compose", "-p", PROJECT, *args, timeout_seconds=timeout_seconds)


def containers(service: str | None = None) -> list[dict[str, Any]]:
    """What `docker inspect` tells of the project's containers, the ended ones too."""
    ids = compose("ps", "--all", "--quiet", *([service] if service else [])).split()
    return json.loads(run("docker", "inspect", *ids)) if ids else []


def require_engine() -> None:
    """
    Raises:
        Impossible: no engine answers, or its processes cannot be killed from here.
    """
    for command in (["docker", "version"], ["docker", "compose", "version"]):
        try:
            run(*command)
        except (OSError, Failed, subprocess.TimeoutExpired) as exc:
            raise Impossible(
                f"`{' '.join(command)}` does not answer; "
                "this test needs a Docker engine with the compose plugin"
            ) from exc
    if os.geteuid() != 0:
        raise Impossible("this test ends a container's process with kill -9, which needs root")


class Api:
    """The published port, with the admin's token or with none."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self._base = f"http://127.0.0.1:{port}"
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        # No proxy can reach this machine's loopback.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def call(self, path: str, body: object = None) -> tuple[int, bytes]:
        """The status and body of a GET, or of a POST where there is a body to send."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data=data, headers=self._headers)
        if data is not None:
            request.add_header("Content-Type", "application/json")
        try:
            with self._opener.open(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as exc:
            return exc.code, exc.read()

    def json(self, path: str, body: object = None) -> Any:
        status, text = self.call(path, body)
        check(status in (200, 201), f"{path} answers 200 or 201, not {status}: {text[:500]!r}")
        return json.loads(text)

    def pages(self, path: str, key: str) -> Iterator[Any]:
        token = ""
        while token is not None:
            page = self.json(f"{path}?page_size=100" + (f"&page_token={token}" if token else ""))
            yield from page[key]
            token = page["next_page_token"]

    def is_ready(self) -> bool:
        try:
            return self.call("/readyz")[0] == 200
        except OSError:
            return False
