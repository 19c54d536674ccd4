"""What a process prints, kept within bounds."""

from __future__ import annotations

HEAD_BYTES = 3_000
TAIL_BYTES = 6_500
"""With the line between them they fit into the log that the api keeps of a run."""


class Output:
    """The beginning and the end of an output of any length."""

    def __init__(self) -> None:
        self._head = b""
        self._tail = b""
        self._num_bytes = 0

    def add(self, read: bytes) -> None:
        self._num_bytes += len(read)
        room = HEAD_BYTES - len(self._head)
        self._head += read[:room]
        self._tail = (self._tail + read[room:])[-TAIL_BYTES:]

    @property
    def text(self) -> str:
        """The whole output where it is short, else its two ends and how much lay between them."""
        num_left_out = self._num_bytes - len(self._head) - len(self._tail)
        gap = f"\n[... {num_left_out} bytes left out ...]\n".encode() if num_left_out else b""
        return (self._head + gap + self._tail).decode("utf-8", "replace")
