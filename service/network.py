"""How the environment says to reach a host: by which proxy, and whom to trust.

httpx reads these variables too, but ends in errors that do not name them.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from dataclasses import dataclass
from importlib.util import find_spec
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

_CERTIFICATE = re.compile(r"[0-9a-f]{8}\.[0-9]+")
"""How OpenSSL names a certificate in a folder: by a hash of its subject."""


class InvalidEnvironment(ValueError):
    """A variable that cannot be used; the text begins with its name."""


@dataclass(frozen=True)
class NamedProxy:
    """A proxy and the environment variable that names it."""

    variable: str
    proxy: httpx.Proxy

    def __str__(self) -> str:
        """For people: without the password."""
        url = self.proxy.url
        return f"the proxy {url.scheme}://{url.netloc.decode('ascii')} of {self.variable}"


def proxy_for(url: str) -> NamedProxy | None:
    """The proxy that leads to a URL; None where there is none, and for every loopback address.

    HTTP_PROXY or HTTPS_PROXY, by the URL, goes before ALL_PROXY; NO_PROXY before them all.

    Raises:
        InvalidEnvironment: the variable does not hold the URL of a proxy.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    # IPv6 addresses stand in NO_PROXY with brackets and without.
    if is_loopback(host) or proxy_bypass(parts.netloc) or proxy_bypass(host):
        return None
    proxies = getproxies()
    scheme = parts.scheme if proxies.get(parts.scheme) else "all"
    if not (text := proxies.get(scheme)):
        return None
    variable = f"{scheme.upper()}_PROXY"
    text = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(text)
        is_url = bool(parts.hostname) and parts.port != 0
        proxy = httpx.Proxy(text)
        (parts.hostname or "").encode("idna")  # as sockets will
    except (httpx.InvalidURL, ValueError):
        is_url = False
    if not is_url:
        raise InvalidEnvironment(
            f"{variable}: is not the URL of a proxy, such as http://proxy.example.org:3128"
        )
    if proxy.url.scheme.startswith("socks") and find_spec("socksio") is None:
        raise InvalidEnvironment(
            f'{variable}: a SOCKS proxy needs `pip install "httpx[socks]"`; NO_PROXY={host} goes '
            "without a proxy"
        )
    return NamedProxy(variable, proxy)


def tls_context() -> ssl.SSLContext:
    """Whom to trust: the certificates of SSL_CERT_FILE or SSL_CERT_DIR, or else those of certifi.

    Raises:
        InvalidEnvironment: the variable names no certificates.
    """
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    variable, path = ("SSL_CERT_FILE", file) if file else ("SSL_CERT_DIR", folder)
    try:
        # OpenSSL would look into the folder when it connects, and not say that there is nothing.
        if folder and not file and not any(map(_CERTIFICATE.fullmatch, os.listdir(folder))):
            raise InvalidEnvironment(
                f"SSL_CERT_DIR: {folder}: holds no certificates under the names that "
                "`openssl rehash` gives them"
            )
        return httpx.create_ssl_context()
    except OSError as exc:  # ssl.SSLError is one
        reason = "holds no certificates" if isinstance(exc, ssl.SSLError) else exc.strerror
        raise InvalidEnvironment(f"{variable}: {path}: {reason}") from exc


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, which no proxy can reach for us."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
