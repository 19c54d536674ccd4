"""Artifacts at any URL that fsspec knows: S3, Google Cloud Storage, Azure, SFTP and others.

A content is checked here before any of it is sent, written under a name of its own, and then moved
to its key.  On object stores that is a copy within the store, which appears as a whole.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

import fsspec

from ridgeline.service.artifacts.base import (
    CHUNK_BYTES,
    ArtifactError,
    Content,
    Missing,
    check_key,
    checked,
    chunks_of,
)
from ridgeline.service.errors import Unavailable

_IN_MEMORY_BYTES = 8 * 2**20
"""Of a content on its way; a larger one goes through a temporary file."""


class UrlArtifacts:
    """An artifact store at a URL such as s3://bucket/ridgeline.

    Raises:
        ValueError: fsspec knows no such protocol.
        ImportError: it needs another package for it; the text names it.
    """

    def __init__(self, url: str) -> None:
        # Another api may write what a listing that was kept here lacks.
        self._files, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
        self._root = root.rstrip("/")

    def put(self, key: str, chunks: Iterable[bytes], content: Content) -> None:
        path = self._path(key)
        with _temporary() as file:
            for chunk in checked(chunks, content):
                file.write(chunk)
            file.seek(0)
            draft = f"{self._root}/drafts/{secrets.token_hex(16)}"
            with _translated(f"keep {key}"):
                try:
                    self._make_folder_of(draft)
                    with self._files.open(draft, "wb") as target:
                        shutil.copyfileobj(file, target, CHUNK_BYTES)
                    self._make_folder_of(path)
                    self._files.mv(draft, path)
                except BaseException:
                    with suppress(Exception):  # the first error is the one to tell
                        self._files.rm_file(draft)
                    raise

    def get(self, key: str, content: Content) -> BinaryIO:
        path = self._path(key)
        file = _temporary()
        try:
            with _translated(f"read {key}"):
                try:
                    with self._files.open(path, "rb") as source:
                        for chunk in checked(chunks_of(source), content):
                            file.write(chunk)
                except FileNotFoundError as exc:
                    raise Missing(f"there is no {key}") from exc
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def delete(self, key: str) -> None:
        path = self._path(key)
        with _translated(f"delete {key}"), suppress(FileNotFoundError):
            self._files.rm_file(path)

    def keys(self) -> Iterator[str]:
        folder = f"{self._root}/files/"
        with _translated("list what there is"):
            try:
                paths = self._files.find(folder)
            except FileNotFoundError:  # nothing was ever kept
                paths = []
            for path in paths:
                yield path.removeprefix(folder)

    def _path(self, key: str) -> str:
        check_key(key)
        return f"{self._root}/files/{key}"

    def _make_folder_of(self, path: str) -> None:
        """Where there are folders, as on a disk; object stores have none."""
        self._files.makedirs(path.rpartition("/")[0], exist_ok=True)


def _temporary() -> BinaryIO:
    return cast(BinaryIO, SpooledTemporaryFile(_IN_MEMORY_BYTES))


@contextmanager
def _translated(to_what: str) -> Iterator[None]:
    """Each backend of fsspec raises errors of its own, and not all are OSErrors."""
    try:
        yield
    except ArtifactError:
        raise
    except Exception as exc:
        raise Unavailable(
            f"the artifact store cannot {to_what}: {type(exc).__name__}: {exc}"
        ) from exc
