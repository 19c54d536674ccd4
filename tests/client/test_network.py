"""Proxies and certificates that the environment names: they work, or the variable is named."""

from __future__ import annotations

import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import certifi
import pytest

from ridgeline.service.client import Client, Unreachable
from ridgeline.service.network import InvalidEnvironment, proxy_for, tls_context

REMOTE = "http://ridgeline.invalid:8000"
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:1080", 'needs `pip install "httpx[socks]"`'),
        ("ALL_PROXY", "nonsense://127.0.0.1:1", "is not the URL of a proxy"),
        ("HTTP_PROXY", "http://[", "is not the URL of a proxy"),
        ("http_proxy", "http://host:99999", "is not the URL of a proxy"),
        ("HTTP_PROXY", "http://", "is not the URL of a proxy"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named(
    variable: str, value: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidEnvironment) as caught:
        Client(REMOTE)
    assert str(caught.value).startswith(f"{variable.upper()}: ")
    assert reason in str(caught.value)
    for url in ("http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000"):
        Client(url).close()


def test_schemes_have_proxies_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxy_for(REMOTE) is None
    monkeypatch.setenv("ALL_PROXY", "http://all.example.org:1")
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example.org:3128")
    assert str(proxy_for(REMOTE)) == "the proxy http://all.example.org:1 of ALL_PROXY"
    assert (
        str(proxy_for("https://ridgeline.invalid"))
        == "the proxy http://proxy.example.org:3128 of HTTPS_PROXY"
    )


@pytest.mark.parametrize(
    ("no_proxy", "url", "direct"),
    [
        ("localhost,[::1]", REMOTE, False),
        ("localhost,[::1],ridgeline.invalid", REMOTE, True),
        ("invalid", REMOTE, True),
        (".invalid", REMOTE, True),
        ("line.invalid", REMOTE, False),
        ("*", REMOTE, True),
        ("ridgeline.invalid:8000", REMOTE, True),
        ("[2001:db8::7]", "http://[2001:db8::7]:8000", True),
        ("2001:db8::7", "http://[2001:db8::7]:8000", True),
        ("10.0.0.7", "http://10.0.0.7:8000", True),
        ("http://[, ,,", REMOTE, False),
    ],
)
def test_no_proxy(no_proxy: str, url: str, direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example.org:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (proxy_for(url) is None) == direct
    Client(url).close()


def test_a_proxy_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@127.0.0.1:1")
    with Client(REMOTE, retry_delays_seconds=()) as client, pytest.raises(Unreachable) as caught:
        client.study("s")
    message = str(caught.value)
    assert message.startswith(
        f"cannot reach {REMOTE} through the proxy http://127.0.0.1:1 of HTTP_PROXY: "
    )
    assert "secret" not in message


class Proxy(BaseHTTPRequestHandler):
    """Answers for whatever service it is asked for."""

    asked_for: str

    def do_GET(self) -> None:
        type(self).asked_for = self.path
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None: ...


def test_a_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        monkeypatch.setenv("ALL_PROXY", f"127.0.0.1:{server.server_port}")
        with Client(REMOTE) as client:
            assert client.is_ready()
    assert Proxy.asked_for == f"{REMOTE}/readyz"


def test_certificates_that_are_not_there_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.pem").touch()
    for name, reason in (("absent.pem", "No such file or directory"), ("empty.pem", "holds no")):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / name))
        with pytest.raises(InvalidEnvironment) as caught:
            Client("https://ridgeline.invalid")
        assert str(caught.value).startswith(f"SSL_CERT_FILE: {tmp_path / name}: {reason}")
        Client(REMOTE).close()  # has no use for them


def test_certificates_of_the_environment_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    context = tls_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.get_ca_certs()
    Client("https://ridgeline.invalid").close()
