"""The command line, called in this process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ridgeline.service.cli.app import app

Ridgeline = Callable[..., Result]


@pytest.fixture
def ridgeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ridgeline:
    """Runs `ridgeline ARGS` in an empty folder, with no settings but those given by name."""
    for name in os.environ:
        if name.startswith("RIDGELINE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def ridgeline(*args: str, **settings: str) -> Result:
        env = {f"RIDGELINE_{name.upper()}": text for name, text in settings.items()}
        return CliRunner(env=env).invoke(app, args, prog_name="ridgeline", catch_exceptions=False)

    return ridgeline
