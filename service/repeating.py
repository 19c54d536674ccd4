"""Something done again and again beside the program, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Repeater:
    """Calls `action` every `seconds` from `start` until `stop`; both may be repeated.

    `action` handles its errors itself.
    """

    def __init__(self, action: Callable[[], object], *, seconds: float) -> None:
        self._action = action
        self._seconds = seconds
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._thread is None:
            self._stopping.clear()
            # A daemon: a program that is done does not wait for it.
            self._thread = threading.Thread(target=self._repeat, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Waits for a call that is being made."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _repeat(self) -> None:
        while not self._stopping.wait(self._seconds):
            self._action()
