"""Requests that HTTP allows and few clients send, and some that it does not, on a socket."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI

from tests.api.calling import EXTERNAL, ok, problem, sqlite_only
from tests.api.serving import serving
from tests.api.test_connections import answers, connected

pytestmark = sqlite_only

HOST = b"Host: localhost\r\nConnection: close\r\n"
FOREIGN = b"Host: evil.example\r\nConnection: close\r\n"
UPGRADE = b"Host: localhost\r\nConnection: close, Upgrade\r\nUpgrade: "
WEBSOCKET = (
    b"websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eHh4eHh4eHh4eHh4eHh4eA==\r\n"
)
JSON = HOST + b"Content-Type: application/json\r\n"
CHUNKED = JSON + b"Transfer-Encoding: chunked\r\n\r\n"


def get(target: str, headers: bytes = HOST) -> bytes:
    return b"GET %s HTTP/1.1\r\n%s\r\n" % (target.encode("latin-1"), headers)


def method(name: str, target: str = "/v1/studies") -> bytes:
    return get(target).replace(b"GET", name.encode(), 1)


def post(rest: bytes, target: bytes = b"/v1/studies/x:pause") -> bytes:
    return b"POST " + target + b" HTTP/1.1\r\n" + rest


REQUESTS: list[tuple[str, bytes, int]] = [
    # A target that names its host, as to a proxy: that host counts, and not the header.
    ("absolute target", get("http://localhost/v1/studies?page_size=1"), 200),
    ("absolute target in capitals", get("HTTP://LOCALHOST:9/v1/studies"), 200),
    ("its host counts", get("http://127.0.0.1/v1/studies", FOREIGN), 200),
    ("its foreign host counts", get("http://evil.example/v1/studies"), 421),
    ("absolute target without a host", get("http:///v1/studies"), 421),
    ("absolute target without a path", get("http://localhost"), 302),
    ("another scheme", get("ftp://localhost/v1/studies"), 404),
    ("target *", get("*"), 404),
    ("OPTIONS *", method("OPTIONS", "*"), 404),
    ("CONNECT", method("CONNECT", "localhost:80"), 404),
    ("CONNECT of a path", method("CONNECT"), 405),
    ("TRACE", method("TRACE"), 405),
    ("OPTIONS", method("OPTIONS"), 405),
    ("a method in small letters", method("get"), 405),
    ("a method nobody knows", method("BREW"), 405),
    ("no slash", get("v1/studies"), 404),
    ("an empty target", get(""), 400),
    ("a query alone", get("?page_size=1"), 404),
    ("a trailing slash", get("/v1/studies/"), 404),
    ("two slashes", get("//v1/studies"), 404),
    ("two slashes inside", get("/v1//studies"), 404),
    ("dots", get("/v1/studies/../../healthz"), 404),
    ("a fragment", get("/healthz#top"), 404),
    ("an encoded slash", get("/v1/studies/x%2Ftrials"), 200),
    ("an encoded slash in a name", get("/v1/studies/..%2F..%2Fetc%2Fpasswd"), 404),
    ("an encoded colon", post(HOST + b"\r\n", b"/v1/studies/x%3Apause"), 200),
    ("an encoded colon in a name", get("/v1/studies/a%3Ab"), 404),
    ("an encoded NUL", get("/v1/studies/a%00"), 422),
    ("encoded bytes that are no UTF-8", get("/v1/studies/%ff%fe"), 422),
    ("percent signs that encode nothing", get("/v1/studies/%zz%f"), 422),
    ("a query that is no UTF-8", get("/v1/studies?page_token=%ff&page_size=%zz"), 422),
    ("bytes beyond ASCII", get("/v1/studies/\xe9"), 400),
    ("a control character", get("/v1/studies/\x01"), 400),
    ("a long target", get("/v1/studies/" + "a" * 60_000), 422),
    ("a long header", get("/healthz", HOST + b"X: " + b"a" * 60_000 + b"\r\n"), 200),
    ("a head too long", b"GET /healthz HTTP/1.1\r\nX: ".ljust(2**16 + 1, b"a"), 400),
    ("many headers", get("/healthz", HOST + b"X: y\r\n" * 5_000), 200),
    ("a header over two lines", get("/healthz", HOST + b"X: a\r\n b\r\n"), 200),
    ("a space before a colon", get("/healthz", HOST + b"X : a\r\n"), 400),
    ("NUL in a header", get("/healthz", HOST + b"X: a\x00b\r\n"), 400),
    ("two hosts", get("/healthz", HOST + b"Host: localhost\r\n"), 400),
    ("no host", get("/healthz", b""), 400),
    ("HTTP/1.0", b"GET /healthz HTTP/1.0\r\n\r\n", 200),
    ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 421),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), 400),
    # No second protocol stands behind the first.
    ("WebSocket", get("/healthz", UPGRADE + WEBSOCKET), 200),
    ("h2c", get("/healthz", UPGRADE + b"h2c\r\n"), 200),
    # Where a body ends.
    ("one length twice", post(JSON + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}"), 200),
    ("two lengths", post(JSON + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} "), 400),
    ("a length below 0", post(JSON + b"Content-Length: -2\r\n\r\n{}"), 400),
    ("a length that is no number", post(JSON + b"Content-Length: \xb2\r\n\r\n{}"), 400),
    ("a length of many digits", post(JSON + b"Content-Length: " + b"9" * 20 + b"\r\n\r\n{}"), 413),
    ("a length of too many", post(JSON + b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n{}"), 400),
    ("chunks beside a length", post(b"Content-Length: 5\r\n" + CHUNKED + b"0\r\n\r\n"), 400),
    ("chunks", post(CHUNKED + b"1\r\n{\r\n1;a=b\r\n}\r\n0\r\nX: trailer\r\n\r\n"), 200),
    ("a chunk that is none", post(CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n"), 400),
    ("a chunk longer than it says", post(CHUNKED + b"1\r\n{}\r\n0\r\n\r\n"), 400),
    ("a chunk that is none, of GET", get("/healthz", CHUNKED + b"zz\r\n"), 400),
    ("compressed chunks", post(JSON + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), 400),
    ("a body of GET", get("/v1/studies", JSON + b"Content-Length: 3\r\n") + b"{}x", 200),
    ("another expectation", post(JSON + b"Content-Length: 2\r\nExpect: tea\r\n\r\n{}"), 200),
    ("a part of an answer", get("/docs/swagger-ui.css", HOST + b"Range: bytes=x\r\n"), 200),
]


@pytest.fixture
def address(app: FastAPI) -> Iterator[tuple[str, int]]:
    with serving(app) as url:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        yield parts.hostname, parts.port


def test_each_has_its_answer(
    address: tuple[str, int], client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    ok(client.post("/v1/studies", json=EXTERNAL), 201)
    statuses = {}
    for name, request, _ in REQUESTS:
        with connected(address) as connection:
            connection.sendall(request)
            answer, *_ = answers(connection)  # after HTTP/2's greeting comes more
        statuses[name] = answer.status_code
        if answer.status_code >= 400:
            problem(answer, answer.status_code)
    assert statuses == {name: status for name, _, status in REQUESTS}
    assert [one for one in caplog.records if one.levelno >= logging.ERROR] == []


def test_a_body_that_is_announced_is_asked_for(
    address: tuple[str, int], client: httpx.Client
) -> None:
    ok(client.post("/v1/studies", json=EXTERNAL), 201)
    head = JSON + b"Expect: 100-continue\r\nContent-Length: "
    with connected(address) as connection:
        connection.sendall(post(head + b"2\r\n\r\n"))
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"{}")
        (answer,) = answers(connection)
        assert ok(answer)["state"] == "PAUSED"
    with connected(address) as connection:
        connection.sendall(post(head + b"9999999\r\n\r\n"))
        (answer,) = answers(connection)
        problem(answer, 413)


def test_head_has_no_body_and_ends(address: tuple[str, int], client: httpx.Client) -> None:
    ok(client.post("/v1/studies", json=EXTERNAL), 201)
    for path in ("/healthz", "/v1/studies", "/v1/studies/x/events", "/v1/studies/none", "/docs"):
        with connected(address) as connection:
            connection.sendall(method("HEAD", path))
            received = b""
            while data := connection.recv(65_536):
                received += data
        assert received.startswith(b"HTTP/1.1 404 " if path.endswith("none") else b"HTTP/1.1 200 ")
        assert received.endswith(b"\r\n\r\n")
