"""What stands for the dashboard, on a Unix socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any

from ridgeline.service.api.dashboard_alive import ALIVE_PATH

SLOW = "/api/slow"
"""Answered once somebody has asked twice whether the process is alive."""

FILE = "attachment; filename=数字.csv".encode()


class Upstream(BaseHTTPRequestHandler):
    """Stands for the dashboard: says what it was asked, with headers that must not pass."""

    seen: list[tuple[str, str, dict[str, str]]] = []  # noqa: RUF012
    asked_twice = threading.Event()

    def do_GET(self) -> None:
        names = {name.lower(): value for name, value in self.headers.items()}
        self.seen.append((self.command, self.path, names))
        if [path for _, path, _ in self.seen].count(ALIVE_PATH) >= 2:
            self.asked_twice.set()
        if self.path == SLOW:
            assert self.asked_twice.wait(60)
        if self.path.startswith("/api/broken"):
            self.send_error(500, "a traceback, say")
            return
        if self.path.startswith("/static/absent"):
            self.send_error(404)
            return
        if self.path.startswith("/api/absent"):
            self.send_response(404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"reason": "absent"}')
            return
        self.send_response(302 if self.path == "/dashboard/" else 200)
        if self.path == "/dashboard/":
            self.send_header("Location", f"http://{self.headers['Host']}/dashboard?a=b")
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", "5")
        self.send_header("Content-Disposition", FILE.decode("latin-1"))
        self.send_header("Content-Security-Policy", "default-src 'self'")
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Set-Cookie", "a=b")
        self.send_header("Keep-Alive", "timeout=5")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(b"hello")

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def upstream_at(path: Path) -> Iterator[None]:
    """Listens within the block."""
    server = ThreadingUnixStreamServer(str(path), Upstream)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    Upstream.seen.clear()
    Upstream.asked_twice.clear()
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def hung_at(path: Path) -> Iterator[None]:
    """A process that takes connections, as the kernel does for it, and says nothing."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield
