"""Whatever stands for an option, an argument or a variable, a command tells it in plain lines."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import Result

from ridgeline.service.cli.app import app
from ridgeline.service.cli.environment import VARIABLES
from ridgeline.service.client import Client
from ridgeline.service.settings import Settings
from tests.api.calling import EXTERNAL, sqlite_only
from tests.cli.conftest import Ridgeline
from tests.cli.test_commands import STUDY_FILE, open_client
from tests.cli.test_import import SWEEP
from tests.client.conftest import client
from tests.service.test_comparisons import SPEC as COMPARISON

__all__ = ["client", "open_client"]  # fixtures

ODD = [
    "",
    " ",
    "nan",
    "inf",
    "1e999",
    "-1",
    "9" * 400,
    "\udcff",  # as Python has the byte 0xff of an argument
    "a\x1b[31mb",
    "a\nb",
    "x" * 5_000,
    "/" + "y/" * 2_000,
    "=",
    "x=.nan",
    "x=\udcff",
    "\udcff=1",
    "budget.trials=-.inf",
    "budget.trials=\udcff",
    "sampler.seed=.nan",
    "\udcff.trials=1",
    "http://\udcff",
    "http://a\x7fb",
    "http://a\nb",
    "http://" + "x" * 300,
]

GIVEN: dict[str, list[str]] = {
    "serve": ["--port", "TAKEN"],
    "up": ["--port", "TAKEN"],
    "worker": [],
    "migrate": [],
    "doctor": [],
    "token create": ["me", "--scope", "read"],
    "token list": [],
    "token revoke": ["an-id"],
    "run": ["study.yaml"],
    "import": ["sweep.yaml"],
    "compare": ["comparison.yaml"],
    "comparisons": [],
    "comparison show": ["x"],
    "comparison report": ["x"],
    "comparison pause": ["x"],
    "comparison resume": ["x"],
    "comparison cancel": ["x"],
    "comparison extend": ["x"],
    "comparison add": ["x", "l1"],
    "comparison delete": ["x"],
    "clone": ["x", "y"],
    "studies": [],
    "show": ["x"],
    "pause": ["x"],
    "resume": ["x"],
    "stop": ["x"],
    "cancel": ["x"],
    "archive": ["x"],
    "unarchive": ["x"],
    "extend": ["x"],
    "retry": ["x"],
    "explain": ["x", "0"],
    "enqueue": ["x"],
    "delete": ["x"],
    "export": ["x"],
    "report": ["x"],
    "task check": ["linear"],
    "data download": ["unknown"],
}
"""Each command, and arguments with which it does what it should, or ends at once."""

WITHOUT_END = {("worker", "--name"), ("worker", "--device")}
"""A worker that may have these waits for a service."""


def parameters() -> Iterator[tuple[str, int | str]]:
    """Each command and one of its arguments, by its place, or one of its options."""
    for name, given in GIVEN.items():
        command: Any = typer.main.get_command(app)
        for part in name.split():
            command = command.commands[part]
        places = 0
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                yield name, places
                places += 1
            elif (
                not (parameter.is_flag or parameter.hidden)
                and (name, parameter.opts[0]) not in WITHOUT_END
            ):
                yield name, parameter.opts[0]
        assert places <= len(given)


@pytest.fixture
def taken_port() -> Iterator[str]:
    """No command can listen there, so that `up` and `serve` end."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield str(taken.getsockname()[1])


def check(result: Result) -> None:
    assert result.exit_code in (0, 1, 2)
    lines = result.stderr.splitlines()
    assert result.exit_code == 0 or lines or result.stdout  # what the doctor finds
    assert all(line.startswith("ridgeline: ") and line.isprintable() for line in lines)


@pytest.mark.parametrize("name", ["\udcff", "a\x1b[31mb", "x" * 129])
def test_a_worker_has_a_name_that_can_be_shown(name: str, ridgeline: Ridgeline) -> None:
    result = ridgeline("worker", "--name", name, url="http://127.0.0.1:1")
    check(result)
    assert result.exit_code == 2
    assert result.stderr.startswith("ridgeline: --name: ")


def test_every_command_is_tried() -> None:
    command: Any = typer.main.get_command(app)
    names = set()
    for name, one in command.commands.items():
        inner = getattr(one, "commands", None)
        names |= {name} if inner is None else {f"{name} {verb}" for verb in inner}
    assert names == GIVEN.keys()


@sqlite_only
@pytest.mark.parametrize(("command", "parameter"), list(parameters()))
def test_an_odd_argument_is_told_in_lines(
    command: str,
    parameter: int | str,
    ridgeline: Ridgeline,
    client: Client,
    taken_port: str,
    tmp_path: Path,
) -> None:
    client.create_study(EXTERNAL)
    client.create_comparison({**COMPARISON, "name": "x"})
    (tmp_path / "study.yaml").write_text(STUDY_FILE)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    ridgeline("token", "create", "me", "--scope", "admin", home="h")
    for odd in ODD:
        given = [text.replace("TAKEN", taken_port) for text in GIVEN[command]]
        if isinstance(parameter, int):
            options = ["--", *given]
            options[1 + parameter] = odd
        else:
            options = [*given, parameter, odd]
        if command == "worker":
            check(ridgeline(command, *options, home="h", url="nonsense"))
        else:
            check(ridgeline(*command.split(), *options, home="h"))


@sqlite_only
@pytest.mark.parametrize("variable", [*Settings.model_fields, "token_dir"])
def test_an_odd_setting_is_told_in_lines(
    variable: str, ridgeline: Ridgeline, taken_port: str
) -> None:
    ridgeline("token", "create", "me", "--scope", "admin", home="h")
    for odd in ODD:
        settings = {"home": "h", variable: odd}
        check(ridgeline("migrate", **settings))
        if variable in ("home", "database_url", "cache_dir", "dashboard_socket"):
            check(ridgeline("doctor", **settings))
        if variable in ("home", "database_url", "host") or "dashboard" in variable:
            check(ridgeline("serve", "--port", taken_port, **settings))


@sqlite_only
@pytest.mark.parametrize("variable", list(VARIABLES))
def test_an_odd_variable_of_the_client_is_told_in_lines(
    variable: str, ridgeline: Ridgeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ridgeline.service.cli import environment

    monkeypatch.setattr("ridgeline.service.connection.time.sleep", lambda _seconds: None)
    monkeypatch.setattr("ridgeline.service.cli.studies.open_client", environment.open_client)
    for odd in ODD:
        settings = {"url": "http://127.0.0.1:1", variable.removeprefix("RIDGELINE_").lower(): odd}
        check(ridgeline("studies", **settings))
