"""Bytes of files that come from anywhere: memory is taken for what a header may truly promise."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ridgeline.search.tasks.formats.base import Array

MAX_DEFLATE_RATIO = 1_032
"""Deflate never does better (https://zlib.net/zlib_tech.html, "Maximum Compression Factor")."""

_CHUNK_BYTES = 2**20


class Stream(Protocol):
    """A file, or what is unpacked from one."""

    def read(self, size: int, /) -> bytes: ...


def read_bytes(stream: Stream, num_bytes: int) -> Array:
    """So many bytes, uint8 [num_bytes]; fewer where the stream ends before."""
    content = np.empty(num_bytes, np.uint8)
    start = 0
    while start < num_bytes:
        chunk = stream.read(min(_CHUNK_BYTES, num_bytes - start))
        if not chunk:
            break
        content[start : start + len(chunk)] = np.frombuffer(chunk, np.uint8)
        start += len(chunk)
    return content[:start]
