"""Who may change a folder or a file; modes, owners and links."""

from __future__ import annotations

import grp
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ridgeline.service.cli.up import sole_user
from ridgeline.service.files import own_folder, without_links

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def foreign_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every group has a member who is not this user."""
    group = grp.getgrgid(os.getegid())
    crowd = SimpleNamespace(gr_gid=group.gr_gid, gr_name=group.gr_name, gr_mem=["somebody-else"])
    monkeypatch.setattr(grp, "getgrgid", lambda _gid: crowd)


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_new_folders_are_for_this_user_alone(tmp_path: Path, umask: int) -> None:
    code = "import os, sys, pathlib, ridgeline.service.files as f; os.umask(int(sys.argv[1])); "
    code += "f.own_folder(pathlib.Path(sys.argv[2]))"
    folder = tmp_path / "a" / "b"
    subprocess.run([sys.executable, "-c", code, str(umask), str(folder)], check=True)
    assert mode_of(folder) == mode_of(folder.parent) == 0o700
    own_folder(folder)


def test_a_home_and_what_lies_there_are_for_this_user_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    before = os.umask(0)
    try:
        with sole_user(home):
            assert mode_of(home) == mode_of(home / "logs") == 0o700
            assert mode_of(home / "up.lock") == 0o600
    finally:
        os.umask(before)


@pytest.mark.parametrize("mode", [0o777, 0o702, 0o1777, 0o770, 0o2777])
def test_a_folder_that_others_may_write_to_is_refused(
    tmp_path: Path, mode: int, foreign_group: None
) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(PermissionError, match=f"^others may write to {tmp_path}$"):
        own_folder(tmp_path)


@pytest.mark.parametrize("mode", [0o777, 0o702, 0o770])
def test_a_folder_below_one_that_others_may_write_to_is_refused(
    tmp_path: Path, mode: int, foreign_group: None
) -> None:
    shared = tmp_path / "shared"
    own_folder(shared / "a" / "b")
    shared.chmod(mode)
    for folder in (shared / "a" / "b", shared / "new"):
        with pytest.raises(PermissionError, match=f"^others may write to {shared}$"):
            own_folder(folder)
    assert not (shared / "new").exists()


def test_a_sticky_folder_above_keeps_others_from_renaming(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    own_folder(tmp_path / "mine")


def test_a_group_of_this_user_alone_is_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pwd.getpwuid", lambda _uid: SimpleNamespace(pw_gid=7, pw_name="ada"))
    group = SimpleNamespace(gr_gid=7, gr_name="ada", gr_mem=[])
    monkeypatch.setattr("grp.getgrgid", lambda _gid: group)
    tmp_path.chmod(0o775)
    own_folder(tmp_path / "mine")
    tmp_path.chmod(0o777)
    with pytest.raises(PermissionError):
        own_folder(tmp_path / "mine")


@needs_root
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    own_folder(folder / "mine")
    os.chown(folder, 12_345, -1)
    for path in (folder, folder / "mine"):
        with pytest.raises(PermissionError, match=f"^{folder} belongs to another user$"):
            own_folder(path)


@needs_root
def test_links_are_followed_where_they_belong_to_this_user(tmp_path: Path) -> None:
    folder, link = tmp_path / "folder", tmp_path / "link"
    link.symlink_to(folder)
    own_folder(link / "mine")
    assert mode_of(folder / "mine") == 0o700
    os.lchown(link, 12_345, -1)
    for path in (link, link / "mine"):
        with pytest.raises(PermissionError, match=f"^{link} belongs to another user$"):
            own_folder(path)


def test_the_folder_that_a_link_leads_to_is_looked_at(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    own_folder(shared / "mine")
    (tmp_path / "link").symlink_to(shared / "mine")
    shared.chmod(0o777)
    with pytest.raises(PermissionError, match=f"^others may write to {shared}$"):
        own_folder(tmp_path / "link")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(NotADirectoryError):
            own_folder(path)


def test_files_are_opened_without_links(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "link").symlink_to("precious")
    (tmp_path / "dangling").symlink_to("new")
    for name in ("link", "dangling"):
        with pytest.raises(PermissionError, match=f"{name} is a link$"):
            without_links(str(tmp_path / name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    assert (tmp_path / "precious").read_text() == "kept"
    assert not (tmp_path / "new").exists()
    with open(tmp_path / "file", "w", opener=without_links) as file:
        file.write("text")
    assert mode_of(tmp_path / "file") == 0o600
