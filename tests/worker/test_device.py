"""What happens in the process of a device, here without the process."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

import pytest

from ridgeline.service.protocol import RunEnded, RunOrder
from ridgeline.service.worker.bench import Bench, LogTail
from ridgeline.service.worker.device import Inbox, serve
from ridgeline.service.worker.messages import BEAT_SECONDS, Beat, FromDevice, Key, Released, Stop
from ridgeline.service.worker.pulse import Pulse
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
    trainer = ScriptedTrainer()
    serve(Bench(trainer, LogTail(), send, frail=frail), pipe.inbox, Pulse(trainer.turns))
    return outcomes


def test_a_device_trains_until_it_is_left() -> None:
    tasks = [{"end": "fail_oddly"}, {"end": "run_out_of_memory"}, {"add": "refuse"}, {}, {}, {}]
    with pytest.raises(Left):
        served(6, *tasks, frail=False)


def test_a_gpu_is_left_after_a_crash_and_gives_back_what_it_trained() -> None:
    lasting = {"epochs": 9}
    outcomes = served(9, {}, {"end": "diverge"}, {"end": "fail_oddly"}, lasting, {}, frail=True)
    assert outcomes == {1: "complete", 2: "diverged", 3: "crashed", 4: "released"}


def test_a_beat_tells_for_how_long_nothing_has_changed() -> None:
    turns: dict[Key, object] = {}
    pulse = Pulse(lambda: turns)
    assert pulse.beat() == Beat({}, 0.0)
    turns |= dict.fromkeys([(1, 1), (2, 1)], "a turn") | {(3, 1): "another"}
    pulse.works()
    assert pulse.beat() == Beat({(1, 1): 0.0, (2, 1): 0.0, (3, 1): 0.0}, 0.0)
    turns[3, 1] = "the next one"
    assert pulse.beat() == Beat({(1, 1): BEAT_SECONDS, (2, 1): BEAT_SECONDS, (3, 1): 0.0}, 1.0)
    pulse.works()
    del turns[1, 1], turns[2, 1]
    assert pulse.beat() == Beat({(3, 1): BEAT_SECONDS}, 0.0)
    pulse.rests()
    for _ in range(3):
        assert pulse.beat().loop_seconds == 0.0, "a device that has nothing to do does not hang"


def test_a_device_says_that_it_lives() -> None:
    said: SimpleQueue[Sequence[FromDevice]] = SimpleQueue()
    Pulse(dict).start(said.put)
    assert said.get(timeout=DEADLINE_SECONDS) == [Beat({}, 0.0)]
