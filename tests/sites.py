"""Folders with what pip would have put there for packages that bring tasks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from ridgeline.search.tasks import registry
from ridgeline.search.tasks.importing import IMPORTED

ROOT = Path(__file__).parents[1]


def install(folder: Path, package: str, entry_points: Mapping[str, str]) -> None:
    """What pip would put there for the entry points."""
    info = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[ridgeline.tasks]", *lines, ""]))


def install_package(source: Path, folder: Path) -> Path:
    """The folder below `folder` into which pip has installed the package that lies in `source`."""
    shutil.copytree(source, folder / "source")  # building leaves files there
    words = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    site = folder / "site"
    command = [sys.executable, "-m", "pip", *words, "--target", str(site), str(folder / "source")]
    subprocess.run(command, check=True)
    return site


def contract_run(site: Path) -> str:
    """What pytest prints of the contract of tasks with those in `site` installed; all holds."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-n", "0", "tests/tasks/test_task_contract.py"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@contextmanager
def installed_here(folder: Path) -> Iterator[None]:
    """What a folder has is installed, in this process and in those that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(folder)]))
        patch.setenv(IMPORTED, "{}")
        registry.installed.cache_clear()
        yield
    registry.installed.cache_clear()
