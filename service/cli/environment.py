"""What commands take from their surroundings: settings, the database, the service's URL."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ridgeline.service.cli.problems import Problem, file_problems, input_problems
from ridgeline.service.client import Client
from ridgeline.service.connection import host_of
from ridgeline.service.network import InvalidEnvironment
from ridgeline.service.settings import Settings

if TYPE_CHECKING:
    from ridgeline.service.store.session import Store

DEFAULT_URL = "http://127.0.0.1:8000"

VARIABLES = {
    "RIDGELINE_URL": f"where the service is; left out: {DEFAULT_URL}",
    "RIDGELINE_TOKEN": "the token to show to the service",
    "RIDGELINE_TOKEN_FILE": "a file that holds the token, where RIDGELINE_TOKEN is not set",
    "RIDGELINE_TOKEN_DIR": "folder in which `migrate` leaves admin.token and worker.token",
}
"""Environment variables that are no settings of the service; docs/settings.md lists them too."""


def load_settings(**overrides: Any) -> Settings:
    """The settings of the environment; what the command line gives (not None) goes first.

    Raises:
        Problem: a setting cannot be used.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    with input_problems(lambda field: f"RIDGELINE_{field.upper()}"):
        settings = Settings(**given)
    if settings.data_root is not None and not os.path.isdir(settings.data_root):
        line = f"--data-root or RIDGELINE_DATA_ROOT: {settings.data_root} is no folder"
        raise Problem(line, exit_code=2)
    return settings


@contextmanager
def open_database(settings: Settings, *, create: bool = True) -> Iterator[Store]:
    """The database, created, where it may be, or brought up to date.

    Raises:
        Problem: the folder of an embedded database cannot be used.
        ServiceError: what `wiring.migrate_database` raises.
    """
    from ridgeline.service import wiring

    with file_problems(f"open the database {_named(settings)}"):
        if not create:
            wiring.check_file(settings)
        wiring.migrate_database(settings)
        store = wiring.open_store(settings)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def open_current_database(settings: Settings) -> Iterator[Store]:
    """The database as it stands: nothing is created and nothing brought up to date.

    Raises:
        ServiceError: what `wiring.check_database` raises.
    """
    from ridgeline.service import wiring

    with file_problems(f"open the database {_named(settings)}"):
        wiring.check_database(settings)
        store = wiring.open_store(settings)
    try:
        yield store
    finally:
        store.close()


def _named(settings: Settings) -> str:
    return "of RIDGELINE_DATABASE_URL" if settings.database_url else f"in {settings.home}"


def open_client() -> Client:
    """A client for the service that the environment names.

    Raises:
        Problem: the URL or the token cannot be one, or a proxy's or TLS's variable is wrong.
    """
    url = service_url()
    try:
        return Client(url, read_token())
    except InvalidEnvironment as exc:
        raise Problem(str(exc), exit_code=2) from exc
    except ValueError as exc:
        variable = (
            "RIDGELINE_TOKEN" if os.environ.get("RIDGELINE_TOKEN") else "RIDGELINE_TOKEN_FILE"
        )
        raise Problem(f"{variable}: {exc}", exit_code=2) from exc


def service_url() -> str:
    """Where the service is.

    Raises:
        Problem: RIDGELINE_URL cannot be it.
    """
    url = os.environ.get("RIDGELINE_URL") or DEFAULT_URL
    try:
        host_of(url)
    except ValueError as exc:
        raise Problem(f"RIDGELINE_URL: {exc}", exit_code=2) from exc
    return url


def read_token() -> str | None:
    """The token of RIDGELINE_TOKEN, or in the file that RIDGELINE_TOKEN_FILE names."""
    token = os.environ.get("RIDGELINE_TOKEN")
    path = os.environ.get("RIDGELINE_TOKEN_FILE")
    if not token and path:
        with file_problems(f"read RIDGELINE_TOKEN_FILE {path}", exit_code=2):
            text = Path(path).read_bytes()
        token = text.decode(errors="surrogateescape").strip()  # the client refuses what is none
    return token or None


def own_command() -> str:
    """`ridgeline` as a shell here can call it: by its name, or else by the path of the script."""
    if shutil.which("ridgeline"):
        return "ridgeline"
    script = Path(sys.executable).with_name("ridgeline")
    near = script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script
    return shlex.quote(str(near))
