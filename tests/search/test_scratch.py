"""Folders for temporary files, and what becomes of those whose owner was killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ridgeline.search.scratch import ScratchFolder, scratch_folder, sweep

OWNER = """
import sys
from pathlib import Path
from ridgeline.search.scratch import ScratchFolder
folder = ScratchFolder("test-", Path(sys.argv[1]))
(folder.path / "program.so").write_text("as a program leaves it")
print(flush=True)
sys.stdin.read()
"""


def test_folders_of_dead_owners_are_swept_and_no_others(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    alive, dead = (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)
    )
    with alive, dead:
        for process in (alive, dead):
            assert process.stdout is not None
            process.stdout.readline()
        dead.kill()
        dead.wait()
        assert len(list(tmp_path.iterdir())) == 2
        (tmp_path / "other").mkdir()
        (tmp_path / "test-file").touch()
        (tmp_path / "test-link").symlink_to(tmp_path / "other")
        sweep("test-", tmp_path)
        left = {path.name for path in tmp_path.iterdir()}
        assert {"other", "test-file", "test-link"} <= left
        (kept,) = left - {"other", "test-file", "test-link"}
        assert (tmp_path / kept / "program.so").exists()
        alive.kill()
    sweep("test-", tmp_path)
    assert not (tmp_path / kept).exists()


def test_a_folder_that_is_swept_before_it_is_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make: Callable[..., str] = tempfile.mkdtemp
    made: list[Path] = []

    def swept_at_once(**options: object) -> str:
        made.append(Path(make(**options)))
        if len(made) == 1:
            sweep("test-", tmp_path)
        return str(made[-1])

    monkeypatch.setattr(tempfile, "mkdtemp", swept_at_once)
    folder = ScratchFolder("test-", tmp_path)
    assert [path.exists() for path in made] == [False, True]
    assert folder.path == made[1]
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_goes_with_its_block(tmp_path: Path) -> None:
    with scratch_folder("test-", tmp_path) as path:
        (path / "draft").touch()
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_sweep_is_no_fault(tmp_path: Path) -> None:
    sweep("test-", tmp_path / "missing")


def nest(folder: Path, num_levels: int) -> None:
    """Folders in each other, past what a path can name."""
    level = os.open(folder, os.O_RDONLY)
    for _ in range(num_levels):
        os.mkdir("level", dir_fd=level)
        inner = os.open("level", os.O_RDONLY, dir_fd=level)
        os.close(level)
        level = inner
    os.close(level)


def test_a_folder_is_removed_however_deep_it_is(tmp_path: Path) -> None:
    with scratch_folder("test-", tmp_path) as folder:
        nest(folder, 1_200)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "test-dead").mkdir()
    nest(tmp_path / "test-dead", 1_200)
    sweep("test-", tmp_path)
    assert list(tmp_path.iterdir()) == []
