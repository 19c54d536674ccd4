"""What a worker has of its machine, which in a container may be less than there is."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def num_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int:
    """Memory that this process and its children may have together."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # there is no such group, or it has no limit
        return min(machine, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return machine
