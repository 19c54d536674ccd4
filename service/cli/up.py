"""`ridgeline up`: the whole service on one machine, as one tree of processes."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Annotated

import typer

from ridgeline.service import processes
from ridgeline.service.cli.environment import DEFAULT_URL, load_settings, own_command
from ridgeline.service.cli.options import DataRootOption, DieWithParentOption, PortOption
from ridgeline.service.cli.problems import Problem, complain, file_problems, needs_torch
from ridgeline.service.cli.sockets import listen
from ridgeline.service.cli.supervisor import Part, Supervisor
from ridgeline.service.client import Client
from ridgeline.service.files import own_folder, without_links
from ridgeline.service.settings import MAX_SOCKET_BYTES, Settings

DIE_GRACE_SECONDS = 30.0
"""Time to end in order, where the parent that started this is gone: see `Supervisor`."""

_SHORT_FOLDERS = ("/tmp", "/var/tmp")
_LONGEST_NAME = "ridgeline-xxxxxxxx/dashboard"

HomeOption = Annotated[
    Path | None, typer.Option(help="Folder of the database and the logs.", show_default=False)
]


def up(
    port: PortOption = None,
    home: HomeOption = None,
    data_root: DataRootOption = None,
    no_dashboard: Annotated[
        bool, typer.Option("--no-dashboard", help="Start no dashboard.")
    ] = False,
    no_worker: Annotated[bool, typer.Option("--no-worker", help="Start no worker.")] = False,
    die_with_parent: DieWithParentOption = False,
) -> None:
    """Start everything on this machine: the api, a worker and the dashboard, on SQLite.

    Ctrl-C ends it all; studies go on where they were at the next start.
    """
    if die_with_parent:
        processes.watch_parent(grace_seconds=DIE_GRACE_SECONDS)
    settings = load_settings(port=port, home=home, data_root=data_root, host="127.0.0.1")
    if not no_worker:
        needs_torch()
    with ExitStack() as stack:
        stack.enter_context(sole_user(settings.home))
        listener = stack.enter_context(listen(settings.host, settings.port))
        url = f"http://{settings.host}:{listener.getsockname()[1]}"
        socket = None if no_dashboard else stack.enter_context(dashboard_socket())
        env = _part_environment(settings, url, socket)
        api = _part(
            "api", settings, env, "serve", "--fd", str(listener.fileno()), fds=[listener.fileno()]
        )
        others = []
        if not no_worker:
            others.append(_part("worker", settings, env, "worker", "--token-from-database"))
        if socket is not None:
            others.append(_dashboard_part(settings, env))
        supervisor = Supervisor(api, others, say=complain)
        client = stack.enter_context(Client(url, retry_delays_seconds=()))
        supervisor.run(
            client.why_not_ready, lambda: _say_ready(url, settings.home, dashboard=not no_dashboard)
        )
        typer.echo("Ridgeline has stopped.")


@contextmanager
def sole_user(home: Path) -> Iterator[None]:
    """Hold the home folder: two embedded services on one database would share its workers.

    A folder made here is taken away again where the block fails before it has left a file there.

    Raises:
        Problem: another one runs there, or others may change it.
    """
    with ExitStack() as stack:
        with file_problems(f"use the folder {home}"):
            is_new = not home.exists()
            own_folder(home)
            own_folder(home / "logs")
            lock = stack.enter_context(open(home / "up.lock", "a", opener=without_links))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise Problem(
                f"ridgeline up runs in {home} already; end it, or choose another --home"
            ) from exc
        try:
            yield
        except Problem:
            if is_new:
                with suppress(OSError):  # the first of these fails where there are logs
                    (home / "logs").rmdir()
                    (home / "up.lock").unlink()
                    home.rmdir()
            raise


@contextmanager
def dashboard_socket() -> Iterator[Path]:
    """Where the dashboard listens for the api: a path in a folder for this user alone.

    It is not in the home folder, since a socket's path has room for about 100 bytes; so may TMPDIR
    be too long.

    Raises:
        Problem: there is no folder for it.
    """
    with ExitStack() as stack:
        with file_problems("make a folder for the dashboard's socket"):
            parent = short_folder([Path(gettempdir()), *map(Path, _SHORT_FOLDERS)])
            folder = stack.enter_context(TemporaryDirectory(prefix="ridgeline-", dir=parent))
        yield Path(folder, "dashboard")


def short_folder(folders: Sequence[Path]) -> Path:
    """The first of some folders that can be written to and has room for a socket's path.

    Raises:
        Problem: none is.
    """
    for folder in folders:
        path = folder.absolute() / _LONGEST_NAME
        if len(os.fsencode(path)) <= MAX_SOCKET_BYTES and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise Problem(
        f"no folder for the dashboard's socket, whose path may have {MAX_SOCKET_BYTES} bytes: set "
        f"TMPDIR to a shorter path than {folders[0]}, or start with --no-dashboard"
    )


def _part_environment(settings: Settings, url: str, socket: Path | None) -> dict[str, str]:
    env = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "RIDGELINE_HOME": str(settings.home.absolute()),
        "RIDGELINE_HOST": settings.host,
        "RIDGELINE_PORT": url.rpartition(":")[2],
        "RIDGELINE_URL": url,
    }
    if settings.data_root is not None:
        env["RIDGELINE_DATA_ROOT"] = str(settings.data_root.absolute())
    env.pop("RIDGELINE_DASHBOARD_SOCKET", None)
    if socket is not None:
        env["RIDGELINE_DASHBOARD_SOCKET"] = str(socket)
    return env


def _part(
    name: str, settings: Settings, env: dict[str, str], *args: str, fds: Sequence[int] = ()
) -> Part:
    command = [sys.executable, "-P", "-m", "ridgeline.service.cli", *args, "--die-with-parent"]
    return Part(name, command, env, settings.home / "logs" / f"{name}.log", fds, bool(fds))


def _dashboard_part(settings: Settings, env: dict[str, str]) -> Part:
    command = [sys.executable, "-P", "-m", "ridgeline.service.dashboard", "--die-with-parent"]
    return Part("dashboard", command, env, settings.home / "logs" / "dashboard.log")


def _say_ready(url: str, home: Path, *, dashboard: bool) -> None:
    prefix = "" if url == DEFAULT_URL else f"RIDGELINE_URL={url} "
    lines = [
        f"Ridgeline runs at {url}",
        f"  status      {url}/status",
        *([f"  dashboard   {url}/dashboard"] if dashboard else []),
        f"  API         {url}/docs",
        f"  files       {home.absolute()}",
        "Next, in another terminal:",
        f"  {prefix}{own_command()} run examples/tpe.yaml --follow",
        "Ctrl-C ends everything; studies go on at the next start.",
    ]
    typer.echo("\n".join(lines))
