"""Artifacts in a folder of this machine, or of a network file system that all apis have."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkstemp
from typing import BinaryIO, cast

from ridgeline.service.artifacts.base import (
    Content,
    Missing,
    check_key,
    checked,
    chunks_of,
)
from ridgeline.service.errors import Unavailable
from ridgeline.service.files import own_folder, without_links

DRAFT_SECONDS = 86_400.0
"""A draft that was not written to for longer is what a process left that died."""


class FolderArtifacts:
    """An artifact store in a folder, which is made when it is needed, for this user alone.

    A content is written to a draft, flushed to the disk, and renamed: a crash of the process or of
    the machine leaves the whole content or the one before.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._files = self._root / "files"
        self._drafts = self._root / "drafts"

    def put(self, key: str, chunks: Iterable[bytes], content: Content) -> None:
        path = self._path(key)
        with _translated(f"keep {key}"):
            own_folder(self._drafts)
            self._remove_old_drafts()
            descriptor, draft = mkstemp(dir=self._drafts)  # with mode 0600
        try:
            try:
                for chunk in checked(chunks, content):
                    with _translated(f"keep {key}"):
                        _write(descriptor, chunk)
                with _translated(f"keep {key}"):
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            with _translated(f"keep {key}"):
                own_folder(path.parent)
                os.replace(draft, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(draft)
            raise
        with _translated(f"keep {key}"):
            for folder in (path.parent, *path.parent.parents):
                _flush_folder(folder)
                if folder == self._root:
                    break

    def get(self, key: str, content: Content) -> BinaryIO:
        path = self._path(key)
        with _translated(f"read {key}"):
            try:
                file = cast(BinaryIO, open(path, "rb", opener=without_links))  # noqa: SIM115
            except FileNotFoundError as exc:
                raise Missing(f"there is no {key}") from exc
            try:
                for _ in checked(chunks_of(file), content):
                    pass
                file.seek(0)
            except BaseException:
                file.close()
                raise
        return file

    def delete(self, key: str) -> None:
        path = self._path(key)
        with _translated(f"delete {key}"):
            path.unlink(missing_ok=True)

    def keys(self) -> Iterator[str]:
        with _translated("list what there is"):
            for folder, _, names in os.walk(self._files, onerror=_raise_unless_missing):
                for name in names:
                    yield Path(folder, name).relative_to(self._files).as_posix()

    def _path(self, key: str) -> Path:
        check_key(key)
        return self._files.joinpath(*key.split("/"))

    def _remove_old_drafts(self) -> None:
        oldest = time.time() - DRAFT_SECONDS
        for draft in self._drafts.iterdir():
            with suppress(FileNotFoundError):  # another process was faster
                if draft.lstat().st_mtime < oldest:
                    draft.unlink()


def _write(descriptor: int, chunk: bytes) -> None:
    """A disk that is nearly full takes a part of it first."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _flush_folder(folder: Path) -> None:
    """Have what was renamed into a folder survive a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise_unless_missing(exc: OSError) -> None:
    if not isinstance(exc, FileNotFoundError):  # a folder without artifacts is not made yet
        raise exc


@contextmanager
def _translated(to_what: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise Unavailable(f"the artifact store cannot {to_what}: {exc.strerror or exc}") from exc
