"""The programs at hand: compiled ones, and the processes that make them; the native kernels."""

from __future__ import annotations

import logging
import shutil
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from ridgeline.search.engine import native
from ridgeline.search.engine.compilation import Compilation
from ridgeline.search.engine.compiled import CompiledProgram, Job
from ridgeline.search.scratch import sweep

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
                sweep(native.SCRATCH_PREFIX, folder)
            except OSError as exc:  # a read-only home, say
                _log.warning("nothing is compiled, as there is no folder for it: %s", exc)
                self.folder = None
        self._loaded: dict[str, CompiledProgram] = {}
        self._kernels: Future[native.Kernels | None] | None = None
        self._lock = threading.RLock()  # of all below, which the thread that waits changes too
        self._failed: set[str] = set()
        self._wanted: dict[str, tuple[Job, bool]] = {}
        self._running: Compilation | None = None

    def prepare(self) -> None:
        """Begin to compile the native kernels, which takes a second or two once a machine."""
        if self._kernels is None and self.folder is not None:
            compiler = ThreadPoolExecutor(1, "kernels")
            self._kernels = compiler.submit(native.kernels, self.folder)
            compiler.shutdown(wait=False)

    @property
    def kernels(self) -> native.Kernels | None:
        """The native kernels; waits until they are compiled."""
        self.prepare()
        return None if self._kernels is None else self._kernels.result()

    def get(self, job: Job) -> CompiledProgram | None:
        """The job's program, if there is one by now."""
        name = job.name
        if self.folder is None or name in self._failed:
            return None
        if name not in self._loaded:
            folder = self.folder / name
            try:
                if not folder.is_dir():
                    return None
                kernels = self.kernels
                if kernels is None:
                    return None
                self._loaded[name] = CompiledProgram(folder, kernels, job)
            except Exception as exc:  # damaged, or out of reach: go on without
                _log.warning("the compiled program %s cannot be used: %s", name, exc)
                self._failed.add(name)
                shutil.rmtree(folder, ignore_errors=True)  # a later process makes it anew
                return None
        return self._loaded[name]

    def request(self, job: Job, *, hurry: bool) -> None:
        """Have the program made in the background; one is made at a time.

        Args:
            hurry: take time from the runs that train for it; otherwise only idle cores make it.
        """
        name = job.name
        if self.folder is None or name in self._failed or (self.folder / name).is_dir():
            return
        with self._lock:
            _, was_hurried = self._wanted.get(name, (job, False))
            self._wanted[name] = job, hurry or was_hurried
            if self._running is None:
                self._start_next()
            elif hurry and not self._running.is_hurried:
                # A process cannot raise its own priority: it is begun anew after this.
                self._running.give_up()

    def _start_next(self) -> None:
        """Start a wanted program, one in a hurry first."""
        assert self.folder is not None
        while self._running is None and self._wanted:
            name = next((n for n, (_, hurry) in self._wanted.items() if hurry), None)
            name = name or next(iter(self._wanted))
            job, hurry = self._wanted[name]
            try:
                self._running = Compilation(job, self.folder / name, hurry=hurry)
            except OSError as exc:  # no more processes, no room for their files
                _log.warning("nothing is compiled: %s", exc)
                self._failed.add(name)
                del self._wanted[name]
                continue
            _log.info("compiling a program; runs go on without it")
            waiting = (name, self._running)
            threading.Thread(target=self._wait, args=waiting, name="compiler", daemon=True).start()

    def _wait(self, name: str, compilation: Compilation) -> None:
        problem: Exception | None = None
        try:
            compilation.finish()
        except RuntimeError as exc:
            problem = exc
        with self._lock:
            self._running = None
            if not compilation.is_given_up:
                del self._wanted[name]
                if problem is None:
                    _log.info("a program is compiled, and trains the runs that begin from now on")
                else:
                    _log.warning("no compiled program, so training goes on without: %s", problem)
                    self._failed.add(name)
            self._start_next()
