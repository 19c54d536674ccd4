"""All processes below this one, as far as the system tells: their memory, and their end.

On Linux a process can be made the one to which orphans below it fall.  Then whatever is started
below it stays below it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_LOOK_SECONDS = 0.01
_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)
"""What is raised of a process that has ended meanwhile, or has become another user's."""


def adopt_orphans() -> None:
    """Have orphans below this process fall to it, where the system can do so."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1))


def pids() -> list[int]:
    """All processes below this one; none where the system does not tell."""
    found: list[int] = []
    parents = [os.getpid()]
    while parents:
        children = [child for parent in parents for child in _children(parent)]
        found += children
        parents = children
    return found


def have_more_than(max_bytes: int) -> bool:
    """Whether the processes below this one have more memory than that, all together."""
    found = pids()
    # Quick to find out is what counts shared memory for each process; then it is counted once.
    return (
        sum(map(_resident_bytes, found)) > max_bytes
        and sum(map(_proportional_bytes, found)) > max_bytes
    )


def end_children(group: int, exit_codes: dict[int, int], *, patience_seconds: float) -> None:
    """Kill a group and all other processes below this one, and wait for them.

    The kernel may hold one back, such as one that waits for a disk: that is left after a while.

    Args:
        exit_codes: takes those of the children that have ended.
    """
    deadline = time.monotonic() + patience_seconds
    with suppress(*_GONE):
        os.killpg(group, signal.SIGKILL)
    while True:
        for pid in pids():
            with suppress(*_GONE):
                os.kill(pid, signal.SIGKILL)
        if not reap(exit_codes) or time.monotonic() > deadline:
            return
        time.sleep(_LOOK_SECONDS)


def reap(exit_codes: dict[int, int]) -> bool:
    """Take note of children that have ended, negative for a signal; whether there are others."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True
        exit_codes[pid] = os.waitstatus_to_exitcode(status)


def _children(pid: int) -> Iterator[int]:
    # Each thread has a list of the processes that it has started.
    with suppress(*_GONE):
        for task in os.listdir(f"/proc/{pid}/task"):
            with suppress(*_GONE):
                yield from map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())


def _resident_bytes(pid: int) -> int:
    with suppress(*_GONE):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    return 0


def _proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except _GONE:
        return _resident_bytes(pid)
    return sum(int(line.split()[1]) * 1_024 for line in lines if line.startswith("Pss:"))
