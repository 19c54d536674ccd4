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
from service.worker.device import Inbox, serve
from service.worker.messages import FromDevice, Started, Stop, key_of
from service.worker.training import MAX_LOG, DeviceSpec, LogTail, train
from tests.worker.fakes import DEADLINE_SECONDS, order
from tests.worker.trainers import Epoch, ScriptedTrainer, ScriptedTraining

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
    return list(train(ScriptedTrainer("cpu:0", SPEC), order(1, **task), tail, lambda: False))


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
    monkeypatch.setattr(ScriptedTrainer, "start", lambda *_: 1 / 0)
    _, end = trained(tail)
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


def test_orders_are_taken_in_turn_and_those_stopped_are_left_out() -> None:
    pipe = Pipe()
    for run in (1, 2, 3):
        pipe.writer.send(order(run))
    pipe.writer.send(Stop((2, 1)))
    pipe.writer.send(Stop((9, 1)))
    pipe.close()
    assert [pipe.inbox.next().run, pipe.inbox.next().run] == [1, 3]
    assert not pipe.inbox.stopped


def test_the_run_that_trains_learns_that_it_is_stopped() -> None:
    pipe = Pipe()
    pipe.writer.send(order(1))
    first = pipe.inbox.next()
    pipe.writer.send(order(2))
    pipe.writer.send(Stop(key_of(first)))
    pipe.close()
    assert pipe.inbox.stopped
    pipe.inbox.next()
    assert not pipe.inbox.stopped


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
        serve(kind, ScriptedTrainer("cpu:0", SPEC), pipe.inbox, tail, send)
    except BrokenPipeError:
        ends.append("left")
    pipe.close()
    return ends


def test_a_device_trains_on_after_an_error(tail: LogTail) -> None:
    ends = served("cpu", tail, 3, {"end": "raise_error"}, {"end": "run_out_of_memory"}, {})
    assert ends == ["crashed", "out_of_memory", "complete", "left"]


@pytest.mark.parametrize("end", ["raise_error", "run_out_of_memory"])
def test_a_gpu_is_started_anew_after_an_error(tail: LogTail, end: str) -> None:
    ends = served("cuda", tail, 4, {}, {"end": "diverge"}, {"end": end}, {})
    assert len(ends) == 3
    assert ends[:2] == ["complete", "diverged"]


def test_the_log_of_a_run_begins_with_the_run(tail: LogTail) -> None:
    served("cpu", tail, 2, {"epochs": 7}, {"epochs": 1})
    assert [line.rpartition(": ")[2] for line in tail.lines] == ["epoch 1"]


def test_a_run_is_trained_no_further_once_it_is_stopped(tail: LogTail) -> None:
    said: list[FromDevice] = []
    for message in train(
        ScriptedTrainer("cpu:0", SPEC), order(1, epochs=5), tail, lambda: len(said) >= 3
    ):
        said.append(message)
    assert [type(message) for message in said] == [Started, RunReport, RunReport, RunEnded]
    assert isinstance(said[-1], RunEnded)
    assert said[-1].outcome == "stopped"
