"""What is printed in a device process is logged, and how much of it."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable

import pytest

from ridgeline.service.worker import printed
from ridgeline.service.worker.printed import MAX_CHARACTERS, MAX_LINES, WINDOW_SECONDS, Printed

LEFT_OUT = f"more is printed; it is left out for up to {WINDOW_SECONDS:g} s"

Told = Callable[[], list[str]]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    """Takes what has been logged since the last call."""
    caplog.set_level(logging.INFO, printed.__name__)

    def take() -> list[str]:
        messages = caplog.messages.copy()
        caplog.clear()
        return messages

    return take


def test_a_line_is_logged_when_it_is_whole(told: Told) -> None:
    file = Printed()
    print("the input is", (4, 3), file=file)
    assert told() == ["the input is (4, 3)"]
    print("no", file=file, end="")
    assert told() == []
    print(" end", "\n \n", "\x1b[31mred", file=file)
    first, second = told()
    assert first == "no end"
    assert "\x1b" not in second


def test_no_more_than_some_lines_a_minute_are_logged(told: Told) -> None:
    now = 0.0
    file = Printed(lambda: now)
    for _ in range(MAX_LINES + 7):
        print("step", file=file)
    assert told() == ["step"] * MAX_LINES + [LEFT_OUT]
    now = WINDOW_SECONDS - 0.1
    print("step", file=file)
    assert told() == []
    now = WINDOW_SECONDS
    print("step", file=file)
    assert told() == ["step"]


@pytest.mark.parametrize("text", ["x" * 10**8, "xy\n" * 10**7, "\n" * 10**8], ids=["x", "xy", ""])
def test_much_at_once_costs_little(told: Told, text: str) -> None:
    file = Printed()
    assert file.write(text) == len(text)
    file.write("\n")
    lines = told()
    assert len(lines) <= MAX_LINES + 1
    assert all(len(line) <= MAX_CHARACTERS for line in lines)


IN_A_PROCESS = f"""
import logging, os, sys
from {printed.__name__} import log_what_is_printed

class Fails(logging.Handler):
    def emit(self, record):
        try:
            raise OSError("the disk is full")
        except OSError:
            self.handleError(record)

handlers = [logging.StreamHandler(), Fails()]
logging.basicConfig(level=logging.INFO, handlers=handlers, format="%(message)s")
log_what_is_printed()
print("to the one")
print("to the other", file=sys.stderr)
os.write(1, b"past Python")
os.write(2, b"from a library in C")
"""


def test_nothing_comes_to_the_standard_output_and_errors_of_logging_end() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS], capture_output=True, text=True, check=True
    )
    assert done.stdout == ""
    assert done.stderr == "to the one\nto the other\nfrom a library in C"
