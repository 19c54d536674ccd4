"""Whether the dashboard's process says a word: one that hangs still takes connections."""

from __future__ import annotations

import socket
from pathlib import Path

ALIVE_PATH = "/api/meta"
"""What the dashboard answers from memory."""

ALIVE_SECONDS = 3.0
"""How long that may take, also while its largest pages are made."""

DOES_NOT_ANSWER = (
    "the dashboard does not answer: its log says why; where its process hangs, end it, and "
    "`ridgeline up` starts another"
)


def is_alive(path: Path) -> bool:
    """Whether the dashboard that listens on a socket answers."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(ALIVE_SECONDS)
        try:
            client.connect(str(path))
            client.sendall(f"HEAD {ALIVE_PATH} HTTP/1.0\r\n\r\n".encode())
            return bool(client.recv(1))
        except OSError:
            return False
