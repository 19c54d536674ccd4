"""A small disk that can be filled; making one takes root."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SIZE = 160 * 2**20
"""A PostgreSQL server takes 60 MB before anybody has written a row."""


class Disk:
    """A file system of its own, at `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def full(self, *, room: int) -> Iterator[None]:
        """There are `room` bytes left, or a little more, when the block begins."""
        ballast = self.folder / "ballast"
        with ballast.open("wb") as file:
            while not self._allocate(file.fileno(), room):
                pass
        try:
            yield
        finally:
            ballast.unlink()

    def _allocate(self, file: int, room: int) -> bool:
        """Whether it went well: others write meanwhile."""
        state = os.statvfs(self.folder)
        free = state.f_bavail * state.f_frsize
        try:
            os.posix_fallocate(file, 0, max(1, free - room))
        except OSError as exc:
            if exc.errno != errno.ENOSPC:
                raise
            return free == 0
        return True


@contextmanager
def small_disk(parent: Path, size: int | str = _SIZE) -> Iterator[Disk]:
    """A disk in memory within the block, at a folder of `parent`; `size` as `mount` takes it."""
    folder = parent / "disk"
    folder.mkdir()
    options = f"size={size},mode=0755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
