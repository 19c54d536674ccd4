"""The whole service as processes, on every database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployment import Deployment


@pytest.fixture
def deployment(migrated_url: str, tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(migrated_url, tmp_path)
    deployment.start_api()
    yield deployment
    deployment.close()
