"""Ctrl-C while a program still imports its modules."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
"""The exit status of a program that Ctrl-C has ended, as shells count: 128 + SIGINT."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end the process at once and quietly; for imports, in the main thread.

    A KeyboardInterrupt would be a traceback there, and the modules of C code turn it into errors of
    their own.  Nothing is open yet that had to be closed.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # ignored, in the background of a script
        yield
        return
    signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(INTERRUPTED)
