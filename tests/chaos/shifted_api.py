"""An api whose database's clock is wrong by the seconds in a file: `shifted_api.py FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from sqlalchemy import Connection

from ridgeline.service import cli
from ridgeline.service.store.session import DatabaseClock

path = Path(sys.argv[1])
really_now = DatabaseClock.now


def now(clock: DatabaseClock, connection: Connection) -> float:
    return really_now(clock, connection) + float(path.read_text())


DatabaseClock.now = now  # type: ignore[method-assign,assignment]
sys.argv[1:] = ["serve", *sys.argv[2:]]
cli.main()
