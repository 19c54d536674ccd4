"""Keeping the parts of the embedded service running, and ending them together."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ridgeline.service import processes
from ridgeline.service.cli.problems import Problem
from ridgeline.service.files import without_links
from ridgeline.service.texts import printable

POLL_SECONDS = 0.1
STABLE_SECONDS = 60.0
"""A part that ran for this long before it ended is not counted as failing again."""

MAX_FAILURES = 5
UNUSABLE_STATUS = 2
"""How a command ends that cannot do with what it was given, however often it is started."""

READY_SECONDS = 120.0
STOP_GRACE_SECONDS = 20.0
_MAX_DELAY_SECONDS = 30.0
_LOG_TAIL_BYTES = 2_000


@dataclass
class Part:
    """One child process of the service and what is needed to start it again.

    A part that ends with `UNUSABLE_STATUS` ends the whole, and so do `essential` ones that fail
    `MAX_FAILURES` times in a row.  Otherwise it is started again and again, ever more rarely.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    log: Path
    pass_fds: Sequence[int] = ()
    essential: bool = False
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _failures: int = field(default=0, init=False)
    _started_at: float = field(default=0.0, init=False)
    _start_again_at: float = field(default=0.0, init=False)

    def start(self) -> None:
        with open(self.log, "ab", opener=without_links) as log:
            self.process = processes.spawn(
                self.command, env=self.env, output=log, pass_fds=self.pass_fds
            )
        self._started_at = time.monotonic()

    def stop(self) -> None:
        if self.process is not None:
            processes.terminate(self.process, grace_seconds=STOP_GRACE_SECONDS)
            self.process = None

    def keep_running(self, say: Callable[[str], None]) -> None:
        """Start the process again where it has ended, after a pause that grows.

        Raises:
            Problem: it will not start, or is essential and has failed too often.
        """
        now = time.monotonic()
        if self.process is None:
            if now >= self._start_again_at:
                self.start()
            return
        status = self.process.poll()
        if status is None:
            return
        self.stop()
        self._failures = 1 if now - self._started_at >= STABLE_SECONDS else self._failures + 1
        is_lost = self.essential and self._failures >= MAX_FAILURES
        if is_lost or status == UNUSABLE_STATUS:
            raise self.failed(status)
        delay_seconds = min(_MAX_DELAY_SECONDS, 0.5 * 2 ** (self._failures - 1))
        self._start_again_at = now + delay_seconds
        say(f"{self._ended(status)}; it starts again in {delay_seconds:g} s; its log is {self.log}")

    def failed(self, status: int) -> Problem:
        """The end of the whole because of this part."""
        exit_code = UNUSABLE_STATUS if status == UNUSABLE_STATUS else 1
        return Problem(f"{self._ended(status)}; see {self.log}", exit_code=exit_code)

    def _ended(self, status: int) -> str:
        """That it has ended, with the last words of its log; what a signal ends says none."""
        if status < 0:
            return f"the {self.name} ended ({_in_words(status)})"
        tail = self.log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
        last = printable(tail.splitlines()[-1]) if tail else "it said nothing"
        return f"the {self.name} ended ({_in_words(status)}): {last}"


class Supervisor:
    """Starts the first part, then the others once it is ready, and keeps all of them running.

    SIGINT and SIGTERM end `run`; whatever ends it, no child is left.
    """

    def __init__(
        self, first: Part, others: Sequence[Part], say: Callable[[str], None] = print
    ) -> None:
        self._first = first
        self._others = others
        self._say = say
        self._asked_to_stop = threading.Event()

    def run(self, why_not_ready: Callable[[], str | None], when_ready: Callable[[], None]) -> None:
        """Returns once asked to stop and everything has stopped.

        Args:
            why_not_ready: of the first part; None once it is, an empty text while it says nothing.

        Raises:
            Problem: the first part did not become ready, or failed too often.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._asked_to_stop.set())
        try:
            self._first.start()
            if not self._wait_until_ready(why_not_ready):
                return
            when_ready()
            while not self._asked_to_stop.wait(POLL_SECONDS):
                for part in (self._first, *self._others):
                    part.keep_running(self._say)
        finally:
            # Workers give their runs back to an api that still answers.
            for part in (*self._others, self._first):
                part.stop()

    def _wait_until_ready(self, why_not_ready: Callable[[], str | None]) -> bool:
        """True once the first part is ready, False when asked to stop before.

        Tells why it is not as soon as the part says so: somebody may put that right meanwhile.
        """
        gives_up_at = time.monotonic() + READY_SECONDS
        told = ""
        while not self._asked_to_stop.wait(POLL_SECONDS):
            assert self._first.process is not None
            status = self._first.process.poll()
            if status is not None:
                raise self._first.failed(status)
            reason = why_not_ready()
            if reason is None:
                return True
            if reason and reason != told:
                self._say(f"the {self._first.name} is not ready yet: {reason}")
                told = reason
            if time.monotonic() > gives_up_at:
                raise Problem(
                    f"the {self._first.name} is not ready after {READY_SECONDS:g} s"
                    f"{': ' if told else ''}{told}; see {self._first.log}"
                )
        return False


def _in_words(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"
