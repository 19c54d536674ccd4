"""Folders for temporary files, which go with their owner however it ends.

An owner that is killed removes nothing, so whoever comes later does.  It tells the folders of dead
owners by a lock, which the kernel drops with the process.

Importing this module imports nothing that has to be installed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class ScratchFolder:
    """A new folder, which this process owns until `remove`.

    Args:
        prefix: of its name, for `sweep`.
        parent: None takes the system's folder for temporary files.

    Raises:
        OSError: there is no room for it.
    """

    def __init__(self, prefix: str, parent: Path | None = None) -> None:
        lock: int | None = None
        while lock is None:  # somebody may sweep it before it is locked
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
            lock = _lock(self.path)
        self._lock = lock

    def remove(self) -> None:
        """Remove the folder and all in it, as far as that can be done."""
        _remove(self.path)
        os.close(self._lock)


@contextmanager
def scratch_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """A `ScratchFolder` until the end of the block; raises what that does."""
    folder = ScratchFolder(prefix, parent)
    try:
        yield folder.path
    finally:
        folder.remove()


def sweep(prefix: str, parent: Path | None = None) -> None:
    """Remove this user's folders whose owners are dead; `prefix` and `parent` are as theirs."""
    for path in Path(parent or tempfile.gettempdir()).glob(f"{prefix}*"):
        lock = _lock(path)
        if lock is not None:
            _remove(path)
            os.close(lock)


def _remove(path: Path) -> None:
    """Remove a folder, however deep people's code has made it, as far as that can be done."""
    # Python's own way may call itself, and keep a descriptor open, for each level.
    with suppress(RecursionError):
        shutil.rmtree(path, ignore_errors=True)
    if os.path.lexists(path):
        with suppress(OSError):
            subprocess.run(["rm", "-rf", "--", path], stderr=subprocess.DEVNULL, check=False)


def _lock(path: Path) -> int | None:
    """A descriptor that locks this user's folder; None where another has it, or it is gone."""
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    with suppress(OSError):
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(folder)
        if status.st_uid == os.geteuid() and os.path.samestat(status, os.lstat(path)):
            return folder
    os.close(folder)
    return None
