"""Whether the database can be written to, as far as that shows without writing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.engine import URL

from ridgeline.service.store.engine import sqlite_file

MIN_FREE_BYTES = 32 * 2**20
"""Less room than this beside an SQLite file: its log of a few large calls would not fit."""


def why_not_writable(connection: Connection, url: URL) -> str | None:
    """What keeps others from writing to the database of this connection; None: nothing."""
    if url.get_backend_name() == "postgresql":
        query = text(
            "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on'"
        )
        in_recovery, is_read_only = connection.execute(query).one()
        if in_recovery:
            return "the server is a read-only replica, or recovers"
        return "the server's transactions are read-only" if is_read_only else None
    file = sqlite_file(url)
    assert file is not None, "the service keeps nothing in memory"
    if not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK)):
        return "the database's file or folder cannot be written to"
    return why_no_room(file.parent)


def why_no_room(folder: Path) -> str | None:
    """That the disk of an SQLite file's folder has too little room, or that the folder is gone."""
    try:
        free = shutil.disk_usage(folder).free
    except FileNotFoundError:
        return "the database's folder is not there: put it back"
    if free < MIN_FREE_BYTES:
        left, needed = (num_bytes / 2**20 for num_bytes in (free, MIN_FREE_BYTES))
        return (
            f"the database's disk has {left:.0f} MiB left, and {needed:.0f} are needed: make room "
            "on it"
        )
    return None
