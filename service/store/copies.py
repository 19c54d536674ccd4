"""Copies of an SQLite file, kept beside it before its schema is changed."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from ridgeline.service.files import without_links

NUM_KEPT = 3
"""Older copies are deleted when another one is made."""


class Copy(NamedTuple):
    """A copy, and the revision of its schema; `ridgeline.db.0009.copy` is one of `ridgeline.db`."""

    revision: str
    path: Path


def keep_copy(database: Path, revision: str) -> None:
    """Write a consistent copy of the database, for this user alone; others may write meanwhile.

    Raises:
        OSError, sqlite3.Error: there is no room for it, say; then there is none.
    """
    target = database.with_name(f"{database.name}.{revision}.copy")
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)  # left by a process that was killed
    try:
        open(unfinished, "x", opener=without_links).close()
        with (
            closing(sqlite3.connect(database)) as source,
            closing(sqlite3.connect(unfinished)) as new,
        ):
            source.backup(new)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    for old in copies(database)[NUM_KEPT:]:
        old.path.unlink()


def copies(database: Path) -> list[Copy]:
    """The copies of a database, those of the newest schema first."""
    prefix = f"{database.name}."
    found = [
        Copy(path.name.removeprefix(prefix).removesuffix(".copy"), path)
        for path in database.parent.iterdir()
        if path.name.startswith(prefix) and path.name.endswith(".copy")
    ]
    return sorted(found, reverse=True)
