"""The making of a compiled program in a process of its own, see `compiling`."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from ridgeline.search.engine.compiled import Job
from ridgeline.search.engine.native import SCRATCH_PREFIX
from ridgeline.search.scratch import ScratchFolder

INDUCTOR_CACHE = "inductor"
"""The folder, among the programs, of what the compiler can use again."""


class Compilation:
    """A process that makes a program, and ends when this one does.

    What the compiler writes on its way lies beside the program, in a folder that goes with it.

    Args:
        hurry: take time from what else this machine computes; otherwise only cores that are idle.

    Raises:
        OSError: the process, or room for its files, could not be had.
    """

    def __init__(self, job: Job, folder: Path, *, hurry: bool) -> None:
        self.is_hurried, self.is_given_up = hurry, False
        self._scratch = ScratchFolder(SCRATCH_PREFIX, folder.parent)
        scratch = str(self._scratch.path)
        self._log = Path(scratch, "log")
        command = [sys.executable, "-m", "ridgeline.search.engine.compiling"]
        # The compiler's own cache, of compiled headers above all, halves the time of the next
        # program; elsewhere others might write to it.  What a model consists of is imported there
        # from where it is found here.
        places = {
            "TMPDIR": scratch,
            "TRITON_CACHE_DIR": scratch,
            "TORCHINDUCTOR_CACHE_DIR": str(folder.parent / INDUCTOR_CACHE),
            "PYTHONSAFEPATH": "",  # for the folder below to be looked into
            "PYTHONPATH": os.pathsep.join(os.path.abspath(place) for place in sys.path),
        }
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [*command, job.as_json(), str(folder), scratch, *hurry * ["--hurry"]],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    process_group=0,
                    cwd=Path(__file__).parents[3],  # where this very engine is found
                    env=os.environ | places,
                )
        except OSError:
            self._scratch.remove()
            raise

    @property
    def has_ended(self) -> bool:
        """Whether `finish` returns at once."""
        return self._process.poll() is not None

    def give_up(self) -> None:
        """Have the process end without a program; `finish` then raises."""
        self.is_given_up = True
        assert self._process.stdin is not None
        self._process.stdin.close()

    def finish(self) -> None:
        """Wait for the program.

        Raises:
            RuntimeError: with what the compiler said last, there is none.
        """
        status = self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        lines = []
        if status != 0:
            with suppress(OSError):
                lines = self._log.read_text(errors="replace").splitlines()
        self._scratch.remove()
        if status != 0:
            raise RuntimeError(lines[-1] if lines else f"the compiler ended with {status}")
