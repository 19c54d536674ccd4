"""An api that waits `SECONDS` for a lock of the database: `hasty_api.py SECONDS`."""

from __future__ import annotations

import sys

from ridgeline.service.store import engine

engine.BUSY_TIMEOUT_SECONDS = float(sys.argv[1])  # type: ignore[assignment]

from ridgeline.service import cli  # noqa: E402  it takes the number as it is now

sys.argv[1:] = ["serve", *sys.argv[2:]]
cli.main()
