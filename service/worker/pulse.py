"""The heartbeat of a device process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from ridgeline.service.repeating import Repeater
from ridgeline.service.worker.messages import BEAT_SECONDS, Beat, FromDevice, Key


class Pulse:
    """Says from a thread of its own that the process lives, and what does not go on in it.

    It counts its own beats rather than seconds of a clock: a process that was stopped for a while,
    and everything in it, has not hung.

    Args:
        turns: as a `Trainer` has them.
    """

    def __init__(self, turns: Callable[[], Mapping[Key, object]]) -> None:
        self._turns = turns
        self._doing: object | None = None
        self._num_beats: dict[object, int] = {}

    def start(self, send: Callable[[Sequence[FromDevice]], None]) -> None:
        """Send a beat every BEAT_SECONDS from now on."""

        def beat() -> None:
            with suppress(BrokenPipeError):  # the agent has died
                send([self.beat()])

        Repeater(beat, seconds=BEAT_SECONDS).start()

    def works(self) -> None:
        """The main thread begins with something."""
        self._doing = object()

    def rests(self) -> None:
        """The main thread waits to be told something."""
        self._doing = None

    def beat(self) -> Beat:
        """What to say now; to be called every BEAT_SECONDS."""
        turns, doing = self._turns(), self._doing
        before = self._num_beats
        self._num_beats = {thing: before.get(thing, -1) + 1 for thing in {*turns.values(), doing}}
        seconds = {thing: num * BEAT_SECONDS for thing, num in self._num_beats.items()}
        return Beat(
            {key: seconds[turn] for key, turn in turns.items()},
            0.0 if doing is None else seconds[doing],
        )
