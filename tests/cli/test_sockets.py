"""Listeners of the api, which `ridgeline serve` and `ridgeline up` share."""

from __future__ import annotations

import socket

from ridgeline.service.cli.sockets import listen


def test_connections_send_without_delay() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
