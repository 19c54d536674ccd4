"""Where compiled programs are kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ridgeline.service.worker.cache import cache_folder


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_the_folder_is_among_the_users_caches(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache_folder(None) == home / ".cache" / "ridgeline"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert cache_folder(None) == tmp_path / "caches" / "ridgeline"


def test_a_folder_of_ones_own_is_for_its_user_alone(tmp_path: Path) -> None:
    folder = cache_folder(tmp_path / "mine")
    assert folder == tmp_path / "mine"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert cache_folder(folder) == folder


def test_a_relative_folder_is_of_the_place_the_worker_was_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cache_folder(Path("mine")) == tmp_path / "mine"


def test_a_home_that_cannot_be_written_to_is_no_error(home: Path) -> None:
    home.write_text("no folder")
    assert cache_folder(None) is None


def test_a_folder_below_one_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    folder = cache_folder(tmp_path / "shared" / "mine")
    (tmp_path / "shared").chmod(0o777)
    with pytest.raises(PermissionError, match="others may write"):
        cache_folder(folder)


def test_without_a_folder_of_ones_own_nothing_is_kept(home: Path) -> None:
    caches = home / ".cache"
    caches.mkdir(parents=True)
    caches.chmod(0o777)
    assert cache_folder(None) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="cannot be written to"):
        cache_folder(tmp_path)
    tmp_path.chmod(0o700)
