"""What an upgrade leaves to go back to, and what an older program says of a newer database."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from ridgeline.service import projection
from ridgeline.service.errors import Conflict, Unavailable
from ridgeline.service.store import copies, migrate


def upgraded(url: str, revision: str = "head") -> None:
    migrate.upgrade(url, prepare=projection.prepare, revision=revision)


def execute(url: str, *statements: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def make_newer(url: str, program: str | None = "7.8.9") -> None:
    execute(url, "UPDATE rl_alembic_version SET version_num = '9999'")
    if program is not None:
        execute(url, f"INSERT INTO rl_upgrades (revision, program) VALUES ('9999', '{program}')")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """An SQLite file of an earlier schema, with a token."""
    path = tmp_path / "x" / "test.db"
    upgraded(f"sqlite:///{path}", "0009")
    columns = "id, name, secret_sha256, scopes, created_at"
    execute(
        f"sqlite:///{path}",
        f"INSERT INTO rl_tokens ({columns}) VALUES ('a', 'Ada', '', '[]', 0)",
    )
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"test.db-wal", "test.db-shm"}


def test_a_copy_is_kept_before_an_upgrade(old: Path) -> None:
    assert names(old.parent) == {"test.db", "test.db.migrate"}
    for _ in range(2):
        upgraded(f"sqlite:///{old}")
        assert names(old.parent) == {"test.db", "test.db.migrate", "test.db.0009.copy"}
    copy = old.with_name("test.db.0009.copy")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT name FROM rl_tokens").fetchall() == [("Ada",)]
        versions = connection.execute("SELECT version_num FROM rl_alembic_version")
        assert versions.fetchall() == [("0009",)]
    copy.replace(old)
    upgraded(f"sqlite:///{old}")


def test_a_new_database_needs_no_copy(tmp_path: Path) -> None:
    upgraded(f"sqlite:///{tmp_path / 'test.db'}")
    assert names(tmp_path) == {"test.db", "test.db.migrate"}


def test_the_latest_copies_are_kept(old: Path) -> None:
    for revision in ("0001", "0002", "0003", "0004"):
        copies.keep_copy(old, revision)
    found = [copy.revision for copy in copies.copies(old)]
    assert found == ["0004", "0003", "0002"]


def test_without_room_for_a_copy_nothing_is_upgraded(old: Path) -> None:
    (old.parent / "test.db.0009.copy").mkdir()
    with pytest.raises(Unavailable, match=r"cannot keep a copy of .* its upgrade: .*Is a dir"):
        upgraded(f"sqlite:///{old}")
    assert names(old.parent) == {"test.db", "test.db.migrate", "test.db.0009.copy"}
    assert not migrate.is_current(f"sqlite:///{old}")


@pytest.mark.parametrize("program", ["7.8.9", None])
def test_a_newer_database_is_left_alone(migrated_url: str, program: str | None) -> None:
    make_newer(migrated_url, program)
    install = "a newer version" if program is None else "version 7.8.9 or later"
    for use in (upgraded, migrate.is_current):
        with pytest.raises(Conflict, match=f"^the database is newer .* install {install}$"):
            use(migrated_url)


def test_the_version_that_upgrades_is_noted(migrated_url: str) -> None:
    engine = create_engine(migrated_url)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT program FROM rl_upgrades")).scalars().all()
    engine.dispose()
    assert rows == [version("ridgeline")]


LATEST = ScriptDirectory(str(Path(migrate.__file__).parent / "migrations")).get_current_head()


@pytest.mark.parametrize(
    ("statements", "wrong"),
    [
        (["DELETE FROM rl_alembic_version"], "does not say which schema it has"),
        (
            ["INSERT INTO rl_alembic_version (version_num) VALUES ('0001')"],
            f"names several schemas, 0001 and {LATEST}, and has one",
        ),
    ],
)
def test_a_database_that_does_not_say_which_schema_it_has(
    database_url: str, statements: list[str], wrong: str
) -> None:
    upgraded(database_url)
    execute(database_url, *statements)
    with pytest.raises(migrate.UnknownSchema) as caught:
        upgraded(database_url)
    assert caught.value.detail.startswith(f"the database {wrong}, in its table rl_alembic_version")
    assert f"give it one row, of which the version_num is {LATEST}" in caught.value.detail
    execute(
        database_url,
        "DELETE FROM rl_alembic_version",
        f"INSERT INTO rl_alembic_version (version_num) VALUES ('{LATEST}')",
    )
    assert migrate.is_current(database_url)


def test_nor_where_no_table_tells_it(database_url: str) -> None:
    upgraded(database_url)
    execute(database_url, "DROP TABLE rl_alembic_version")
    with pytest.raises(migrate.UnknownSchema, match=r"go back to a backup$"):
        migrate.is_current(database_url)
