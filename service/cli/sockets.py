"""Ports to listen on."""

from __future__ import annotations

import socket

from ridgeline.service.cli.problems import file_problems

_BACKLOG = 2_048


def listen(host: str, port: int) -> socket.socket:
    """A listener whose connections send without delay.

    An answer goes out in two writes, headers and body; with Nagle's algorithm the second one waits
    for the peer's delayed acknowledgement, about 40 ms.  asyncio turns it off only on sockets whose
    protocol number is IPPROTO_TCP; that of `create_server` has 0.

    Raises:
        Problem: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with file_problems(f"listen on {host} port {port} (--port takes another)"):
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
    return listener


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
