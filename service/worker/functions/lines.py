"""What the processes around one run of a function say to each other: lines of JSON.

Importing this module imports nothing that has to be installed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

MAX_LINE_BYTES = 8 * 2**20
"""The pruning rules of a study with the most epochs there are have half of that."""

UNHEARD = 87
"""What a function's process ends with that could not tell how its run has ended."""

_READ_BYTES = 2**16

Line = dict[str, Any]


def encoded(message: Mapping[str, Any]) -> bytes:
    """One line.

    Raises:
        ValueError: a number is not finite, or there is something that JSON does not have.
    """
    return json.dumps(message, allow_nan=False).encode() + b"\n"


class LineReader:
    """Reads whole lines from a descriptor; one that does not block is read as far as it goes."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.has_ended = False
        """Whether there is nothing to come any more."""
        self._begun = b""

    def read(self) -> list[Line]:
        """The lines that one more read makes whole.

        Raises:
            ValueError: what arrived are not such lines.
        """
        try:
            read = os.read(self.descriptor, _READ_BYTES)
        except BlockingIOError:
            return []
        except OSError:  # the other side was killed
            read = b""
        self.has_ended = not read
        *lines, self._begun = (self._begun + read).split(b"\n")
        if len(self._begun) > MAX_LINE_BYTES:
            raise ValueError("a line is too long")
        found = [json.loads(line) for line in lines]
        if not all(isinstance(line, dict) for line in found):
            raise ValueError("a line is not an object")
        return found

    def wait(self) -> list[Line]:
        """The next lines of a descriptor that blocks; none once it has ended."""
        found: list[Line] = []
        while not found and not self.has_ended:
            found = self.read()
        return found
