"""`ridgeline data download`: where to, what, and what is told when nothing can be reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Ridgeline


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked goes to a proxy that nobody runs."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")


def line_of(ridgeline: Ridgeline, *args: str, status: int, **settings: str) -> str:
    result = ridgeline("data", "download", *args, **settings)
    assert result.exit_code == status, result.output
    (line,) = result.stderr.splitlines()
    return line.removeprefix("ridgeline: ")


def test_it_has_to_know_what_and_where_to(ridgeline: Ridgeline, tmp_path: Path) -> None:
    unknown = line_of(ridgeline, "imagenet", status=2)
    assert unknown == "'imagenet' cannot be downloaded, only mnist, fashion-mnist, cifar-10"
    nowhere = line_of(ridgeline, "mnist", status=2)
    assert nowhere == "say where to: --data-root or RIDGELINE_DATA_ROOT"
    absent = line_of(ridgeline, "mnist", status=2, data_root=str(tmp_path / "absent"))
    assert absent.endswith("absent is no folder")


def test_what_is_there_is_left_alone(ridgeline: Ridgeline, tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    result = ridgeline("data", "download", "mnist", "--data-root", str(tmp_path))
    assert (result.exit_code, result.stdout) == (0, f"mnist is in {tmp_path / 'mnist'} already.\n")


@pytest.mark.usefixtures("_no_network")
def test_what_cannot_be_reached_is_told_on_one_line(ridgeline: Ridgeline, tmp_path: Path) -> None:
    line = line_of(ridgeline, "cifar-10", status=1, data_root=str(tmp_path))
    assert line.startswith("cifar-10: cifar-10-binary.tar.gz could not be got: https://www.cs.")
    assert line.endswith("Connection refused")
    assert not (tmp_path / "cifar-10").exists()


def test_a_folder_that_cannot_be_written_is_told(ridgeline: Ridgeline, tmp_path: Path) -> None:
    (tmp_path / ".downloads.lock").mkdir()
    line = line_of(ridgeline, "mnist", status=1, data_root=str(tmp_path))
    assert line == f"cannot write to {tmp_path}: Is a directory"
