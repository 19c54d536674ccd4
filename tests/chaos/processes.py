"""Processes of this machine, as /proc shows them."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

_GONE = "ZX"
"""States of processes that run no more, though their parent has not asked for them yet."""


def is_alive(pid: int) -> bool:
    return _state(pid) not in _GONE


def is_stopped(pid: int) -> bool:
    return _state(pid) == "T"


def children(pid: int) -> list[int]:
    """The living children of a process, oldest first."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and _parent(int(entry.name)) == pid and is_alive(int(entry.name)):
            found.append(int(entry.name))
    return sorted(found)


def descendants(pid: int) -> list[int]:
    """All that it started, and what those did."""
    return [one for child in children(pid) for one in (child, *descendants(child))]


def device_processes(worker_pid: int) -> list[int]:
    """The device processes of a worker, which has a resource tracker of Python's beside them."""
    return [pid for pid in children(worker_pid) if "spawn_main" in command(pid)]


def started_at(pid: int) -> float:
    """When a process began, in seconds since the epoch; infinite for one that is gone."""
    ticks = _stat(pid)[19:20]
    if not ticks:
        return math.inf
    lines = Path("/proc/stat").read_text().splitlines()
    (booted_at,) = (float(line.split()[1]) for line in lines if line.startswith("btime "))
    return booted_at + int(ticks[0]) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Memory that a process has; 0 of one that is gone."""
    with suppress(OSError):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 0


def num_descriptors(pid: int) -> int:
    """Files and sockets that a process has open; 0 of one that is gone."""
    with suppress(OSError):
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return 0


def _stat(pid: int) -> list[str]:
    """From the third field on; the second, the program's name, may hold anything."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return ["X", "0"]


def _state(pid: int) -> str:
    return _stat(pid)[0]


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def command(pid: int) -> str:
    """What a process was started as; empty of one that is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""
