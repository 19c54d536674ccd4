"""docs/cli.md and docs/settings.md name everything there is, and nothing else."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
import yaml

from ridgeline.service.cli.app import app
from ridgeline.service.cli.environment import VARIABLES
from ridgeline.service.settings import Settings
from ridgeline.service.worker.agent import run_worker

DOCS = Path(__file__).parents[2] / "docs"


def commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The commands that do something, by the words that call them."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def options(command: Any) -> set[str]:
    return {
        option
        for parameter in command.params
        if parameter.param_type_name == "option" and not parameter.hidden
        for option in parameter.opts
        if option != "--help"
    }


def test_every_command_and_option_is_documented() -> None:
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (ridgeline .*)\n((?:(?!^## ).*\n)*)", text, re.MULTILINE))
    known = dict(commands(typer.main.get_command(app), "ridgeline"))
    assert sections.keys() == known.keys()
    for path, command in known.items():
        rows = re.findall(r"^\| (`-.*?) \|", sections[path], re.MULTILINE)
        documented = {option for row in rows for option in re.findall(r"`(-.*?)`", row)}
        assert documented == options(command), path


def test_every_setting_is_documented() -> None:
    text = (DOCS / "settings.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `(RIDGELINE_\w+)` \|", text, re.MULTILINE)
    known = [f"RIDGELINE_{name.upper()}" for name in Settings.model_fields]
    assert documented == [*known, *VARIABLES]


def test_documented_defaults_are_the_defaults() -> None:
    text = (DOCS / "settings.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `RIDGELINE_(\w+)` \| (.*?) \|", text, re.MULTILINE))
    for name, field in Settings.model_fields.items():
        default = field.default
        if default is None:
            assert not documented[name.upper()].startswith("`")
            continue
        if isinstance(default, tuple):
            default = ",".join(default)
        elif isinstance(default, bool):
            default = str(default).lower()
        elif isinstance(default, float):
            default = f"{default:g}"
        assert documented[name.upper()] == f"`{default}`"


def test_compose_passes_on_what_its_services_read() -> None:
    services = yaml.safe_load((DOCS.parent / "docker-compose.yml").read_text())["services"]
    of_worker = {f"RIDGELINE_{name.upper()}" for name in inspect.signature(run_worker).parameters}
    of_settings = {f"RIDGELINE_{name.upper()}" for name in Settings.model_fields}
    for name in ("worker", "worker-gpu"):
        assert of_worker & of_settings <= services[name]["environment"].keys()
    passed_on = {
        variable
        for service in services.values()
        for variable, value in service["environment"].items()
        if value is None
    }
    text = (DOCS / "deployment.md").read_text(encoding="utf-8")
    section = text.partition("### What can be set")[2].partition("\n### ")[0]
    rows = re.findall(r"^\| (`RIDGELINE_.*?) \|", section, re.MULTILINE)
    documented = {name for row in rows for name in re.findall(r"`(RIDGELINE_\w+)`", row)}
    fixed = {"RIDGELINE_PORT", "RIDGELINE_ALLOWED_HOSTS"}  # these are part of other values
    assert passed_on == documented & of_settings - fixed


def test_every_variable_that_is_read_is_known() -> None:
    """Whoever reads an environment variable of ours names it in `VARIABLES`."""
    root = DOCS.parent / "service"
    texts = [path.read_text(encoding="utf-8") for path in root.rglob("*.py")]
    read = {
        name for text in texts for name in re.findall(r"environ\S*[\[(]\"(RIDGELINE_\w+)", text)
    }
    assert read == VARIABLES.keys()
