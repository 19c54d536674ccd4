"""The process that guards one run of a function: starts it, hears it, and ends it.

    agent ◄──stdin, stdout──► guard ◄──socket, output──► the function's process

The code of the function may do what it likes to its own process: hang, fill the memory, print
without end, close what it has open, start other processes.  The guard runs none of that code.  When
the function has ended, or has to, or the agent is gone, the guard ends all processes that have come
of it.

The agent says one line with the `call` and its `limits`, and then the pruning `rules` of the study,
as they change; the end of this input says that nobody wants the run any more.  The guard tells the
`pid` of the function's process, then the reports, and at last the `end`.

Importing this module imports nothing that has to be installed: there is a guard for each run.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from ridgeline.search.predicting import Prediction, predicted
from ridgeline.service.processes import death
from ridgeline.service.worker.functions import descendants
from ridgeline.service.worker.functions.lines import UNHEARD, Line, LineReader, encoded
from ridgeline.service.worker.functions.output import Output

LOOK_SECONDS = 0.1
"""How often time and memory are looked at.  A process fills some GB a second at most."""

END_SECONDS = 10.0
"""How long a function may take to tidy up once its run has ended."""

KILL_SECONDS = 2.0
"""How long the system may take to end processes that were killed."""

_LAST_READS = 64
"""So many reads empty the largest pipe there is, whoever goes on to fill it."""


class Guard:
    """One run, from its start to its end.

    Args:
        call: what the function's process needs to know.
        limits: `max_seconds`, with `seconds_name`, what that is called; `max_bytes`, with
            `bytes_name`.  Either may be None.
        orders: what the agent says from now on.
    """

    def __init__(self, call: Line, limits: Line, orders: LineReader) -> None:
        self._limits = limits
        self._orders = orders
        self._rules: Line | None = None
        self._output = Output()
        self._last: tuple[int, float] | None = None
        """The newest report."""
        self._values: dict[int, float] = {}
        """By step, all that was reported."""
        self._end: Line | None = None
        self._end_by = float("inf")
        self._exit_codes: dict[int, int] = {}
        self._has_stopped = False
        ours, theirs = socket.socketpair()
        self._printed, printing = os.pipe()
        program = "ridgeline.service.worker.functions.calling"
        process = subprocess.Popen(
            [sys.executable, "-P", "-u", "-m", program, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=printing,
            stderr=printing,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            preexec_fn=_reset_signals,  # the guard has one thread, so no lock can be held
        )
        self._pid = process.pid
        process.returncode = 0  # it is `descendants.reap` that waits for it
        theirs.close()
        os.close(printing)
        self._socket = ours
        self._words = LineReader(ours.fileno())
        with suppress(OSError):  # it may have died already
            ours.sendall(encoded({**call, "guard": os.getpid()}))
        for descriptor in (orders.descriptor, ours.fileno(), self._printed):
            os.set_blocking(descriptor, False)
        self._started_at = self._look_at = time.monotonic()

    def watch(self) -> None:
        """Tell the agent of the run; returns once nothing is left of it.

        Raises:
            BrokenPipeError: the agent is gone.
        """
        _tell({"pid": self._pid})
        with selectors.DefaultSelector() as selector:
            selector.register(self._orders.descriptor, selectors.EVENT_READ, self._obey)
            selector.register(self._words.descriptor, selectors.EVENT_READ, self._hear)
            selector.register(self._printed, selectors.EVENT_READ, self._keep_output)
            with suppress(AttributeError, OSError):  # its end is seen a moment later there
                selector.register(os.pidfd_open(self._pid), selectors.EVENT_READ, lambda: False)
            while self._pid not in self._exit_codes and time.monotonic() < self._end_by:
                for key, _ in selector.select(LOOK_SECONDS):
                    has_more: Callable[[], bool] = key.data
                    if not has_more():
                        selector.unregister(key.fd)
                descendants.reap(self._exit_codes)
                self._check_limits()
        self.stop()
        for read in (self._hear, self._keep_output):
            for _ in range(_LAST_READS):
                if not read():
                    break
        if not self._orders.has_ended:
            end = self._end or {"outcome": "crashed", "error": self._death()}
            _tell({"end": end, "output": self._output.text})

    def set_rules(self, rules: Line) -> None:
        """Prune by these: `version`, `direction`, and by step `thresholds` and `predictions`."""
        self._rules = rules

    def stop(self) -> None:
        """End all processes that have come of the function."""
        if not self._has_stopped:
            descendants.end_children(self._pid, self._exit_codes, patience_seconds=KILL_SECONDS)
            self._has_stopped = True

    # ---- what comes in; each returns whether there may be more

    def _obey(self) -> bool:
        for order in self._orders.read():
            self.set_rules(order["rules"])
        if self._orders.has_ended:
            self._end_by = 0.0
        return not self._orders.has_ended

    def _hear(self) -> bool:
        try:
            for word in self._words.read():
                self._take_in(word)
        except (ValueError, KeyError, TypeError, AttributeError):
            self._kill("crashed", "what the function's process told cannot be read")
            return False
        return not self._words.has_ended

    def _take_in(self, word: Line) -> None:
        if "step" in word:
            if self._end is None:
                self._last = int(word["step"]), float(word["value"])
                self._values[self._last[0]] = self._last[1]
                _tell({"step": self._last[0], "value": self._last[1]})
                if self._is_pruned():
                    self._conclude({"outcome": "pruned"})
            with suppress(OSError):
                self._socket.send(encoded({"goes_on": self._end is None}))
        else:
            end = word["end"]
            value, error = end.get("value"), end.get("error")
            self._conclude(
                {
                    "outcome": str(end["outcome"]),
                    "value": None if value is None else float(value),
                    "error": None if error is None else str(error),
                }
            )

    def _keep_output(self) -> bool:
        try:
            read = os.read(self._printed, 2**16)
        except BlockingIOError:
            return True
        self._output.add(read)
        return bool(read)

    # ---- how the run ends

    def _is_pruned(self) -> bool:
        """Whether the newest report is worse than the rules require."""
        if self._rules is None or self._last is None:
            return False
        step, value = self._last
        threshold = self._rules["thresholds"].get(str(step))
        if threshold is None:
            return False
        prediction = self._rules["predictions"].get(str(step))
        if prediction is not None:
            value = predicted(value, self._values, Prediction(**prediction))
        is_better_higher = self._rules["direction"] == "maximize"
        return bool(value < threshold if is_better_higher else value > threshold)

    def _check_limits(self) -> None:
        now = time.monotonic()
        if self._end is not None or now < self._look_at:
            return
        max_seconds, max_bytes = self._limits["max_seconds"], self._limits["max_bytes"]
        if max_seconds is not None and now - self._started_at > max_seconds:
            name = self._limits["seconds_name"]
            self._kill("timeout", f"it took longer than {name}, which is {max_seconds:g}")
        elif max_bytes is not None and descendants.have_more_than(max_bytes):
            name = self._limits["bytes_name"]
            self._kill("out_of_memory", f"it took more memory than {name}, {max_bytes} bytes")
        # Looking at many processes that share much takes longer, and is done less often then.
        self._look_at = now + max(LOOK_SECONDS, 10 * (time.monotonic() - now))

    def _kill(self, outcome: str, error: str) -> None:
        self._conclude({"outcome": outcome, "error": error})
        self._end_by = 0.0

    def _conclude(self, end: Line) -> None:
        """Take note of how the run ends, unless that is known already."""
        if self._end is not None:
            return
        if end["outcome"] == "pruned" and self._last is not None:
            end = {**end, "step": self._last[0], "value": self._last[1]}
            if self._rules is not None and self._is_pruned():
                end["rule_version"] = self._rules["version"]
        self._end = end
        self._end_by = min(self._end_by, time.monotonic() + END_SECONDS)

    def _death(self) -> str:
        """What happened to a process that has not told how its run has ended."""
        code = self._exit_codes.get(self._pid)
        if code is None:
            return "its process does not end"
        if code == UNHEARD:
            return "it has closed the descriptors by which its process is heard"
        too_early = "" if code < 0 else " before the function returned"
        return f"its process {death(code)}{too_early}"


def _reset_signals() -> None:
    """Have the function's process begin with what programs expect of signals.

    What the guard ignores would be ignored by that process too, and by all that it starts.
    """
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _tell(message: Line) -> None:
    sys.stdout.buffer.write(encoded(message))
    sys.stdout.buffer.flush()


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    descendants.adopt_orphans()
    orders = LineReader(sys.stdin.fileno())
    first, *others = orders.wait()
    guard = Guard(first["call"], first["limits"], orders)
    try:
        for order in others:
            guard.set_rules(order["rules"])
        with suppress(BrokenPipeError):
            guard.watch()
    finally:
        guard.stop()


if __name__ == "__main__":
    main()
