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
from tests.doctor.conftest import train
from tests.service.factory import FakeWorker, post, spec
from tests.store.test_migrate import optuna_storage

on_sqlite = pytest.mark.parametrize("migrated_url", ["sqlite"], indirect=True)


@pytest.fixture
def url(migrated_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database with a study that has ended."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    store = Store(migrated_url, clock=DatabaseClock(), project=projection.project)
    post(store, spec("digits"))
    train(store, FakeWorker(store, num_slots=6))
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


def test_a_copy_that_differs_is_told_and_made_anew(ridgeline: Ridgeline, url: str) -> None:
    execute(url, "UPDATE trial_values SET value = 0.5 WHERE trial_value_id = 2")
    result = ridgeline("doctor", database_url=url)
    assert result.exit_code == 1
    line, todo, total = result.stdout.splitlines()
    assert line.startswith("optuna-copy: study digits: its copy in Optuna's tables differs")
    assert todo.startswith("  `ridgeline doctor --repair` makes the copy anew.")
    assert total == "1 problem found."
    repaired = ridgeline("doctor", "--repair", database_url=url)
    assert repaired.stdout.splitlines() == [
        "study digits: its copy in Optuna's tables was made anew.",
        "All is well.",
    ]
    assert ridgeline("doctor", "--repair", database_url=url).stdout == "All is well.\n"


@pytest.mark.parametrize(
    ("statement", "wrong"),
    [
        (
            "DELETE FROM rl_reports WHERE run_id = 1",
            "study digits: runs 0/0 have kept an epoch of which there is no report",
        ),
        (
            "UPDATE rl_runs SET kept_epoch = 999 WHERE id = 1",
            "study digits: runs 0/0 have kept an epoch of which there is no report",
        ),
        (
            "UPDATE rl_runs SET seed = 1 WHERE id = 1",
            "study digits: runs 0/0 have another seed than the spec implies",
        ),
        (
            "UPDATE rl_trials SET state = 'PRUNED' WHERE number = 0",
            "study digits: trials 0 stand otherwise than their runs imply",
        ),
        (
            "UPDATE rl_trials SET config = '7' WHERE id = 1",
            "rl_trials.config of the row 1 cannot be read as what belongs there",
        ),
    ],
)
def test_a_copy_is_not_made_anew_from_what_is_damaged(
    ridgeline: Ridgeline, url: str, statement: str, wrong: str
) -> None:
    before = copied(url)
    execute(url, statement)
    result = ridgeline("doctor", database_url=url)
    assert result.exit_code == 1
    assert f": {wrong}.\n" in result.stdout
    assert "--repair" not in result.stdout
    repaired = ridgeline("doctor", "--repair", database_url=url)
    assert repaired.exit_code == 1
    assert repaired.stdout.splitlines()[0] == (
        "study digits: its copy in Optuna's tables differs and is left as it is, since it may hold "
        f"what the study has lost: {wrong}."
    )
    assert copied(url) == before


def copied(url: str) -> list[tuple[object, ...]]:
    """What the copy holds."""
    engine = create_engine(url)
    with engine.connect() as connection:
        found = [
            tuple(row)
            for table in ("trials", "trial_values", "trial_intermediate_values", "trial_params")
            for row in connection.execute(text(f"SELECT * FROM {table} ORDER BY 1"))
        ]
    engine.dispose()
    return found


def test_a_copy_that_cannot_be_read_is_made_anew(ridgeline: Ridgeline, url: str) -> None:
    execute(url, "UPDATE trial_params SET distribution_json = 'nonsense' WHERE param_id = 2")
    execute(url, "UPDATE trial_user_attributes SET value_json = '' WHERE trial_id = 3")
    if url.startswith("sqlite"):
        execute(url, "UPDATE study_directions SET direction = x'00ff'")
        execute(url, "UPDATE trials SET datetime_start = 'nonsense' WHERE trial_id = 4")
    assert "optuna-copy: study digits" in ridgeline("doctor", database_url=url).stdout
    repaired = ridgeline("doctor", "--repair", database_url=url)
    assert repaired.stdout.splitlines()[1:] == ["All is well."]


@pytest.mark.parametrize("table", ["version_info", "alembic_version"])
def test_versions_of_optuna_are_written_again_by_migrate(
    ridgeline: Ridgeline, url: str, table: str
) -> None:
    execute(url, f"DELETE FROM {table}")
    result = ridgeline("doctor", database_url=url)
    assert result.exit_code == 1
    assert result.stdout.startswith("optuna-version: nothing says which version Optuna's tables")
    assert "`ridgeline migrate` writes it again" in result.stdout
    assert ridgeline("migrate", database_url=url).exit_code == 0
    assert ridgeline("doctor", database_url=url).stdout == "All is well.\n"
    with optuna_storage(url) as storage:
        assert [study.study_name for study in storage.get_all_studies()] == ["digits"]


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
    assert f"keep a copy of {path}, and go back to a backup. Without one" in result.stdout
    assert f"`sqlite3 {path} .recover" in result.stdout
    before = path.read_bytes()
    assert "made anew" not in ridgeline("doctor", "--repair", database_url=url).stdout
    assert path.read_bytes() == before


@on_sqlite
@pytest.mark.parametrize("command", ["doctor", "serve", "migrate"])
def test_a_file_that_is_no_database(ridgeline: Ridgeline, url: str, command: str) -> None:
    path = Path(url.removeprefix("sqlite:///"))
    path.with_name(f"{path.name}.0009.copy").touch()
    with open(path, "r+b") as file:
        file.write(b"\xff" * 64)
    result = ridgeline(command, database_url=url)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"ridgeline: the database {path} is damaged (file is not a database). ")
    assert f"go back to a backup, or to {path}.0009.copy, from before an upgrade." in line


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
