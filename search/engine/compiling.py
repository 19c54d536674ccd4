"""The process that compiles one program.

`python -m ridgeline.search.engine.compiling JOB FOLDER SCRATCH` computes on cores that would be
idle otherwise, or with `--hurry` beside the runs that train.

It ends with the process that started it, whose end of the pipe to its standard input then closes,
and takes the folder SCRATCH with it.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path

_LOWEST = 19
"""Of a process's niceness."""


def _end_with_parent(scratch: str) -> None:
    os.read(sys.stdin.fileno(), 1)
    shutil.rmtree(scratch, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)  # the compiler's own processes too


def _compute_on_idle_cores() -> None:
    if not hasattr(os, "SCHED_IDLE"):  # on macOS
        os.nice(_LOWEST)
        return
    with suppress(OSError):  # not allowed in some containers
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def main(job: str, folder: str, scratch: str, hurry: str = "") -> int:
    """Compile the job into its folder; 0 when that went well."""
    # In a hurry it has the priority of the runs that train: at a lower one a program of half a
    # minute took more than three, beside two threads on two cores.
    if not hurry:
        _compute_on_idle_cores()
    threading.Thread(target=_end_with_parent, args=[scratch], daemon=True).start()
    from ridgeline.search.engine.compiled import Job

    try:
        Job.from_json(job).compile(Path(folder), Path(scratch))
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    status = main(*sys.argv[1:])
    sys.stderr.flush()
    os._exit(status)  # the thread above still waits
