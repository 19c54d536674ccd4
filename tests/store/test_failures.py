"""What is told where the database's file or disk fails."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import event

from ridgeline.service import projection
from ridgeline.service.errors import Unavailable
from ridgeline.service.store.session import Store
from tests.conftest import ManualClock
from tests.service.factory import post, spec, study_of


@pytest.fixture
def file(migrated_sqlite: Path, tmp_path: Path) -> Path:
    file = tmp_path / "data" / "test.db"
    file.parent.mkdir()
    shutil.copy(migrated_sqlite, file)
    return file


@pytest.fixture
def store(file: Path, clock: ManualClock) -> Iterator[Store]:
    """A store that has opened its file."""
    store = Store(f"sqlite:///{file}", clock=clock, project=projection.project)
    post(store, spec("first"))
    yield store
    store.close()


def fill(store: Store) -> None:
    for number in range(1_000):
        post(store, spec(f"s{number}"))


def names_in(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as connection:
        return [row[0] for row in connection.execute("SELECT name FROM rl_studies ORDER BY id")]


def test_a_full_disk_is_called_so(file: Path, clock: ManualClock) -> None:
    store = Store(f"sqlite:///{file}", clock=clock, project=projection.project)
    event.listen(
        store._engine,
        "connect",
        lambda connection, _: connection.execute("PRAGMA max_page_count=1"),
    )
    with pytest.raises(Unavailable, match=r"^the disk of the database is full: make room on it"):
        fill(store)
    store.close()


def test_a_file_that_was_moved_is_missed_and_no_other_made(store: Store, file: Path) -> None:
    away = file.with_name("away.db")
    file.rename(away)
    for _ in range(2):
        with pytest.raises(Unavailable, match="no longer in its place: put it back"):
            post(store, spec("second"))
        with pytest.raises(Unavailable, match="no longer in its place: put it back"):
            study_of(store, "first")
        store._engine.dispose()  # the next one opens the file anew
    assert not file.exists()
    away.rename(file)
    post(store, spec("second"))
    assert names_in(file) == ["first", "second"]


def test_what_is_written_while_the_file_is_moved_is_not_told_as_done(
    store: Store, file: Path
) -> None:
    def write_and_move() -> None:
        with store.transaction() as tx:
            study = tx.studies.find("first")
            assert study is not None
            tx.studies.lock(study.id).priority = 7
            file.rename(file.with_name("away.db"))

    with pytest.raises(Unavailable, match="no longer in its place"):
        write_and_move()
    file.with_name("away.db").rename(file)
    with store.reading() as tx:
        study = tx.studies.find("first")
        assert study is not None
        assert study.priority == 0


def test_another_file_in_its_place_is_not_written_to(store: Store, file: Path) -> None:
    backup = file.with_name("backup.db")
    shutil.copy(file, backup)
    backup.replace(file)
    with pytest.raises(Unavailable, match="another file is in the place of the database's"):
        post(store, spec("second"))


def test_a_folder_that_is_gone(store: Store, file: Path) -> None:
    shutil.rmtree(file.parent)
    with pytest.raises(Unavailable, match="no longer in its place"):
        study_of(store, "first")
    assert not file.parent.exists()


def test_a_damaged_file_is_called_so(store: Store, file: Path) -> None:
    store.close()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'rl_studies'"
        (page,) = connection.execute(query).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with open(file, "r+b") as opened:
        opened.seek((page - 1) * size)
        opened.write(b"\xff" * 8)
    with pytest.raises(Unavailable, match="damaged: `ridgeline doctor` tells more"):
        study_of(store, "first")
