"""Folders and files that no other user may change."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from contextlib import suppress
from pathlib import Path


def own_folder(folder: Path) -> None:
    """Make the folder, for this user alone, unless it is there; refuse it if others may change it.

    Whoever may write to a folder above it can put another one in its place.  So all folders on the
    way belong to this user or to root, and so do links on the way; nobody else may write to them,
    or they are sticky, as /tmp is.

    Raises:
        PermissionError: another user may change the folder; the text says which one and why.
        OSError: it cannot be made.
    """
    target = Path(os.path.realpath(folder))
    for path in (*reversed(target.parents), target):
        if not os.path.lexists(path):
            with suppress(FileExistsError):  # another process of ours was faster
                path.mkdir(mode=0o700)
        _check(path)
    check_folder(folder)


def check_folder(folder: Path) -> None:
    """See that a folder is there and that no other user may change it, as `own_folder` has it.

    Root is no exception: where root uses a folder of another user, that user has root read, write
    and run what they put there.

    Raises:
        PermissionError: another user may change it; the text says which folder and why.
        OSError: it is none, or not there.
    """
    folder = folder.absolute()
    target = Path(os.path.realpath(folder))
    for path in (*reversed(target.parents), target):
        _check(path)
    for path in (*reversed(folder.parents), folder):  # the links are among these
        _check(path)
    status = target.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if status.st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to another user")
    if _others_may_write(status):
        raise PermissionError(f"others may write to {folder}")


def check_file(path: Path, *, is_secret: bool) -> None:
    """See that a file belongs to this user or to root, and that no other user may change it.

    Args:
        is_secret: whether only the owner and the group may read it.

    Raises:
        PermissionError: the text says what is wrong.
        OSError: it is not there.
    """
    _check(path)
    if is_secret and path.lstat().st_mode & stat.S_IROTH:
        raise PermissionError(f"others may read {path}")


def without_links(path: str, flags: int) -> int:
    """An opener for `open`: it follows no link, and makes a new file for this user alone.

    It never waits, as for a pipe that nobody writes to.

    Raises:
        PermissionError: the path is a link, or no regular file.
        OSError: as `os.open` does.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise PermissionError(f"{path} is a link") from exc
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise PermissionError(f"{path} is not a file")
    return descriptor


def _check(path: Path) -> None:
    status = path.lstat()
    # In a container root may have another number here; the owner of / can change everything anyway.
    if status.st_uid not in (os.geteuid(), 0, Path("/").stat().st_uid):
        raise PermissionError(f"{path} belongs to another user")
    is_link = stat.S_ISLNK(status.st_mode)
    if not is_link and not status.st_mode & stat.S_ISVTX and _others_may_write(status):
        raise PermissionError(f"others may write to {path}")


def _others_may_write(status: os.stat_result) -> bool:
    if status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and not _is_group_of_its_owner(status)


def _is_group_of_its_owner(status: os.stat_result) -> bool:
    """Whether the group has one member: many systems give each user a group, and a umask of 002."""
    try:
        owner, group = pwd.getpwuid(status.st_uid), grp.getgrgid(status.st_gid)
    except KeyError:  # a number without a name
        return False
    is_own = owner.pw_gid == group.gr_gid and owner.pw_name == group.gr_name
    return is_own and set(group.gr_mem) <= {owner.pw_name}
