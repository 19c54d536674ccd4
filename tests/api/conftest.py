"""The real app on a real store, called without a socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio.from_thread
import httpx
import pytest
from fastapi import FastAPI
from selenium import webdriver

from ridgeline.service.api.app import create_app
from ridgeline.service.settings import Settings
from ridgeline.service.store.session import Store
from tests.api.browser import chromium
from tests.api.calling import AsgiTransport

ClientOf = Callable[..., httpx.Client]


@pytest.fixture(scope="session")
def portal() -> Iterator[anyio.from_thread.BlockingPortal]:
    """An event loop in a thread, as a server has one."""
    with anyio.from_thread.start_blocking_portal() as portal:
        yield portal


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """Where a Unix socket can be made; pytest's own folders are too deep for one."""
    with TemporaryDirectory(prefix="rl-") as folder:
        yield Path(folder, "dashboard")


@pytest.fixture
def settings() -> Settings:
    return Settings(_env_file=None, max_body_bytes=100_000)


@pytest.fixture
def app(settings: Settings, store: Store) -> FastAPI:
    """The app without its lifespan: no maintenance thread moves what a test looks at."""
    return create_app(settings, store)


@pytest.fixture
def client_of(portal: anyio.from_thread.BlockingPortal) -> Iterator[ClientOf]:
    """Makes clients of an app; `token` is sent as a Bearer token."""
    with ExitStack() as stack:

        def client_of(app: FastAPI, token: str | None = None) -> httpx.Client:
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            client = httpx.Client(
                transport=AsgiTransport(app, portal), base_url="http://localhost", headers=headers
            )
            return stack.enter_context(client)

        yield client_of


@pytest.fixture
def client(app: FastAPI, client_of: ClientOf) -> httpx.Client:
    """A client of the app while no token was ever created."""
    return client_of(app)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path / "profile") as browser:
        yield browser
