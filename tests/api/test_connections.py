"""Requests that never come to their end, on a socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI

from ridgeline.service.api import bodies, connections
from tests.api.calling import problem, sqlite_only
from tests.api.serving import serving

pytestmark = sqlite_only

HEAD = b"POST /v1/studies HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture
def address(app: FastAPI) -> Iterator[tuple[str, int]]:
    with serving(app) as url:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        yield parts.hostname, parts.port


@contextmanager
def connected(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=60) as connection:
        yield connection


def answers(connection: socket.socket) -> list[httpx.Response]:
    """All that is sent until the connection is closed."""
    received = b""
    while data := connection.recv(65_536):
        received += data
    found = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = httpx.Headers(dict(line.split(": ", 1) for line in lines))
        length = int(headers["content-length"])
        body, received = received[:length], received[length:]
        found.append(httpx.Response(int(first.split()[1]), headers=headers, content=body))
    return found


@pytest.mark.parametrize("sent", [b"", b"GET /heal", HEAD, HEAD + b"X: "])
def test_a_head_that_does_not_arrive_is_not_waited_for(
    address: tuple[str, int], sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
    with connected(address) as connection:
        connection.sendall(sent)
        (answer,) = answers(connection)
        assert "head" in problem(answer, 408)["detail"]


def test_the_head_of_a_second_request_is_not_waited_for_either(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected(address) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(1)
        monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
        connection.sendall(b"GET /healthz HT")
        received = b""
        while data := connection.recv(65_536):
            received += data
        assert b"408" in received


@pytest.mark.parametrize("headers", [b"Content-Length: 100\r\n", b"Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize("num_bytes", [0, 1])
def test_a_body_that_does_not_arrive_is_not_waited_for(
    address: tuple[str, int], headers: bytes, num_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "ARRIVAL_SECONDS", 0.05)
    with connected(address) as connection:
        connection.sendall(HEAD + headers + b"\r\n" + b"1"[:num_bytes])
        (answer,) = answers(connection)
        assert "body" in problem(answer, 408)["detail"]


@pytest.mark.parametrize("sent", [b"hello\r\n\r\n", b"GET / HTTP/1.1\r\nX\xff: y\r\n\r\n"])
def test_what_is_no_request_is_told_so(address: tuple[str, int], sent: bytes) -> None:
    with connected(address) as connection:
        connection.sendall(sent)
        (answer,) = answers(connection)
        problem(answer, 400)


@pytest.mark.parametrize("origin", [b"http://[", b"http://a]b", b"\xff"])
def test_an_origin_that_is_no_url_is_answered(address: tuple[str, int], origin: bytes) -> None:
    with connected(address) as connection:
        connection.sendall(HEAD + b"Connection: close\r\nOrigin: " + origin + b"\r\n\r\n")
        (answer,) = answers(connection)
        problem(answer, 403)
