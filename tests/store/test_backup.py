"""Backups of an SQLite file as docs/deployment.md has them, while the service writes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ridgeline.service import doctor, projection
from ridgeline.service.artifacts.folder import FolderArtifacts
from ridgeline.service.store.session import Store
from tests.conftest import ManualClock
from tests.service.factory import SETTINGS, post, spec

PAGE = Path(__file__).parents[2] / "docs" / "deployment.md"


def commands() -> list[str]:
    """Those of the section, in its order."""
    page = PAGE.read_text(encoding="utf-8")
    (section,) = re.findall(r"^## Backups of an SQLite file$(.*?)^## ", page, re.M | re.S)
    found: list[str] = re.findall(r"^\$ (.*)$", section, re.M)
    return found


def run(command: str, folder: Path) -> None:
    words = re.sub(r"^python ", f"{sys.executable} ", command)
    subprocess.run(words, shell=True, cwd=folder, check=True)


def names(store: Store) -> list[str]:
    with store.reading() as tx:
        return [str(tx.studies.name_of(study_id)) for study_id in tx.studies.ids()]


@pytest.mark.parametrize("program", ["sqlite3", "python"])
def test_a_backup_and_the_way_back(
    migrated_sqlite: Path, tmp_path: Path, clock: ManualClock, program: str
) -> None:
    if program == "sqlite3" and shutil.which(program) is None:
        pytest.skip("there is no command sqlite3")
    (backup,) = (command for command in commands() if command.startswith(program))
    *restore, last = commands()[-3:]
    assert last == "ridgeline doctor"
    file = tmp_path / "ridgeline-data" / "ridgeline.db"
    file.parent.mkdir()
    shutil.copy(migrated_sqlite, file)
    store = Store(f"sqlite:///{file}", clock=clock, project=projection.project)
    post(store, spec("before"))
    assert file.with_name("ridgeline.db-wal").stat().st_size > 0
    run(backup, tmp_path)
    post(store, spec("after"))
    assert names(store) == ["before", "after"]
    store.close()
    for command in restore:
        run(command, tmp_path)
    store = Store(f"sqlite:///{file}", clock=clock, project=projection.project)
    assert names(store) == ["before"]
    found = doctor.examine(store, FolderArtifacts(tmp_path / "artifacts"), SETTINGS)
    assert [one for one in found if one.check != "folders"] == []
    post(store, spec("again"))
    store.close()
