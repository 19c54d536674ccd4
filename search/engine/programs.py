"""The compiled programs at hand, and the process that makes the next one while runs train."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from search.engine.compiled import Compilation, CompiledProgram, Job

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
        self._running: tuple[str, Compilation] | None = None

    def get(self, job: Job) -> CompiledProgram | None:
        """The job's program, if there is one by now."""
        self._reap()
        name = job.name
        if self.folder is None or name in self._failed:
            return None
        if name not in self._loaded:
            folder = self.folder / name
            try:
                if not folder.is_dir():
                    return None
                self._loaded[name] = CompiledProgram(folder)
            except Exception as exc:  # damaged, or out of reach: go on without
                _log.warning("the compiled program %s cannot be used: %s", name, exc)
                self._failed.add(name)
                shutil.rmtree(folder, ignore_errors=True)  # a later process makes it anew
                return None
        return self._loaded[name]

    def request(self, job: Job) -> None:
        """Have the program made in the background, unless another one is being made."""
        self._reap()
        name = job.name
        if self.folder is None or self._running is not None or name in self._failed:
            return
        try:
            if not (self.folder / name).is_dir():
                self._running = name, Compilation(job, self.folder / name)
                _log.info("compiling a program for %d slots; runs go on without it", job.width)
        except OSError as exc:  # no more processes, no room for their files
            _log.warning("nothing is compiled: %s", exc)
            self._failed.add(name)

    def _reap(self) -> None:
        if self._running is None:
            return
        name, compilation = self._running
        if not compilation.has_ended:
            return
        try:
            compilation.finish()
            _log.info("a program is compiled, and trains the runs that begin from now on")
        except RuntimeError as exc:
            _log.warning("no compiled program, so training goes on without: %s", exc)
            self._failed.add(name)
        self._running = None
