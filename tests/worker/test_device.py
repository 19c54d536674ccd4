"""What happens in the process of a device, here without the process."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import pytest

from service.protocol import RunEnded, RunOrder
from service.worker.bench import Bench, LogTail
from service.worker.device import Inbox, serve
from service.worker.messages import FromDevice, Released, Stop
from tests.worker.fakes import DEADLINE_SECONDS, order
from tests.worker.trainers import ScriptedTrainer


class Pipe:
    """An inbox, and the agent's end of its pipe."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        reader: Connection[Any, Any]
        reader, self.writer = multiprocessing.Pipe(duplex=False)
        self.inbox = Inbox(reader, on_end=self.ended.set)

    def send(self, run: int, **task: Any) -> RunOrder:
        message = order(run, **task)
        self.writer.send(message)
        return message

    def close(self) -> None:
        """Hang up, and wait until everything sent before has been read."""
        self.writer.close()
        assert self.ended.wait(DEADLINE_SECONDS)


def test_all_that_was_said_is_taken_at_once_in_its_order() -> None:
    pipe = Pipe()
    said = [pipe.send(1), pipe.send(2)]
    pipe.writer.send(Stop((1, 1)))
    pipe.close()
    assert pipe.inbox.take(wait=True) == [*said, Stop((1, 1))]
    assert pipe.inbox.take(wait=False) == []


def test_an_idle_device_waits_to_be_told_something() -> None:
    pipe = Pipe()
    taken: list[Any] = []
    waiting = threading.Thread(target=lambda: taken.extend(pipe.inbox.take(wait=True)))
    waiting.start()
    said = pipe.send(1)
    waiting.join(DEADLINE_SECONDS)
    assert taken == [said]
    pipe.close()


class Left(Exception):
    """The test has seen enough."""


def served(num_ends: int, *tasks: dict[str, Any], frail: bool) -> dict[int, str]:
    """What runs with these tasks come to, by the time that so many have ended."""
    pipe = Pipe()
    outcomes: dict[int, str] = {}

    def send(messages: Sequence[FromDevice]) -> None:
        for message in messages:
            end = message.end if isinstance(message, Released) else message
            if isinstance(end, RunEnded):
                outcomes[end.run] = end.outcome
        if len(outcomes) == num_ends:
            raise Left

    for run, task in enumerate(tasks, start=1):
        pipe.send(run, **task)
    pipe.close()
    serve(Bench(ScriptedTrainer(), LogTail(), send, frail=frail), pipe.inbox)
    return outcomes


def test_a_device_trains_until_it_is_left() -> None:
    tasks = [{"end": "fail_oddly"}, {"end": "run_out_of_memory"}, {"add": "refuse"}, {}, {}, {}]
    with pytest.raises(Left):
        served(6, *tasks, frail=False)


def test_a_gpu_is_left_after_a_crash_and_gives_back_what_it_trained() -> None:
    lasting = {"epochs": 9}
    outcomes = served(9, {}, {"end": "diverge"}, {"end": "fail_oddly"}, lasting, {}, frail=True)
    assert outcomes == {1: "complete", 2: "diverged", 3: "crashed", 4: "released"}
