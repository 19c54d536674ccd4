"""The code blocks of the README and the pages do what is said of them."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ridgeline.service.lifecycle import StudyState
from tests.deployment import ROOT, Deployment

pytestmark = pytest.mark.slow


def blocks(language: str, containing: str, *, page: str = "README.md") -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    every = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    found = [code for name, code in every if name == language and containing in code]
    assert found, f"{page} has no {language} block with {containing}"
    return found


@pytest.fixture
def sqlite_deployment(migrated_sqlite: Path, tmp_path: Path) -> Iterator[Deployment]:
    (tmp_path / "ridgeline.db").write_bytes(migrated_sqlite.read_bytes())
    deployment = Deployment(f"sqlite:///{tmp_path / 'ridgeline.db'}", tmp_path)
    deployment.start_api()
    deployment.start_worker()
    yield deployment
    deployment.close()


def run(code: str, deployment: Deployment, home: Path) -> str:
    done = start(code, deployment, home)
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(code: str, deployment: Deployment, home: Path) -> subprocess.CompletedProcess[str]:
    code = code.replace("http://127.0.0.1:8000", deployment.url)
    code = code.replace("sqlite:///file:ridgeline-data", f"sqlite:///file:{home}")
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_python_and_notebook(sqlite_deployment: Deployment, tmp_path: Path) -> None:
    (client_code,) = blocks("python", "client.create_study")
    (notebook_code,) = blocks("python", "optuna.load_study")
    printed = run(client_code, sqlite_deployment, tmp_path)
    best = sqlite_deployment.client.best("digits-python")
    assert printed.splitlines()[-1].startswith(str(best.config))
    assert run(notebook_code, sqlite_deployment, tmp_path).split()[-1] == str(best.value)
    again = start(client_code, sqlite_deployment, tmp_path)
    assert again.returncode == 1
    assert again.stderr.startswith("there is a study named digits-python already; choose another")


def test_a_program_of_ones_own(sqlite_deployment: Deployment, tmp_path: Path) -> None:
    (code,) = blocks("python", "client.external", page="docs/external.md")
    printed = run(code, sqlite_deployment, tmp_path)
    assert sqlite_deployment.client.study("wing").state is StudyState.COMPLETED
    assert run(code, sqlite_deployment, tmp_path) == printed
    assert printed.strip() == str(sqlite_deployment.client.best("wing").config)


def test_curl(sqlite_deployment: Deployment) -> None:
    (block,) = blocks("console", '"digits-curl"')
    commands = [" ".join(line.split()) for line in block.split("$ ")[1:]]
    bodies = [words[words.index("-d") + 1] for words in map(shlex.split, commands) if "-d" in words]
    (spec,) = map(json.loads, bodies)
    sqlite_deployment.client.create_study(spec)
    sqlite_deployment.outcome(spec["name"])


def test_command_line(sqlite_deployment: Deployment) -> None:
    for line in "".join(blocks("console", "ridgeline run")).splitlines():
        words = shlex.split(line.removeprefix("$ "))
        assert words[0] == "ridgeline"
        words = [word.replace("trials.csv", "/dev/null") for word in words[1:]]
        done = subprocess.run(
            [sys.executable, "-m", "ridgeline.service.cli", *words],
            cwd=ROOT,
            env=sqlite_deployment.env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (line, done.stderr)
    assert sqlite_deployment.client.study("digits-tpe").state is StudyState.COMPLETED


def test_links_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"
