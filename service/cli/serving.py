"""Commands that run the service or a part of it: up, serve, worker, migrate."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

import typer

from service import processes
from service.cli.environment import (
    DEFAULT_URL,
    load_settings,
    open_database,
    read_token,
    service_url,
)
from service.cli.problems import Problem, file_problems
from service.cli.supervisor import Part, Supervisor
from service.cli.tokens import ensure_token_file
from service.client import ApiError, Client, Unreachable
from service.settings import Settings

_BACKLOG = 2_048
_GRACEFUL_SHUTDOWN_SECONDS = 5

HomeOption = Annotated[
    Path | None, typer.Option(help="Folder of the database and the logs.", show_default=False)
]
PortOption = Annotated[
    int | None,
    typer.Option(help="Port of the api; 0 takes a free one.", show_default=False, min=0, max=65535),
]
DataRootOption = Annotated[
    Path | None,
    typer.Option(help="Folder whose sub-folders of IDX files are data sets.", show_default=False),
]
DieWithParentOption = Annotated[bool, typer.Option("--die-with-parent", hidden=True)]


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
        processes.watch_parent(grace_seconds=30.0)
    settings = load_settings(port=port, home=home, data_root=data_root, host="127.0.0.1")
    with ExitStack() as stack:
        stack.enter_context(sole_user(settings.home))
        listener = stack.enter_context(_listen(settings.host, settings.port))
        url = f"http://{settings.host}:{listener.getsockname()[1]}"
        dashboard_port = None if no_dashboard else free_port()
        env = _part_environment(settings, url, dashboard_port)
        api = _part(
            "api", settings, env, "serve", "--fd", str(listener.fileno()), fds=[listener.fileno()]
        )
        others = []
        if not no_worker:
            others.append(_part("worker", settings, env, "worker", "--token-from-database"))
        if dashboard_port is not None:
            others.append(_dashboard_part(settings, env, dashboard_port))
        supervisor = Supervisor(api, others, say=lambda line: print(line, file=sys.stderr))
        client = stack.enter_context(Client(url, retry_delays_seconds=()))
        supervisor.run(
            client.is_ready, lambda: _say_ready(url, settings.home, dashboard=not no_dashboard)
        )
        typer.echo("Ridgeline has stopped.")


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", show_default=False)
    ] = None,
    port: PortOption = None,
    fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    die_with_parent: DieWithParentOption = False,
) -> None:
    """Start the api alone.

    It listens beyond this machine only once there is a token: see `ridgeline token create`.
    """
    if die_with_parent:
        processes.watch_parent()
    settings = load_settings(host=host, port=port)
    import uvicorn

    from service.api.app import create_app
    from service.api.auth import UnsafeBinding, check_binding

    _log_to_stderr()
    with ExitStack() as stack:
        store = stack.enter_context(open_database(settings))
        try:
            check_binding(settings, store)
        except UnsafeBinding as exc:
            raise Problem(str(exc), exit_code=2) from exc
        listener = stack.enter_context(
            _listen(settings.host, settings.port) if fd is None else socket.socket(fileno=fd)
        )
        # uvicorn repeats the signal it was stopped by once it has stopped; this was its purpose.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        config = uvicorn.Config(
            create_app(settings, store),
            log_config=None,
            access_log=False,  # workers call twice a second
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACEFUL_SHUTDOWN_SECONDS,
        )
        server = uvicorn.Server(config)
        server.run(sockets=[listener])
        if not server.started:
            raise Problem("the api could not start; its log says why")


def worker(
    name: Annotated[
        str | None,
        typer.Option(help="Name to show; left out: the machine's.", show_default=False),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="A device to use, such as cuda:0 or cpu:0; may be repeated; "
            "left out: every GPU, or the CPU where there is none.",
            show_default=False,
        ),
    ] = None,
    data_root: DataRootOption = None,
    token_from_database: Annotated[bool, typer.Option(hidden=True)] = False,
    die_with_parent: DieWithParentOption = False,
) -> None:
    """Start a worker that trains the runs of the service at RIDGELINE_URL."""
    if die_with_parent:
        processes.watch_parent(grace_seconds=10.0)
    settings = load_settings(data_root=data_root)
    token = _own_token(settings) if token_from_database else read_token()
    from service.worker.agent import run_worker

    _log_to_stderr()
    status = run_worker(
        service_url(),
        token,
        name=name or socket.gethostname(),
        data_root=settings.data_root,
        devices=device or None,
        device_threads=settings.device_threads,
    )
    raise typer.Exit(status)


def migrate() -> None:
    """Create the database's tables, or bring them to this version.

    Where RIDGELINE_TOKEN_DIR is set, it also leaves the files admin.token and worker.token there,
    once; on PostgreSQL it also creates the read-only role that RIDGELINE_DASHBOARD_DATABASE_URL
    names.
    """
    settings = load_settings()
    with open_database(settings) as store:
        token_dir = os.environ.get("RIDGELINE_TOKEN_DIR")
        if token_dir:
            for scope in ("admin", "worker"):
                ensure_token_file(store, Path(token_dir, f"{scope}.token"), scope, [scope])
        if settings.dashboard_database_url is not None:
            from service.store.roles import grant_reading

            grant_reading(store.url, settings.dashboard_database_url)
    typer.echo("The database is ready.")


def _log_to_stderr() -> None:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # One line for each request to the dashboard or the api would hide all others.
    logging.getLogger("httpx").setLevel(logging.WARNING)


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _own_token(settings: Settings) -> str | None:
    """The token for the worker of `up`, made once the service asks for one.

    Somebody may create the first token while `up` runs.  The worker is then refused, ends, is
    started again, and comes by here.
    """
    path = settings.home / "worker.token"
    token = read_token() or (path.read_text(encoding="ascii").strip() if path.exists() else None)
    try:
        with Client(service_url(), token) as client:
            client.workers()
    except ApiError as exc:
        # 403 is good: the token is known, and workers may not read.
        if exc.status == HTTPStatus.UNAUTHORIZED:
            with open_database(settings) as store:
                ensure_token_file(store, path, "worker of ridgeline up", ["worker"])
            return path.read_text(encoding="ascii").strip()
    except Unreachable:
        pass  # it starts again, perhaps; the worker waits for it
    return token


@contextmanager
def sole_user(home: Path) -> Iterator[None]:
    """Hold the home folder: two embedded services on one database would share its workers.

    Raises:
        Problem: another one runs there.
    """
    with file_problems(f"use the folder {home}"):
        (home / "logs").mkdir(parents=True, exist_ok=True)
        lock = (home / "up.lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise Problem(
                f"ridgeline up runs in {home} already; end it, or choose another --home"
            ) from exc
        yield


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with file_problems(f"listen on {host} port {port}"):
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)


def _part_environment(settings: Settings, url: str, dashboard_port: int | None) -> dict[str, str]:
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
    env.pop("RIDGELINE_DASHBOARD_URL", None)
    if dashboard_port is not None:
        env["RIDGELINE_DASHBOARD_URL"] = f"http://127.0.0.1:{dashboard_port}"
    return env


def _part(
    name: str, settings: Settings, env: dict[str, str], *args: str, fds: Sequence[int] = ()
) -> Part:
    command = [sys.executable, "-P", "-m", "service.cli", *args, "--die-with-parent"]
    return Part(name, command, env, settings.home / "logs" / f"{name}.log", fds, bool(fds))


def _dashboard_part(settings: Settings, env: dict[str, str], port: int) -> Part:
    command = [sys.executable, "-P", "-m", "service.dashboard", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--die-with-parent"]
    return Part("dashboard", command, env, settings.home / "logs" / "dashboard.log")


def _say_ready(url: str, home: Path, *, dashboard: bool) -> None:
    prefix = "" if url == DEFAULT_URL else f"RIDGELINE_URL={url} "
    lines = [
        f"Ridgeline runs at {url}",
        *([f"  dashboard   {url}/dashboard"] if dashboard else []),
        f"  API         {url}/docs",
        f"  files       {home.absolute()}",
        "Next, in another terminal:",
        f"  {prefix}ridgeline run examples/tpe.yaml --follow",
        "Ctrl-C ends everything; studies go on at the next start.",
    ]
    typer.echo("\n".join(lines))
