"""An older program on a newer database: every command says so in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ridgeline.service.dashboard import server as dashboard
from tests.cli.conftest import Ridgeline
from tests.store.test_upgrade import make_newer, upgraded


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """An SQLite file of a newer version, with the copy that an upgrade has left."""
    path = tmp_path / "test.db"
    upgraded(f"sqlite:///{path}", "0009")
    upgraded(f"sqlite:///{path}")
    make_newer(f"sqlite:///{path}")
    return path


@pytest.mark.parametrize(
    "command", [("migrate",), ("serve",), ("token", "list"), ("doctor",)], ids=" ".join
)
def test_every_command_says_in_one_line_that_the_database_is_newer(
    ridgeline: Ridgeline, newer: Path, command: tuple[str, ...]
) -> None:
    url = f"sqlite:///{newer}"
    result = ridgeline(*command, database_url=url)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("ridgeline: the database is newer than this program: it has schema 9999")
    assert line.endswith(
        f"install version 7.8.9 or later, or stop the service, delete {newer}-wal, and put "
        f"{newer}.0009.copy in the place of {newer}"
    )


def test_the_dashboard_says_so_too(newer: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = f"sqlite:///{newer}"
    assert dashboard.main(["--database-url", url, "--socket", str(newer.parent / "socket")]) == 1
    (told,) = caplog.messages
    assert told.startswith("the database is newer than this program")
    assert told.endswith(f"{newer}.0009.copy in the place of {newer}")
