"""Commands that run one part of the service: serve, worker, migrate."""

from __future__ import annotations

import gc
import os
import signal
import socket
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter

from ridgeline.service import logs, processes
from ridgeline.service.cli.environment import (
    load_settings,
    open_database,
    read_token,
    service_url,
)
from ridgeline.service.cli.options import DataRootOption, DieWithParentOption, PortOption
from ridgeline.service.cli.problems import Problem, file_problems, input_problems, needs_torch
from ridgeline.service.cli.sockets import listen
from ridgeline.service.cli.tokens import ensure_token_file
from ridgeline.service.client import ApiError, Client, Unreachable
from ridgeline.service.files import own_folder
from ridgeline.service.protocol import Label
from ridgeline.service.settings import MAX_PACK_WIDTH, Settings

_GRACEFUL_SHUTDOWN_SECONDS = 5

_LINEAR_ALGEBRA = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables that tell the libraries of numpy and scipy how many threads to have: one.  The matrices
of a sampler are so small that a second thread mostly spins: a suggestion took twice as long, and
four times the processor time, which devices beside the api lacked."""

_LABEL = TypeAdapter[str](Label)


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
    for variable in _LINEAR_ALGEBRA:  # read as the libraries are loaded
        os.environ.setdefault(variable, "1")
    import uvicorn

    from ridgeline.service.api.app import create_app
    from ridgeline.service.api.auth import UnsafeBinding, check_binding
    from ridgeline.service.api.connections import Connection

    logs.set_up(settings.log_format)
    with ExitStack() as stack:
        store = stack.enter_context(open_database(settings))
        try:
            check_binding(settings, store)
        except UnsafeBinding as exc:
            raise Problem(str(exc), exit_code=2) from exc
        if settings.artifacts is not None and (folder := settings.artifact_folder) is not None:
            with file_problems(f"keep files of runs in {folder}"):
                own_folder(folder)
        if (path := settings.dashboard_socket) is not None:
            # Whoever listens there instead would have their pages shown as ours.
            with file_problems(f"reach the dashboard at {path}"):
                own_folder(path.parent)
        listener = stack.enter_context(
            listen(settings.host, settings.port) if fd is None else socket.socket(fileno=fd)
        )
        config = uvicorn.Config(
            create_app(settings, store),
            http=Connection,
            log_config=None,
            access_log=False,  # workers call twice a second
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACEFUL_SHUTDOWN_SECONDS,
        )
        server = uvicorn.Server(config)
        # A large call makes tens of thousands of objects, none of them in cycles: collecting after
        # each 700, and walking all that was imported with them, took a fifth of its time.
        gc.freeze()
        gc.set_threshold(50_000)
        # uvicorn has its own handlers while it runs, and then raises the signal that stopped it
        # once more; being stopped was its purpose.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
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
    width: Annotated[
        int | None,
        typer.Option(
            help="Slots of every pack; left out: what suits the runs and the device.",
            show_default=False,
            min=1,
            max=MAX_PACK_WIDTH,
        ),
    ] = None,
    no_compile: Annotated[
        bool, typer.Option("--no-compile", help="Compile no training programs.")
    ] = False,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile",
            help="Measure how fast packs of each width train on the first device, print the "
            "table, and end.",
        ),
    ] = False,
    token_from_database: Annotated[bool, typer.Option(hidden=True)] = False,
    die_with_parent: DieWithParentOption = False,
) -> None:
    """Start a worker that trains the runs of the service at RIDGELINE_URL."""
    if die_with_parent:
        processes.watch_parent()
    settings = load_settings(
        data_root=data_root, pack_width=width, compile=False if no_compile else None
    )
    with input_problems(lambda _field: "--name"):
        name = _LABEL.validate_python(name or socket.gethostname())
    needs_torch()
    if profile:
        from ridgeline.service.cli.profile import print_profile

        try:
            print_profile(device[0] if device else None, settings)
        except ValueError as exc:  # there is no such device here
            raise Problem(str(exc)) from exc
        return
    token = read_token() or (_own_token(settings) if token_from_database else None)
    from ridgeline.service.worker.agent import run_worker

    logs.set_up(settings.log_format)
    status = run_worker(
        service_url(),
        token,
        name=name,
        data_root=settings.data_root,
        devices=device or None,
        device_threads=settings.device_threads,
        pack_width=settings.pack_width,
        compile=settings.compile,
        cache_dir=settings.cache_dir,
        checkpoint_seconds=settings.checkpoint_seconds,
        log_format=settings.log_format,
        hang_seconds=settings.hang_seconds,
        function_slots=settings.function_slots,
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
            from ridgeline.service.store.roles import grant_reading

            grant_reading(store.url, settings.dashboard_database_url)
    typer.echo("The database is ready.")


def _own_token(settings: Settings) -> str | None:
    """The token for the worker of `up`, made once the service asks for one.

    Somebody may create the first token while `up` runs.  The worker is then refused, ends, is
    started again, and comes by here.
    """
    path = settings.home / "worker.token"
    token = path.read_text(encoding="ascii", errors="replace").strip() if path.exists() else None
    if token is not None and not token.isascii():
        token = None
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
