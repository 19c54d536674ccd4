"""Which ports a process listens on."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_LISTENS = "0A"


def listening_ports(pid: int) -> set[int]:
    """The TCP ports, of IPv4 and IPv6, on which a process of this machine listens."""
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            sockets.add(str(descriptor.readlink()))
    rows = [
        row.split()
        for name in ("tcp", "tcp6")
        for row in Path("/proc/net", name).read_text().splitlines()[1:]
    ]
    return {
        int(address.rpartition(":")[2], 16)
        for _, address, _, state, *rest in rows
        if state == _LISTENS and f"socket:[{rest[5]}]" in sockets
    }
