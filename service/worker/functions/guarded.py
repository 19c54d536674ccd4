"""One run of a function as the agent has it: its guard, and threads that wait for that."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from ridgeline.service.processes import death
from ridgeline.service.worker.functions.lines import Line, LineReader, encoded

_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
)
"""Variables by which numerical libraries are told how many threads to have."""

_SECRET = re.compile(
    r"^RIDGELINE_|TOKEN|SECRET|PASSW|CREDENTIAL|(API|ACCESS|PRIVATE)_?KEY", re.IGNORECASE
)
"""Names of variables that a function does not get."""


def environment(num_threads: int, scratch: Path | None) -> dict[str, str]:
    """Of a function's process: that of this one without its secrets.

    Args:
        num_threads: that libraries shall have.
        scratch: the folder for its temporary files.
    """
    found = {name: value for name, value in os.environ.items() if not _SECRET.search(name)}
    found |= dict.fromkeys(_THREADS, str(num_threads))
    # The same order of sets of texts, and so the same results, in each process.
    found["PYTHONHASHSEED"] = "0"
    if paths := found.get("PYTHONPATH"):  # it is about to have another current folder
        found["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, paths.split(os.pathsep)))
    if scratch is not None:
        found["TMPDIR"] = str(scratch)
    return found


class Guarded:
    """A run whose function is called in a process of its own, from now on.

    Args:
        call, limits: as a `Guard` has them.
        wake: called, from another thread, when there is something to hear or the guard has ended.

    Raises:
        OSError: there is no room for another process.
    """

    def __init__(
        self,
        call: Line,
        limits: Line,
        *,
        env: Mapping[str, str],
        folder: Path,
        wake: Callable[[], None],
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ridgeline.service.worker.functions.guard"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(env),
            cwd=folder,
            start_new_session=True,
        )
        self._wake = wake
        self._unsaid: SimpleQueue[Line | None] = SimpleQueue()
        self._unheard: SimpleQueue[Line] = SimpleQueue()
        self._pid_of_function: int | None = None
        self.has_ended = False
        """Whether the guard is gone, and all that it said can be heard."""
        self._listener = Thread(target=self._listen, name="listener", daemon=True)
        for thread in (self._listener, Thread(target=self._speak, name="speaker", daemon=True)):
            thread.start()
        self._unsaid.put({"call": call, "limits": limits})

    def set_rules(self, rules: Line) -> None:
        """Prune the run by these rules."""
        self._unsaid.put({"rules": rules})

    def hang_up(self) -> None:
        """Have the guard end the function and itself, without waiting for it."""
        self._unsaid.put(None)

    def heard(self) -> Iterator[Line]:
        """What the guard has said since the last call."""
        with suppress(Empty):
            while True:
                yield self._unheard.get_nowait()

    def wait(self, timeout_seconds: float) -> None:
        """Wait until the guard has ended."""
        self._listener.join(timeout_seconds)

    def kill(self) -> None:
        """End the guard whatever it is at, and the function with it."""
        self._process.kill()
        self._end_function()

    @property
    def death(self) -> str:
        """How a guard has ended that told no end."""
        assert self._process.returncode is not None, "it is asked of one that has ended"
        return death(self._process.returncode)

    # ---- the two threads

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as pipe, suppress(ValueError):
            reader = LineReader(pipe.fileno())
            while lines := reader.wait():
                for line in lines:
                    self._pid_of_function = line.get("pid", self._pid_of_function)
                    self._unheard.put(line)
                self._wake()
        self._end_function()
        self._process.wait()
        self.hang_up()
        self.has_ended = True
        self._wake()

    def _speak(self) -> None:
        assert self._process.stdin is not None
        with suppress(OSError), self._process.stdin as pipe:
            while (message := self._unsaid.get()) is not None:
                pipe.write(encoded(message))
                pipe.flush()

    def _end_function(self) -> None:
        # A guard that was killed itself leaves behind what its function has started.
        if self._pid_of_function is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid_of_function, signal.SIGKILL)
