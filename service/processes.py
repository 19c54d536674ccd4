"""Child processes that never outlive their parent.

The parent holds the only writing end of each child's standard input.  When the parent dies, however
it dies, the kernel closes that end, the child reads end-of-file, and ends.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

_PR_SET_PDEATHSIG = 1  # prctl(2)

CPU_NICENESS = 10
"""Of processes that train on a CPU: they take every core, and the api, which may run beside them,
needs little but at once."""

DIE_GRACE_SECONDS = 3.0
"""How long a child whose parent has died may tidy up before it is ended hard."""


def spawn(
    args: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    output: IO[bytes] | int | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a program whose standard input is a pipe from this process.

    It gets a process group of its own, so that Ctrl-C reaches this process alone, which then ends
    its children in the right order.  The program must call `watch_parent`.

    Args:
        env: its whole environment; left out: that of this process.
        output: where standard output and error both go; left out: where those of this process go.
    """
    return subprocess.Popen(
        args,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        env=None if env is None else dict(env),
        pass_fds=pass_fds,
        process_group=0,
    )


def terminate(process: subprocess.Popen[bytes], *, grace_seconds: float) -> int:
    """Ask a spawned process to end (SIGTERM), and end it and its group hard where it does not.

    Returns its exit status, negative for a signal, as `subprocess` counts.
    """
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            # Not yet waited for, so the id is still its own, and so is the group's.
            os.killpg(process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):  # the kernel may hold it for ever
                process.wait(DIE_GRACE_SECONDS)
    if process.stdin is not None:
        process.stdin.close()
    return -signal.SIGKILL if process.returncode is None else process.returncode


def death(status: int) -> str:
    """How a process has ended, by its exit status as `subprocess` counts."""
    if status < 0:
        return f"died with signal {-status} ({signal.strsignal(-status)})"
    return f"ended with code {status}"


def signal_at_parents_death(number: signal.Signals) -> None:
    """Have the kernel send this process a signal when the thread that spawned it has ended.

    A stopped process reads no end-of-file, and nor does one whose other threads wait for a lock.
    Linux alone can do so; elsewhere the end-of-file is all there is.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(number))


def watch_parent(*, grace_seconds: float = DIE_GRACE_SECONDS) -> None:
    """End this process when the parent that spawned it is gone: SIGTERM first, then hard."""

    def watch() -> None:
        while os.read(stdin, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        # The main thread tidies up; a daemon thread does not keep the process from ending.
        threading.Event().wait(grace_seconds)
        os._exit(1)

    signal_at_parents_death(signal.SIGCONT)  # where it is stopped, it goes on, and then ends
    stdin = sys.stdin.fileno()
    threading.Thread(target=watch, name="watch-parent", daemon=True).start()
