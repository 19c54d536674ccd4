"""The process of a function: calls it once, and tells its guard what comes of it.

Usage: python -m ridgeline.service.worker.functions.calling DESCRIPTOR

The descriptor is that of a socket to the guard.
"""

from __future__ import annotations

import faulthandler
import math
import os
import signal
import socket
import sys
import threading
import traceback
from contextlib import suppress
from numbers import Complex, Real

from ridgeline.search.fields import MAX_EPOCHS
from ridgeline.search.tasks import registry
from ridgeline.search.tasks.function import FunctionTask, Pruned
from ridgeline.service.processes import CPU_NICENESS, signal_at_parents_death
from ridgeline.service.worker.functions.lines import UNHEARD, Line, LineReader, encoded

_MAX_ERROR = 10_000
"""Characters of an exception that go to the guard; the api gets fewer."""


class _Unheard(BaseException):
    """There is no way to the guard any more."""


class _Diverged(BaseException):
    """A value is not finite, so that the run is over."""


class Reporter:
    """What a function is given to report with.

    Args:
        guard: a socket to the guard.
    """

    def __init__(self, guard: socket.socket) -> None:
        self._guard = guard
        self._answers = LineReader(guard.fileno())
        self._pid = os.getpid()
        self._last_step = 0
        self._lock = threading.Lock()  # a framework may call it back from threads of its own

    @property
    def is_a_copy(self) -> bool:
        """Whether this process was forked by the function's."""
        return os.getpid() != self._pid

    def call(self) -> Line:
        """What the guard wants to be called."""
        (call,) = self._answers.wait()
        return call

    def tell(self, message: Line) -> None:
        """Raises `_Unheard` where that is in vain."""
        try:
            self._guard.sendall(encoded(message))
        except OSError:
            raise _Unheard from None

    def __call__(self, step: int, value: float, /) -> None:
        if self.is_a_copy:
            raise RuntimeError("report is called in another process than the function was")
        if isinstance(step, bool) or not hasattr(step, "__index__"):
            raise TypeError(f"a step is a whole number, not a {type(step).__name__}")
        number = number_of(value, "the value of a report")
        with self._lock:
            if not self._last_step < step.__index__() <= MAX_EPOCHS:
                raise ValueError(
                    f"step {step.__index__()} comes after {self._last_step}; steps count from 1, "
                    f"rise, and end at {MAX_EPOCHS}"
                )
            self._last_step = step.__index__()
            if not math.isfinite(number):
                error = f"it reported {number} at step {self._last_step}"
                self.tell({"end": {"outcome": "diverged", "error": error}})
                raise _Diverged
            self.tell({"step": self._last_step, "value": number})
            answers = self._answers.wait()
        if not answers:
            raise _Unheard
        if not answers[0]["goes_on"]:
            raise Pruned


def number_of(value: object, what: str) -> float:
    """The value as a float.

    Raises:
        TypeError: it is none.
    """
    if (shape := getattr(value, "shape", ())) != ():
        raise TypeError(f"{what} has the shape {tuple(shape)}; it must be one number")
    # Of numpy and torch; what has but one value converts to a float even where it is no number.
    held = value.item() if hasattr(value, "dtype") and hasattr(value, "item") else value
    is_complex = isinstance(held, Complex) and not isinstance(held, Real)
    if isinstance(held, bool | str | bytes) or is_complex or not hasattr(held, "__float__"):
        raise TypeError(f"{what} is {_named(held)}, not a number")
    try:
        return float(held)
    except OverflowError:
        return math.inf


def _named(value: object) -> str:
    return "None" if value is None else f"of the type {type(value).__name__}"


def _run(report: Reporter) -> tuple[Line, BaseException | None]:
    """Call the function; how its run has ended, and what the function raised if that is why."""
    call = report.call()
    if os.getppid() != call["guard"]:
        raise _Unheard  # it has died before the kernel was asked to tell
    try:
        task = registry.of_package(call["task"])
        if not isinstance(task, FunctionTask):
            raise TypeError(f"the task {task.name} is not a function")
        params = task.params(call["config"], call["seed"])
        value = number_of(task.function(params, report), "what the function returned")
    except (_Unheard, _Diverged):
        raise
    except Pruned:
        return {"outcome": "pruned"}, None
    except BaseException as exc:  # SystemExit too: it has not returned a value
        error = "".join(traceback.format_exception_only(exc)).strip()[:_MAX_ERROR]
        outcome = "out_of_memory" if isinstance(exc, MemoryError) else "failed"
        return {"outcome": outcome, "error": error}, exc
    if not math.isfinite(value):
        return {"outcome": "diverged", "error": f"it returned {value}"}, None
    return {"outcome": "complete", "value": value}, None


def _show(raised: BaseException | None) -> None:
    """Print where it was raised, if the function has left something to print to."""
    if raised is not None:
        with suppress(BaseException):
            traceback.print_exception(raised)


def main() -> None:
    signal_at_parents_death(signal.SIGKILL)
    os.nice(CPU_NICENESS)
    faulthandler.enable()
    guard = socket.socket(fileno=int(sys.argv[1]))
    guard.set_inheritable(False)  # programs that the function starts
    report = Reporter(guard)
    try:
        end, raised = _run(report)
        if report.is_a_copy:
            _show(raised)
            os._exit(0)  # the function forked, and its copy has returned too
        report.tell({"end": end})  # first: printing may take for ever
        _show(raised)
    except _Diverged:
        pass  # which is told
    except _Unheard:
        with suppress(Exception):  # it may be closed, or something else by now
            sys.stdout.flush()
        os._exit(UNHEARD)


if __name__ == "__main__":
    main()
