"""Time, passed in: whoever needs the time of a transaction asks a `Clock` for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sqlalchemy import Connection


class Clock(Protocol):
    """The time that leases and timestamps go by, in seconds since the epoch (UTC)."""

    def now(self, connection: Connection) -> float: ...
