"""A package of functions that do what no function should, and of some that are as they should be.

Each has one parameter, `x`.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ridgeline import Domain, FunctionTask, Pruned
from ridgeline.search.tasks.function import Report

Params = dict[str, Any]

LIMIT_BYTES = 300 * 2**20


def square(params: Params, report: Report) -> float:
    """As it should be: the square of x, by way of three reports."""
    for step in (1, 2, 3):
        report(step, params["x"] ** 2 + 3 - step)
    return float(params["x"] ** 2)


def slow_square(params: Params, report: Report) -> float:
    """The same in a second."""
    for step in range(1, 6):
        threading.Event().wait(0.2)
        report(step, params["x"] ** 2)
    return float(params["x"] ** 2)


def seeded(params: Params, report: Report) -> float:
    """Tells its seed."""
    return float(params["seed"])


def surroundings(params: Params, report: Report) -> float:
    """Tells what it has of its worker, by failing with it."""
    links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
    opened = sorted(os.readlink(link).partition(":")[0] for link in links if os.path.exists(link))
    secrets = sorted(set(os.environ.values()) & {"canary-1", "canary-2"})
    threads = os.environ["OMP_NUM_THREADS"]
    raise LookupError(
        f"{opened} {secrets} {threads} {os.nice(0)} {os.getcwd() == os.environ['TMPDIR']} "
        f"{'' in sys.path or os.getcwd() in sys.path}"
    )


def signals(params: Params, report: Report) -> float:
    """Tells what it has of signals, by failing with it."""
    with subprocess.Popen(["sleep", "600"]) as sleeping:
        sleeping.terminate()
        try:
            code = sleeping.wait(5)
        finally:
            sleeping.kill()
    ignored = {one for one in signal.valid_signals() if signal.getsignal(one) is signal.SIG_IGN}
    ignored -= {signal.SIGPIPE, signal.SIGXFSZ}  # as in every process of Python
    raise LookupError(f"{code} {ignored} {signal.pthread_sigmask(signal.SIG_BLOCK, ())}")


def raises(params: Params, report: Report) -> float:
    report(1, 0.5)
    raise RuntimeError("the solver \x00 \ud800 found\nnothing")


class _Full:
    """In place of a stream, one that cannot be written to."""

    def write(self, text: str) -> int:
        sys.exit("full")


def closes_output(params: Params, report: Report) -> float:
    sys.stdout.close()
    sys.stderr.close()
    raise ValueError("the real reason")


def closes_descriptors_of_output(params: Params, report: Report) -> float:
    os.closerange(0, 3)
    raise ValueError("the real reason")


def replaces_output(params: Params, report: Report) -> float:
    sys.stdout = sys.stderr = _Full()
    raise ValueError("the real reason")


def removes_output(params: Params, report: Report) -> float:
    for name in ("stdout", "stderr", "__stdout__", "__stderr__"):
        setattr(sys, name, None)
    raise ValueError("the real reason")


def blocks_output(params: Params, report: Report) -> float:
    """Has its output go to a pipe that is full and that nobody reads."""
    _, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 2**16)
    os.set_blocking(writing, True)
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    raise ValueError("the real reason")


def closes_all_it_has(params: Params, report: Report) -> float:
    sys.stdout.close()
    os.closerange(3, 1_000)
    return 0.5


def leaves(params: Params, report: Report) -> float:
    sys.exit("not today")


def not_a_number(params: Params, report: Report) -> float:
    return math.nan


def reports_infinity(params: Params, report: Report) -> float:
    report(1, 0.5)
    with suppress(Exception):  # as code does that handles every error
        report(2, math.inf)
    return 0.5


def returns_text(params: Params, report: Report) -> Any:
    return "0.5"


def returns_nothing(params: Params, report: Report) -> Any:
    report(1, 0.5)


def returns_many(params: Params, report: Report) -> Any:
    import numpy as np

    return np.ones((2, 1))


def returns_complex(params: Params, report: Report) -> Any:
    import numpy as np

    return np.complex128(1 + 2j)


def reports_flag(params: Params, report: Report) -> float:
    import numpy as np

    report(1, np.bool_(True))  # type: ignore[arg-type]
    return 0.5


def reports_text(params: Params, report: Report) -> float:
    report(1, "good")  # type: ignore[arg-type]
    return 0.5


def reports_backwards(params: Params, report: Report) -> float:
    report(2, 0.5)
    report(1, 0.5)
    return 0.5


def prints(params: Params, report: Report) -> float:
    """Prints a gigabyte between its first words and its last ones."""
    print("first words")
    block = b"\xff" * 2**20
    for _ in range(1_024):
        os.write(1, block)
    print("last words")
    raise RuntimeError("it was too much")


def hangs(params: Params, report: Report) -> float:
    report(1, 0.5)
    threading.Event().wait()
    return 0.5


def ignores_signals(params: Params, report: Report) -> float:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return hangs(params, report)


def waits_for_thread(params: Params, report: Report) -> float:
    """Returns, but leaves a thread behind that keeps the process from ending."""
    threading.Thread(target=threading.Event().wait).start()
    return 0.5


def forks(params: Params, report: Report) -> float:
    """Goes on in two processes."""
    os.fork()
    return 0.5


def starts(params: Params, report: Report) -> float:
    """Starts a process, tells its id, and waits for it."""
    with subprocess.Popen(
        [sys.executable, "-c", "import threading; threading.Event().wait()"]
    ) as one:
        report(1, float(one.pid))
    return 0.5


def leaves_behind(params: Params, report: Report) -> float:
    """Starts a process in a session of its own and without a parent; tells its id."""
    program = "import os, threading; os.setsid(); print(os.getpid(), flush=True); os.close(1); "
    program += "threading.Event().wait()"
    starts = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {program!r}])"
    done = subprocess.run([sys.executable, "-c", starts], stdout=subprocess.PIPE, check=True)
    report(1, float(done.stdout))
    if params["x"] > 0:
        threading.Event().wait()
    return float(done.stdout)


def exits(params: Params, report: Report) -> float:
    report(1, 0.5)
    os._exit(0)


def segfaults(params: Params, report: Report) -> float:
    return float(ctypes.string_at(0)[0])


def allocates(params: Params, report: Report) -> float:
    kept = []
    while True:
        kept.append(b"x" * 2**20)


def allocates_below(params: Params, report: Report) -> float:
    """The same in a process that it starts."""
    program = "kept = []\nwhile True: kept.append(b'x' * 2**20)"
    return float(subprocess.run([sys.executable, "-c", program], check=False).returncode)


def memory_error(params: Params, report: Report) -> float:
    raise MemoryError("3 GB are needed")


def closes(params: Params, report: Report) -> float:
    report(1, 0.5)
    os.closerange(0, 1_000)
    return 0.5


def garbles(params: Params, report: Report) -> float:
    """Writes to whatever it can."""
    for descriptor in range(3, 100):
        try:
            os.write(descriptor, b'{"step": -1, "value": "x"}\n[]\n\xff\n')
        except OSError:
            continue
    return 0.5


def kills_its_guard(params: Params, report: Report) -> float:
    os.kill(os.getppid(), signal.SIGKILL)
    threading.Event().wait()
    return 0.5


def gives_up(params: Params, report: Report) -> float:
    """Prunes itself where x is large."""
    report(1, params["x"])
    if params["x"] > 0.5:
        raise Pruned
    return float(params["x"])


def swallows(params: Params, report: Report) -> float:
    """Goes on whatever `report` raises."""
    for step in range(1, 5):
        try:
            report(step, params["x"])
        except BaseException:
            continue
    return float(params["x"])


def _task(
    function: Callable[[Params, Report], float], *, max_seconds: float | None = None
) -> FunctionTask:
    return FunctionTask(
        function.__name__.replace("_", "-"),
        function,
        parameters={"x": Domain("float", "a number", low=-10, high=10)},
        metric="loss",
        direction="minimize",
        max_seconds=max_seconds,
        max_bytes=LIMIT_BYTES if "allocates" in function.__name__ else None,
    )


TASKS = {
    task.name: task
    for task in [
        *(
            _task(function)
            for function in (
                square,
                slow_square,
                seeded,
                surroundings,
                signals,
                raises,
                closes_output,
                closes_descriptors_of_output,
                replaces_output,
                removes_output,
                blocks_output,
                closes_all_it_has,
                leaves,
                not_a_number,
                reports_infinity,
                returns_text,
                returns_nothing,
                returns_many,
                returns_complex,
                reports_flag,
                reports_text,
                reports_backwards,
                prints,
                waits_for_thread,
                forks,
                starts,
                leaves_behind,
                exits,
                segfaults,
                allocates,
                allocates_below,
                memory_error,
                closes,
                garbles,
                kills_its_guard,
                gives_up,
                swallows,
            )
        ),
        _task(hangs, max_seconds=2),
        _task(ignores_signals, max_seconds=2),
    ]
}


ENTRY_POINTS = {name: f"{__name__}:task_{task.function.__name__}" for name, task in TASKS.items()}


def __getattr__(name: str) -> FunctionTask:
    """What the entry points name."""
    for task in TASKS.values():
        if name == f"task_{task.function.__name__}":
            return task
    raise AttributeError(name)
