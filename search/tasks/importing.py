"""Which packages can be imported at all, found out by processes of their own.

Importing a module can raise, which its importer can handle.  It can also hang, end the process,
or take it down; nothing helps against that but to have another process try first.

Usage: python -m ridgeline.search.tasks.importing MODULE
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress

IMPORT_SECONDS = 60.0
"""How long an import may take; torch takes some ten seconds on a machine that is busy."""

_FOLLOW_SECONDS = 5.0
"""How long a process may take to see that its parent has ended, as multiprocessing's do."""

IMPORTED = "_RIDGELINE_IMPORTED"
"""A variable by which the processes that this one starts know what it has found out."""

_CAME_BACK = 86
"""What the process ends with once the import has come back, be it with an error."""


def deadly_modules(modules: Iterable[str]) -> Mapping[str, str]:
    """Those of `modules` that no process had better import, and what happened to one that did."""
    modules = list(modules)
    found: dict[str, str | None] = json.loads(os.environ.get(IMPORTED, "{}"))
    begun = {module: _begin(module) for module in modules if module not in found}
    deadline = time.monotonic() + IMPORT_SECONDS
    for module, process in begun.items():
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        status = process.poll()
        leaves_processes = status == _CAME_BACK and _lives_on(process.pid)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        found[module] = None
        if status is None:
            found[module] = f"importing it takes longer than {IMPORT_SECONDS:g} s"
        elif leaves_processes:
            # A copy of the api, say, would hold its port for ever.
            found[module] = "importing it leaves processes behind"
        elif status < 0:
            found[module] = f"importing it ends the process: {signal.strsignal(-status)}"
        elif status != _CAME_BACK:
            found[module] = f"importing it ends the process with code {status}"
    if begun:
        os.environ[IMPORTED] = json.dumps(found)
    return {module: reason for module in modules if (reason := found[module]) is not None}


def _lives_on(group: int) -> bool:
    """Whether a group still has processes, after those have ended that follow their parent."""
    deadline = time.monotonic() + _FOLLOW_SECONDS
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except (ProcessLookupError, PermissionError):
            return False
        time.sleep(0.05)
    return True


def _begin(module: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "ridgeline.search.tasks.importing", module],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def main() -> None:
    # Whoever imports it next is told what it raises.
    with suppress(BaseException):
        importlib.import_module(sys.argv[1])
    os._exit(_CAME_BACK)


if __name__ == "__main__":
    main()
