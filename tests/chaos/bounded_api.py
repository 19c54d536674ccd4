"""An api whose SQLite database is full while a file is there: `bounded_api.py FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from sqlalchemy import Connection, Engine, event

from ridgeline.service import cli

mark = Path(sys.argv[1])


@event.listens_for(Engine, "begin")
def bound(connection: Connection) -> None:
    """A number below that of the pages there are stands for that number."""
    num_pages = 1 if mark.exists() else 2**32 - 2
    connection.exec_driver_sql(f"PRAGMA max_page_count = {num_pages}")


sys.argv[1:] = ["serve", *sys.argv[2:]]
cli.main()
