"""Ctrl-C ends a program quietly, also while it still imports its modules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, runpy, signal, sys

imported = sys.argv[1]

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == imported:
            print("reached")
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
module, *args = sys.argv[2:]
sys.argv[1:] = args
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
CLI, DASHBOARD = "ridgeline.service.cli", "ridgeline.service.dashboard"


@pytest.mark.parametrize(
    ("imported", "command"),
    [
        ("typer", [CLI, "studies"]),
        ("ridgeline.service.cli.up", [CLI, "studies"]),
        ("httpx", [CLI, "show", "x"]),
        ("yaml", [CLI, "run", "x.yaml"]),
        ("uvicorn", [CLI, "serve"]),
        ("sqlalchemy", [CLI, "migrate"]),
        ("ridgeline.service.doctor", [CLI, "doctor"]),
        ("ridgeline.service.tokens", [CLI, "token", "list"]),
        ("sqlalchemy", [DASHBOARD, "--socket", "x"]),
        ("optuna_dashboard", [DASHBOARD, "--socket", "x"]),
    ],
)
def test_an_interrupt_during_an_import(imported: str, command: list[str], tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, imported, *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout, ended.stderr.strip()) == (130, "reached\n", "")
