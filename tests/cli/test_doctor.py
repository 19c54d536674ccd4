"""`ridgeline doctor` as a command."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from ridgeline.service import projection
from ridgeline.service.store.session import DatabaseClock, Store
from tests.cli.conftest import Ridgeline
from tests.service.factory import FakeWorker, post, spec

on_sqlite = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)


@pytest.fixture
def url(migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database with a study that has ended."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    store = Store(migrated_url, clock=DatabaseClock(), project=projection.project)
    post(store, spec("digits"))
    worker = FakeWorker(store, num_slots=6)
    worker.sync()
    worker.end_all()
    store.close()
    return migrated_url


def execute(url: str, statement: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_a_good_database(ridgeline: Ridgeline, url: str) -> None:
    result = ridgeline("doctor", database_url=url)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "All is well.\n", "")


def test_problems_are_told_and_only_the_copy_is_repaired(ridgeline: Ridgeline, url: str) -> None:
    execute(url, "UPDATE trial_values SET value = 0.5 WHERE trial_value_id = 2")
    result = ridgeline("doctor", database_url=url)
    assert result.exit_code == 1
    line, todo, total = result.stdout.splitlines()
    assert line.startswith("optuna-copy: study digits: its copy in Optuna's tables differs")
    assert todo.startswith("  `ridgeline doctor --repair` makes the copy anew.")
    assert total == "1 problem found."
    execute(url, "UPDATE rl_trials SET state = 'PRUNED' WHERE number = 0")
    repaired = ridgeline("doctor", "--repair", database_url=url)
    assert repaired.exit_code == 1
    first, line, _, total = repaired.stdout.splitlines()
    assert first == "study digits: its copy in Optuna's tables was made anew."
    assert line == "trial-ends: study digits: trials 0 stand otherwise than their runs imply."
    assert total == "1 problem found."
    execute(url, "UPDATE rl_trials SET state = 'COMPLETE' WHERE number = 0")
    assert ridgeline("doctor", "--repair", database_url=url).exit_code == 0
    assert ridgeline("doctor", "--repair", database_url=url).stdout == "All is well.\n"


def test_a_database_that_is_not_there_is_not_made(ridgeline: Ridgeline, tmp_path: Path) -> None:
    result = ridgeline("doctor")
    database = tmp_path / "ridgeline-data" / "ridgeline.db"
    assert result.exit_code == 1
    assert result.stderr == f"ridgeline: there is no database {database}\n"
    assert not database.parent.exists()


def test_a_database_that_was_not_migrated(ridgeline: Ridgeline, database_url: str) -> None:
    if database_url.startswith("sqlite"):
        sqlite3.connect(database_url.removeprefix("sqlite:///")).close()
        Path(database_url.removeprefix("sqlite:///")).touch()
    result = ridgeline("doctor", database_url=database_url)
    assert result.exit_code == 1
    assert result.stderr == (
        "ridgeline: the database is not of this version: run `ridgeline migrate` first\n"
    )


@on_sqlite
def test_a_damaged_file(ridgeline: Ridgeline, url: str) -> None:
    path = Path(url.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'ix_rl_reports_study_id_revision'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    data = bytearray(path.read_bytes())
    data[(page - 1) * size : (page - 1) * size + 8] = b"\xff" * 8
    path.write_bytes(data)
    result = ridgeline("doctor", database_url=url)
    assert result.exit_code == 1
    assert result.stdout.startswith("database-file: SQLite finds it damaged: ")


@on_sqlite
def test_rows_that_name_others_which_are_gone(ridgeline: Ridgeline, url: str) -> None:
    execute(url, "DELETE FROM rl_workers")
    result = ridgeline("doctor", database_url=url)
    assert "foreign-keys: rows name others that are gone: row 1 of rl_runs" in result.stdout


@on_sqlite
@pytest.mark.parametrize(
    ("name", "mode", "told"),
    [
        ("tokens/admin.token", 0o644, "others may read"),
        ("tokens/admin.token", 0o642, "others may write to"),
        ("cache", 0o777, "others may write to"),
        ("home", 0o702, "others may write to"),
        ("dashboard/socket", 0o604, "others may read"),
        ("dashboard", 0o707, "others may write to"),
    ],
)
def test_what_others_may_change_is_told(
    ridgeline: Ridgeline, url: str, tmp_path: Path, name: str, mode: int, told: str
) -> None:
    settings = {
        "database_url": url,
        "token_dir": str(tmp_path / "tokens"),
        "cache_dir": str(tmp_path / "cache"),
        "home": str(tmp_path / "home"),
        "dashboard_socket": str(tmp_path / "dashboard" / "socket"),
    }
    for folder in ("tokens", "cache", "home", "dashboard"):
        (tmp_path / folder).mkdir(mode=0o700)
    for file in ("tokens/admin.token", "tokens/worker.token", "dashboard/socket"):
        (tmp_path / file).touch(mode=0o600)
    assert ridgeline("doctor", **settings).stdout == "All is well.\n"
    (tmp_path / name).chmod(mode)
    result = ridgeline("doctor", **settings)
    assert result.exit_code == 1
    assert result.stdout.startswith(f"folders: {told} {tmp_path / name}.\n")


@on_sqlite
def test_the_files_of_the_database_are_looked_at(ridgeline: Ridgeline, url: str) -> None:
    path = Path(url.removeprefix("sqlite:///"))
    path.chmod(0o666)
    assert f"folders: others may write to {path}.\n" in ridgeline("doctor", database_url=url).stdout
