"""Leases and deadlines where the database's clock is set while they last.

They are times of that clock.  Set back, it would let them last that much longer; set forward, it
would end them early.  So each api process compares it with the monotonic clock of its machine.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ridgeline.service.store.session import Store
from ridgeline.service.store.studies import Deadline

log = logging.getLogger(__name__)

TOLERANCE_SECONDS = 2.0
"""A clock that is kept right by smaller steps counts as one that was never set."""


@dataclass(frozen=True)
class _Look:
    """The database's clock, read between two times of the monotonic one, and what goes by it."""

    now: float
    began: float
    ended: float
    deadlines: Mapping[int, Deadline]
    ungranted: Mapping[int, float]
    lasts_too_long: bool
    """Whether a lease lasts longer than one that begins now."""

    def clock_set_by(self, later: _Look) -> float:
        """By how many seconds the clock was set in between, as far as the two looks prove it."""
        passed = later.now - self.now
        least = passed - (later.ended - self.began)
        most = passed - (later.began - self.ended)
        if least > TOLERANCE_SECONDS:
            return least
        if most < -TOLERANCE_SECONDS:
            return most
        return 0.0


class Timekeeper:
    """Keeps leases and deadlines right, as one of any number of api processes.

    Args:
        lease_seconds: of workers.
        monotonic: seconds that pass evenly.
    """

    def __init__(
        self, lease_seconds: float, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._lease_seconds = lease_seconds
        self._monotonic = monotonic
        self._before: _Look | None = None
        self._has_seen_earlier = False
        self.lose_sight()

    def lose_sight(self) -> None:
        """Leases could not be renewed until now: everybody gets a whole one to call again."""
        self._trusts_leases_from = self._monotonic() + self._lease_seconds

    def saw(self, now: float) -> None:
        """Hear of the time that some transaction of this process goes by.

        A clock that is set back, and right again before the next look, leaves leases behind that
        were over before they began.
        """
        before = self._before
        if before is not None and now < before.now - TOLERANCE_SECONDS:
            self._has_seen_earlier = True

    def keep(self, store: Store) -> float | None:
        """Set right what has gone wrong since the last call.

        Where the clock was set, leases begin anew and deadlines move with it: a study has the
        seconds of its budget, however they are counted.  Those that it is to have from now on are
        granted here, by a clock that the next call compares: whoever gave them may have read the
        clock before it was set, and written after all others were set right.

        Returns the time at which all is right: what had run out by then is over.  None while leases
        that have run out are not.

        Raises:
            Unavailable: the database cannot be reached or is locked.
        """
        before, look = self._before, self._look(store)
        set_by = 0.0 if before is None else before.clock_set_by(look)
        if before is not None and set_by:
            log.warning("the database's clock was set by %+.0f seconds", set_by)
            moves = {study_id: (one, set_by) for study_id, one in before.deadlines.items()}
        else:
            # Of studies begun before the clock was set back while nobody looked.
            moves = {
                study_id: (one, look.now - one.started_at)
                for study_id, one in look.deadlines.items()
                if one.started_at > look.now + TOLERANCE_SECONDS
            }
        # Not by another look, which would be of a clock that may have been set once more by now.
        deadlines = {
            **look.deadlines,
            **{study_id: one.moved(seconds) for study_id, (one, seconds) in moves.items()},
        }
        has_seen_earlier, self._has_seen_earlier = self._has_seen_earlier, False
        leases_begin_anew = bool(set_by or moves or look.lasts_too_long or has_seen_earlier)
        if leases_begin_anew or look.ungranted:
            with store.transaction() as tx:
                if leases_begin_anew:
                    tx.workers.renew_leases(tx.now + self._lease_seconds)
                    tx.runs.renew_all_leases(tx.now)
                for study_id, (deadline, seconds) in moves.items():
                    tx.studies.move_deadline(study_id, deadline, seconds)
                for study_id, seconds in look.ungranted.items():
                    granted = tx.studies.grant_deadline(study_id, seconds, look.now)
                    if granted is not None:
                        deadlines[study_id] = granted
        self._before = replace(look, deadlines=deadlines)
        return look.now if self._monotonic() >= self._trusts_leases_from else None

    def _look(self, store: Store) -> _Look:
        with store.reading() as tx:
            # Before the clock: what another process grants in between is that one's to move.
            deadlines, ungranted = tx.studies.deadlines(), tx.studies.ungranted()
            began = self._monotonic()
            now = tx.now
            ended = self._monotonic()
            longest = now + self._lease_seconds + TOLERANCE_SECONDS
            return _Look(
                now,
                began,
                ended,
                deadlines,
                ungranted,
                lasts_too_long=tx.workers.any_lease_past(longest)
                or tx.runs.any_lease_too_long(now + TOLERANCE_SECONDS),
            )
