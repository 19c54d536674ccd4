"""What happens in the process of a device, here without the process."""

from __future__ import annotations

import logging
import math
import multiprocessing
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import pytest

from service.protocol import RunEnded, RunReport
from service.worker.crew import Crew
from service.worker.device import Inbox, serve
from service.worker.messages import FromDevice, HandedBack, Started, Stop
from service.worker.training import MAX_LOG, DeviceSpec, LogTail
from tests.worker.fakes import DEADLINE_SECONDS, order
from tests.worker.trainers import Epoch, ScriptedPack, ScriptedTrainer, ScriptedTraining

SPEC = DeviceSpec("cpu:0", None, None)


@pytest.fixture
def tail() -> Iterator[LogTail]:
    """A tail of everything that is logged."""
    tail = LogTail()
    root = logging.getLogger()
    level = root.level
    root.addHandler(tail)
    root.setLevel(logging.INFO)
    yield tail
    root.removeHandler(tail)
    root.setLevel(level)


def trained(tail: LogTail, **task: Any) -> list[FromDevice]:
    """All that is said of a run."""
    crew = Crew(ScriptedTrainer("cpu:0", SPEC), tail)
    said = list(crew.take(order(1, **task)))
    while not crew.is_idle:
        said += crew.advance()
    return said


def test_a_run_says_that_it_begins_each_epoch_and_its_end(tail: LogTail) -> None:
    started, *reports, end = trained(tail, epochs=3)
    assert started == Started((1, 1), "scripted/1")
    assert [r.epoch for r in reports if isinstance(r, RunReport)] == [1, 2, 3]
    assert isinstance(end, RunEnded)
    assert (end.outcome, end.value, end.kept_epoch) == ("complete", 0.5, 1)
    assert (end.metrics, end.program) == ({"test_accuracy": 0.25}, "scripted/1")
    assert (end.error, end.log_tail) == (None, None)
    assert end.device_seconds > 0


def test_divergence_is_an_end_of_its_own(tail: LogTail) -> None:
    end = trained(tail, end="diverge")[-1]
    assert isinstance(end, RunEnded)
    assert (end.outcome, end.value) == ("diverged", None)
    assert end.error == "the loss was not finite in epoch 3"


def test_an_error_comes_with_its_text_and_the_end_of_the_log(tail: LogTail) -> None:
    end = trained(tail, end="raise_error")[-1]
    assert isinstance(end, RunEnded)
    assert end.outcome == "crashed"
    assert end.error == "ValueError: weights \\0 and \\ud800 do not fit"
    assert end.log_tail is not None
    assert "INFO tests.worker.trainers: epoch 2\nTraceback" in end.log_tail
    assert end.log_tail.endswith("ValueError: weights \\0 and \\ud800 do not fit\n")
    end.model_dump_json()


def test_a_long_log_loses_its_beginning(tail: LogTail) -> None:
    tail.lines.append("x" * MAX_LOG)
    end = trained(tail, end="raise_error")[-1]
    assert isinstance(end, RunEnded)
    assert end.log_tail is not None
    assert len(end.log_tail) == MAX_LOG
    assert end.log_tail.endswith("do not fit\n")


def test_running_out_of_memory_is_told_apart(tail: LogTail) -> None:
    end = trained(tail, end="run_out_of_memory")[-1]
    assert isinstance(end, RunEnded)
    assert (end.outcome, end.error) == ("out_of_memory", "MemoryError: 3 GB needed")


def test_a_metric_that_json_does_not_have_is_an_error(
    tail: LogTail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        ScriptedTraining, "__iter__", lambda _: iter([Epoch(1, {"loss": math.nan})])
    )
    _, end = trained(tail)
    assert isinstance(end, RunEnded)
    assert end.outcome == "crashed"


def test_an_order_this_version_does_not_know_is_an_error(
    tail: LogTail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScriptedTrainer, "add", lambda *_: 1 / 0)
    (end,) = trained(tail)
    assert isinstance(end, RunEnded)
    assert (end.outcome, end.error) == ("crashed", "ZeroDivisionError: division by zero")


class Pipe:
    """An inbox, and the agent's end of its pipe."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        reader: Connection[Any, Any]
        reader, self.writer = multiprocessing.Pipe(duplex=False)
        self.inbox = Inbox(reader, on_end=self.ended.set)

    def close(self) -> None:
        """Hang up, and wait until everything sent before has been read."""
        self.writer.close()
        assert self.ended.wait(DEADLINE_SECONDS)


def test_messages_are_taken_in_the_order_they_came() -> None:
    pipe = Pipe()
    messages = [order(1), order(2), Stop((1, 1)), order(3)]
    for message in messages:
        pipe.writer.send(message)
    pipe.close()
    assert pipe.inbox.take(wait=True) == messages
    assert pipe.inbox.take(wait=False) == []


def served(kind: str, tail: LogTail, num_ends: int, *tasks: dict[str, Any]) -> list[str]:
    """The outcomes of runs with these tasks; the device is left after so many ends."""
    pipe = Pipe()
    ends: list[str] = []

    def send(message: FromDevice) -> None:
        if isinstance(message, RunEnded):
            ends.append(message.outcome)
            if len(ends) == num_ends:
                raise BrokenPipeError

    for run, task in enumerate(tasks, start=1):
        pipe.writer.send(order(run, **task))
    try:
        serve(kind, Crew(ScriptedTrainer("cpu:0", SPEC), tail), pipe.inbox, send)
    except BrokenPipeError:
        ends.append("left")
    pipe.close()
    return ends


def test_a_device_trains_on_after_an_error(tail: LogTail) -> None:
    ends = served("cpu", tail, 3, {"end": "raise_error"}, {"end": "run_out_of_memory"}, {})
    assert ends == ["crashed", "out_of_memory", "complete", "left"]


def test_a_gpu_is_started_anew_after_an_error(tail: LogTail) -> None:
    ends = served("cuda", tail, 4, {}, {"end": "diverge"}, {"end": "raise_error"}, {})
    assert ends == ["complete", "diverged", "crashed"]


def test_running_out_of_memory_leaves_a_gpu_as_it_is(tail: LogTail) -> None:
    ends = served("cuda", tail, 2, {"end": "run_out_of_memory"}, {})
    assert ends == ["out_of_memory", "complete", "left"]


def test_a_failed_gpu_gives_the_other_runs_back(tail: LogTail) -> None:
    crew = Crew(ScriptedPack("cuda:0", SPEC), tail)
    assert not list(crew.take(order(1, epochs=9)))
    assert not list(crew.take(order(2, epochs=1, end="raise_error")))
    while not crew.failed:
        list(crew.advance())
    assert list(crew.hand_back()) == [HandedBack((1, 1), None)]


def test_runs_train_side_by_side_and_share_the_devices_time(tail: LogTail) -> None:
    crew = Crew(ScriptedPack("cpu:0", SPEC), tail)
    for run in range(1, 7):
        assert not list(crew.take(order(run, epochs=run)))
    said: list[FromDevice] = []
    while not crew.is_idle:
        said += crew.advance()
    ends = [message for message in said if isinstance(message, RunEnded)]
    assert [end.run for end in ends] == [1, 2, 3, 4, 5, 6]
    started = [message.key[0] for message in said if isinstance(message, Started)]
    assert started == [1, 2, 3, 4, 5, 6]
    assert said.index(Started((5, 1), "scripted/1")) > said.index(ends[0])
    assert all(end.device_seconds > 0 for end in ends)


def test_a_run_is_trained_no_further_once_it_is_stopped(tail: LogTail) -> None:
    crew = Crew(ScriptedTrainer("cpu:0", SPEC), tail)
    for run in (1, 2):
        assert not list(crew.take(order(run, epochs=5)))
    said = [*crew.advance(), *crew.advance(), *crew.stop((1, 1)), *crew.stop((2, 1))]
    assert [type(message) for message in said] == [Started, RunReport, RunEnded]
    assert isinstance(said[-1], RunEnded)
    assert said[-1].outcome == "stopped"
    assert crew.is_idle
    assert not list(crew.stop((9, 1)))
