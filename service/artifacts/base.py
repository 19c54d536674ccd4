"""The port for files that runs leave, and what its implementations share.

An artifact store keeps bytes under keys.  A key holds the whole content of one `put`, or nothing:
nobody ever reads a part of one, whatever fails and whenever.  The caller keeps length and checksum
of the content, in the database, and shows them again to get it.

Errors: `Missing` and `Damaged`, both `ArtifactError`, and `ridgeline.service.errors.Unavailable`
where the store cannot be used now (full, not reachable, no permission).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

MAX_KEY_CHARACTERS = 500
"""With what a store puts before it, well within the 1,024 bytes of an S3 key."""

CHUNK_BYTES = 2**20

_KEY = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}(/[a-z0-9][a-z0-9._-]{0,99})*")
"""Names that every file system and object store has, and that are none of a folder above."""


class ArtifactError(Exception):
    """Base of what is wrong with one artifact; the store itself can be used."""


class Missing(ArtifactError):
    """There is nothing under the key."""


class Damaged(ArtifactError):
    """The content does not have the length or the checksum that it should have."""


@dataclass(frozen=True)
class Content:
    """What a content is known by: its length, and its SHA-256 in lower-case hexadecimal digits."""

    num_bytes: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> Content:
        return cls(len(data), hashlib.sha256(data).hexdigest())


class ArtifactStore(Protocol):
    """Keeps bytes under keys; every method may be called from any thread, and by many processes.

    Every method raises `ValueError` for a text that is no key: see `check_key`.
    """

    def put(self, key: str, chunks: Iterable[bytes], content: Content) -> None:
        """Keep a content under a key; from then on it is what `get` reads.

        Of several calls at once for one key the content of one is kept.  Where the call fails, what
        was under the key stays.  An error that `chunks` raises passes through.

        Raises:
            Damaged: the chunks are not this content; at most one chunk too many is taken.
            Unavailable: the store cannot keep it now.
        """
        ...

    def get(self, key: str, content: Content) -> BinaryIO:
        """The content under a key, checked to the last byte, as a file to read and to close.

        Raises:
            Missing: there is none.
            Damaged: another content is there.
            Unavailable: the store cannot be read now.
        """
        ...

    def delete(self, key: str) -> None:
        """Delete what is under a key; nothing, where there is nothing.

        Raises:
            Unavailable: the store cannot delete it now.
        """
        ...

    def keys(self) -> Iterator[str]:
        """All keys that there are, in no order.

        Raises:
            Unavailable: the store cannot be read now.
        """
        ...


def check_key(key: str) -> None:
    """See that a text can be a key: names of `a-z 0-9 . _ -` that begin with a letter or a digit.

    At most 100 characters each, with `/` between them.

    Raises:
        ValueError: it cannot.
    """
    if len(key) > MAX_KEY_CHARACTERS or _KEY.fullmatch(key) is None:
        raise ValueError(f"{key[:80]!r} cannot be the key of an artifact")


def checked(chunks: Iterable[bytes], content: Content) -> Iterator[bytes]:
    """The chunks as they come, as far as they can be this content.

    Raises:
        Damaged: they are another one; that may only show after the last one.
    """
    num_bytes, digest = 0, hashlib.sha256()
    for chunk in chunks:
        num_bytes += len(chunk)
        if num_bytes > content.num_bytes:
            raise Damaged(f"there are more than {content.num_bytes} bytes")
        digest.update(chunk)
        yield chunk
    if num_bytes < content.num_bytes:
        raise Damaged(f"there are {num_bytes} of {content.num_bytes} bytes")
    if digest.hexdigest() != content.sha256:
        raise Damaged("the SHA-256 is another one")


def chunks_of(file: BinaryIO) -> Iterator[bytes]:
    """The rest of a file in chunks."""
    while chunk := file.read(CHUNK_BYTES):
        yield chunk
