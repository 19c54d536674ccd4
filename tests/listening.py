"""What processes listen on."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

_NET = Path("/proc/net")
_TCP_LISTENS = "0A"
_UDP_IS_BOUND = "07"
_UNIX_LISTENS = 0x10000


def doors(pids: Iterable[int]) -> set[str]:
    """All that processes of this machine listen on: `tcp 127.0.0.1 8000`, `unix /path`.

    UDP ports count too: whoever has one takes what is sent to it.
    """
    inodes = {inode for pid in pids for inode in _sockets(pid)}
    return {door for door, inode in [*_ports(), *_unix_sockets()] if inode in inodes}


def _sockets(pid: int) -> Iterator[str]:
    """The inodes of a process's sockets."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                yield target[len("socket:[") : -1]


def _ports() -> Iterator[tuple[str, str]]:
    for name in ("tcp", "tcp6", "udp", "udp6"):
        open_state = _TCP_LISTENS if name.startswith("tcp") else _UDP_IS_BOUND
        for row in (_NET / name).read_text().splitlines()[1:]:
            _, local, _, state, *rest = row.split()
            if state == open_state:
                address, port = local.split(":")
                yield f"{name} {_address(address)} {int(port, 16)}", rest[5]


def _address(text: str) -> str:
    """An address as the kernel prints it: words of 32 bits in the byte order of the machine."""
    words = [int(text[i : i + 8], 16) for i in range(0, len(text), 8)]
    return str(ip_address(b"".join(socket.htonl(word).to_bytes(4, "big") for word in words)))


def _unix_sockets() -> Iterator[tuple[str, str]]:
    for row in (_NET / "unix").read_text().splitlines()[1:]:
        _, _, _, flags, _, _, inode, *path = row.split(maxsplit=7)
        if int(flags, 16) & _UNIX_LISTENS:
            yield f"unix {path[0]}", inode
