"""What becomes of the parts of the embedded service when one of them ends."""

from __future__ import annotations

import os
import signal
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from ridgeline.service.cli import supervisor
from ridgeline.service.cli.problems import Problem
from ridgeline.service.cli.supervisor import MAX_FAILURES, STABLE_SECONDS, Part, Supervisor

WAITS_FOR_ITS_PARENT = "import sys; sys.stdin.read()"
FAILS = "print('first'); print('no such table'); raise SystemExit(3)"


class Clock:
    def __init__(self) -> None:
        self.seconds = 1_000.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(supervisor, "time", types.SimpleNamespace(monotonic=clock.monotonic))
    return clock


@pytest.fixture
def signals() -> Iterator[None]:
    """`Supervisor.run` takes the signals over; they are given back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def part(tmp_path: Path, code: str, name: str = "worker", *, essential: bool = False) -> Part:
    command = [sys.executable, "-c", code]
    return Part(name, command, dict(os.environ), tmp_path / f"{name}.log", essential=essential)


def run_to_its_end(one: Part) -> None:
    assert one.process is not None
    one.process.wait()


def test_a_part_that_fails_starts_again_after_pauses_that_grow(
    tmp_path: Path, clock: Clock
) -> None:
    said: list[str] = []
    one = part(tmp_path, FAILS)
    pauses: list[float] = []
    for _ in range(8):
        one.keep_running(said.append)
        run_to_its_end(one)
        one.keep_running(said.append)
        assert one.process is None
        began = clock.seconds
        while one.process is None:
            clock.seconds += 0.5
            one.keep_running(said.append)
        pauses.append(clock.seconds - began)
        run_to_its_end(one)
        one.stop()
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert said[0] == (
        "the worker ended (exit status 3): no such table; it starts again in 0.5 s; "
        f"its log is {tmp_path}/worker.log"
    )


def test_what_a_killed_part_last_said_is_not_blamed(tmp_path: Path, clock: Clock) -> None:
    said: list[str] = []
    kills_itself = "import os; print('a warning of long ago', flush=True); os.kill(os.getpid(), 9)"
    one = part(tmp_path, kills_itself)
    one.keep_running(said.append)
    run_to_its_end(one)
    one.keep_running(said.append)
    assert said[0].startswith("the worker ended (signal 9); it starts again in 0.5 s")


def test_a_part_that_ran_for_long_is_not_failing_again(tmp_path: Path, clock: Clock) -> None:
    said: list[str] = []
    one = part(tmp_path, FAILS, essential=True)
    for _ in range(2 * MAX_FAILURES):
        one.keep_running(said.append)
        run_to_its_end(one)
        clock.seconds += STABLE_SECONDS
        one.keep_running(said.append)
        clock.seconds += 0.5
    assert all("starts again in 0.5 s" in line for line in said)


def test_an_essential_part_that_fails_in_a_row_ends_it_all(tmp_path: Path, clock: Clock) -> None:
    said: list[str] = []
    one = part(tmp_path, FAILS, "api", essential=True)
    for _ in range(MAX_FAILURES - 1):
        one.keep_running(said.append)
        run_to_its_end(one)
        one.keep_running(said.append)
        clock.seconds += 30
    one.keep_running(said.append)
    run_to_its_end(one)
    with pytest.raises(Problem, match=r"the api ended \(exit status 3\): no such table; see "):
        one.keep_running(said.append)


@pytest.mark.usefixtures("signals")
def test_a_part_that_cannot_do_with_what_it_was_given_ends_it_all(tmp_path: Path) -> None:
    first = part(tmp_path, WAITS_FOR_ITS_PARENT, "api")
    other = part(tmp_path, "print('ridgeline: there is no device cuda:7'); raise SystemExit(2)")
    with pytest.raises(Problem, match=r"worker ended \(exit status 2\): .* no device") as caught:
        Supervisor(first, [other]).run(lambda: None, lambda: None)
    assert caught.value.exit_code == 2
    assert first.process is other.process is None


@pytest.mark.usefixtures("signals")
def test_a_first_part_that_ends_before_it_is_ready_ends_it_all(tmp_path: Path) -> None:
    first, other = part(tmp_path, FAILS, "api"), part(tmp_path, WAITS_FOR_ITS_PARENT)
    with pytest.raises(Problem, match=r"the api ended .*: no such table"):
        Supervisor(first, [other]).run(lambda: "", lambda: pytest.fail("it is not ready"))
    assert other.process is None


@pytest.mark.usefixtures("signals")
def test_a_first_part_that_is_never_ready_ends_it_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "READY_SECONDS", 0.0)
    first = part(tmp_path, WAITS_FOR_ITS_PARENT, "api")
    with pytest.raises(Problem, match="the api is not ready after 0 s"):
        Supervisor(first, []).run(lambda: "", lambda: None)
    assert first.process is None


@pytest.mark.usefixtures("signals")
def test_why_a_first_part_is_not_ready_is_told_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(["", "no room", "no room", "", "too new", None])
    said: list[str] = []

    def ready() -> None:
        said.append("ready")
        signal.raise_signal(signal.SIGINT)

    first = part(tmp_path, WAITS_FOR_ITS_PARENT, "api")
    Supervisor(first, [], said.append).run(lambda: next(answers), ready)
    told = ["the api is not ready yet: no room", "the api is not ready yet: too new"]
    assert said == [*told, "ready"]
    monkeypatch.setattr(supervisor, "READY_SECONDS", 0.0)
    with pytest.raises(Problem, match=r"the api is not ready after 0 s: no room; see "):
        Supervisor(first, [], said.append).run(lambda: "no room", ready)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_all_parts(number: signal.Signals, tmp_path: Path) -> None:
    first, other = part(tmp_path, WAITS_FOR_ITS_PARENT, "api"), part(tmp_path, FAILS)
    said: list[str] = []

    def say(line: str) -> None:
        """Called when the other part has failed: both have been started by then."""
        said.append(line)
        signal.raise_signal(number)

    Supervisor(first, [other], say).run(lambda: None, lambda: said.append("ready"))
    assert said[0] == "ready"
    assert said[1].startswith("the worker ended")
    assert first.process is other.process is None


@pytest.mark.usefixtures("signals")
def test_a_signal_ends_the_wait_for_the_first_part(tmp_path: Path) -> None:
    def why_not_ready() -> str:
        signal.raise_signal(signal.SIGINT)
        return ""

    first = part(tmp_path, WAITS_FOR_ITS_PARENT, "api")
    Supervisor(first, []).run(why_not_ready, lambda: pytest.fail("it is not ready"))
    assert first.process is None
