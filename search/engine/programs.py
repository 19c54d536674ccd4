"""The compiled programs at hand, and the process that makes the next one while runs train."""

from __future__ import annotations

import logging
import subprocess
import tempfile
from pathlib import Path
from typing import IO

from search.engine.compiled import CompiledProgram, Job

_log = logging.getLogger(__name__)


class Programs:
    """Compiled programs in a folder, for this process and all later ones.

    Whoever may write there decides what this process runs: the folder is made for its user alone.

    Args:
        folder: None compiles nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        if folder is not None:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as exc:  # a read-only home, say
                _log.warning("nothing is compiled, as there is no folder for it: %s", exc)
                self.folder = None
        self._loaded: dict[str, CompiledProgram] = {}
        self._failed: set[str] = set()
        self._running: tuple[str, subprocess.Popen[bytes], IO[bytes]] | None = None

    def get(self, job: Job) -> CompiledProgram | None:
        """The job's program, if there is one by now."""
        self._reap()
        name = job.name
        if self.folder is None or name in self._failed:
            return None
        if name not in self._loaded:
            if not (self.folder / name).is_dir():
                return None
            try:
                self._loaded[name] = CompiledProgram(self.folder / name)
            except Exception as exc:  # damaged, or not for this machine: go on without
                _log.warning("the compiled program %s cannot be used: %s", name, exc)
                self._failed.add(name)
                return None
        return self._loaded[name]

    def request(self, job: Job) -> None:
        """Have the program made in the background, unless another one is being made."""
        self._reap()
        name = job.name
        if self.folder is None or self._running is not None or name in self._failed:
            return
        if not (self.folder / name).is_dir():
            log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
            self._running = name, job.start(self.folder / name, log), log

    def _reap(self) -> None:
        if self._running is None:
            return
        name, process, log = self._running
        if process.poll() is None:
            return
        if process.returncode != 0:
            log.seek(0)
            lines = log.read().decode(errors="replace").splitlines()
            _log.warning("no compiled program, so training goes on without: %s", lines[-1:])
            self._failed.add(name)
        self._end()

    def _end(self) -> None:
        assert self._running is not None
        _, process, log = self._running
        assert process.stdin is not None
        process.stdin.close()
        log.close()
        self._running = None
