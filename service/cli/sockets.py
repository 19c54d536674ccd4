"""Ports to listen on."""

from __future__ import annotations

import socket

from service.cli.problems import file_problems

_BACKLOG = 2_048


def listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with file_problems(f"listen on {host} port {port} (--port takes another)"):
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
