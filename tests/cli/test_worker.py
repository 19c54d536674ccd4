"""What `ridgeline worker` makes of its options and settings; nothing is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Ridgeline


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """How the last worker was started."""
    called: dict[str, Any] = {}

    def run_worker(url: str, token: str | None, **options: Any) -> int:
        called.update(options)
        return 0

    monkeypatch.setattr("ridgeline.service.worker.agent.run_worker", run_worker)
    return called


def test_packs_are_as_options_and_settings_say(
    ridgeline: Ridgeline, started: dict[str, Any], tmp_path: Path
) -> None:
    def packs(*options: str, **settings: str) -> tuple[Any, ...]:
        assert ridgeline("worker", *options, **settings).exit_code == 0
        return started["pack_width"], started["compile"], started["cache_dir"]

    settings = {"cache_dir": str(tmp_path), "pack_width": "8"}
    assert packs() == (None, True, None)
    assert packs(**settings) == (8, True, tmp_path)
    assert packs("--width", "16", "--no-compile", **settings) == (16, False, tmp_path)
    assert packs(compile="false") == (None, False, None)


def test_checkpoints_are_made_as_often_as_the_settings_say(
    ridgeline: Ridgeline, started: dict[str, Any]
) -> None:
    assert ridgeline("worker").exit_code == 0
    assert started["checkpoint_seconds"] == 10.0
    assert ridgeline("worker", checkpoint_seconds="2.5").exit_code == 0
    assert started["checkpoint_seconds"] == 2.5
    assert ridgeline("worker", checkpoint_seconds="0").exit_code == 2


def test_a_cache_folder_that_cannot_be_used_is_told(ridgeline: Ridgeline, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = ridgeline("worker", cache_dir=str(tmp_path / "file"))
    assert result.exit_code == 2
