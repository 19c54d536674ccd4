"""The real client on the real app, without a socket."""

from __future__ import annotations

from collections.abc import Iterator

import anyio.from_thread
import pytest

from ridgeline.service.api.app import create_app
from ridgeline.service.client import Client
from ridgeline.service.settings import Settings
from ridgeline.service.store.session import Store
from tests.api.calling import AsgiTransport


@pytest.fixture
def client(store: Store) -> Iterator[Client]:
    app = create_app(Settings(_env_file=None), store)
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        Client("http://localhost", transport=AsgiTransport(app, portal)) as client,
    ):
        yield client
