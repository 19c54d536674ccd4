"""A data set's folder as formats see it: its names, and files that lie where they should.

Files come from anywhere, so nothing is believed: a link must not lead out of the data root.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from ridgeline.search.tasks.formats.base import FormatError


class Folder:
    """A folder, which must lie under `root` with all files that are asked for, links followed.

    Attributes:
        names: of all that is in it, sorted.

    Raises:
        FormatError: it lies outside of `root`, or cannot be read.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self._folder, self._root, self._real_root = folder, root, _real(root)
        if not _real(folder).is_relative_to(self._real_root):
            raise FormatError("its folder is a link that leads out of the data root")
        try:
            self.names = sorted(os.listdir(folder))
        except OSError as exc:
            raise FormatError(f"its folder cannot be read: {exc.strerror}") from exc

    @property
    def files(self) -> list[str]:
        """The names that are not those of folders."""
        return [name for name in self.names if not (self._folder / name).is_dir()]

    @property
    def folders(self) -> list[str]:
        """The names that are those of folders, but for hidden ones."""
        return [n for n in self.names if not n.startswith(".") and (self._folder / n).is_dir()]

    def folder(self, name: str) -> Folder:
        """A folder in it.

        Raises:
            FormatError: it lies outside of the root, or cannot be read.
        """
        return Folder(self._folder / name, self._root)

    def file(self, name: str) -> Path:
        """Where a file lies.

        Raises:
            FormatError: it is no file, or lies outside of the root.
        """
        path = _real(self._folder / name)
        if not path.is_relative_to(self._real_root):
            raise FormatError(f"{name} is a link that leads out of the data root")
        if path.is_dir():
            raise FormatError(f"{name} is a folder; put the file itself there")
        if not path.is_file():  # a pipe would block the reader for ever
            raise FormatError(f"{name} is not a file")
        return path

    def parts(self, train: str, test: str) -> tuple[Path, Path | None]:
        """The files of these names; None in the place of a test part that is not there.

        Raises:
            FormatError: as of `file`, and where there is no train part.
        """
        if train not in self.names:
            raise FormatError(f"there is no {train}")
        return self.file(train), self.file(test) if test in self.names else None


def _real(path: Path) -> Path:
    """The path with its links followed; unlike `Path.resolve` it takes links in a circle."""
    return Path(os.path.realpath(path))


def regular(path: str, flags: int) -> int:
    """An opener for `open` that never waits: somebody may put a pipe there at any time.

    Raises:
        OSError: as `os.open` does, and where the path is no regular file.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a file", path)
    return descriptor
