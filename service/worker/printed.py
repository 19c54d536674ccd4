"""What a person's code prints in the process of a device: it is logged, within bounds."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from threading import RLock

from ridgeline.service.logs import LoggedLines
from ridgeline.service.texts import printable

MAX_LINES = 100
"""That are logged in a window: a network that prints at each step must not fill the disk."""

MAX_CHARACTERS = 500
"""Of a line."""

WINDOW_SECONDS = 60.0

_MAX_READ = MAX_LINES * MAX_CHARACTERS

_log = logging.getLogger(__name__)


class Printed(LoggedLines):
    """A file whose lines are logged, the first MAX_LINES of each window.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(_log)
        self._clock = clock
        self._lock = RLock()
        self._is_logging = False
        self._num_lines = 0
        self._window_ends_at = clock() + WINDOW_SECONDS

    def write(self, text: str) -> int:
        with self._lock:
            # Logging tells of its own errors by printing them.
            if not self._is_logging:
                self._is_logging = True
                try:
                    super().write(text[:_MAX_READ])
                    self._begun = self._begun[:MAX_CHARACTERS]
                finally:
                    self._is_logging = False
        return len(text)

    def take(self, line: str) -> None:
        now = self._clock()
        if now >= self._window_ends_at:
            self._num_lines, self._window_ends_at = 0, now + WINDOW_SECONDS
        self._num_lines += 1
        if self._num_lines <= MAX_LINES:
            _log.info("%s", printable(line[:MAX_CHARACTERS]))
        elif self._num_lines == MAX_LINES + 1:
            _log.info("more is printed; it is left out for up to %g s", WINDOW_SECONDS)


def log_what_is_printed() -> None:
    """Have `print` and all that writes to `sys.stderr` log, once logging has been set up.

    What is written to the standard output by other means is left out.
    """
    sys.stdout = sys.stderr = Printed()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
