"""A pack in training: the runs in its slots, and its turns on a thread."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace

from ridgeline.search.engine.config import RunConfig
from ridgeline.search.engine.pack import Pack
from ridgeline.search.engine.progress import Progress, outcomes
from ridgeline.search.engine.pruning import PruningRules
from ridgeline.search.engine.saved import SavedRun
from ridgeline.search.engine.saving import Saving
from ridgeline.search.events import Event, Over, Reported, Saved

TURN_SECONDS = 0.05
"""How long a pack trains before it is heard, unless a run ends: it then can take another."""

ADVANCE_SECONDS = 0.25
"""How long at most: a cancel waits no longer."""


@dataclass(frozen=True)
class Waiting:
    """A run that has no slot yet; the attributes are the arguments of `Lanes.add`.

    `saved` is what was read from its checkpoint, and None of a run that begins.
    """

    key: Hashable
    config: RunConfig
    group: str | None
    bracket: int
    keep_weights: bool
    saved: SavedRun | None = None


@dataclass(frozen=True)
class Turn:
    """What a pack's time on a thread came to.

    Attributes:
        events: of its runs, in the order in which they came about.
        freed: slots whose runs are over.
    """

    events: list[Event]
    freed: list[int]
    seconds: float
    num_ticks: int


@dataclass(eq=False)
class OpenPack:
    """A pack and the runs in its slots.

    While it has a turn, another thread computes on the pack and on the progress of its runs;
    everything here is the device's own thread's.
    """

    pack: Pack
    runs: dict[int, tuple[Waiting, Progress]]
    """By slot."""
    seconds: float
    """Of its turns, and of those that others had before it came."""
    saving: Saving
    has_turn: bool = False
    removed: dict[int, Hashable] = field(default_factory=dict)
    """Slots whose runs were taken out while it had its turn, and their keys."""
    seconds_per_tick: float | None = None

    @property
    def num_free(self) -> int:
        """Slots that no run is in."""
        return self.pack.width - len(self.runs)

    def put(self, slot: int, run: Waiting) -> Progress:
        """Name the run that comes into a free slot; it is not touched yet."""
        progress = Progress(run.config, self.pack, slot)
        self.runs[slot] = replace(run, saved=None), progress
        self.saving.begin(run.key, self.seconds)
        return progress

    def take_turn(self, rules: Mapping[tuple[str, int], PruningRules]) -> Turn:
        """Train for a moment: until a run ends, or TURN_SECONDS are over at the end of an epoch."""
        pack, events = self.pack, list[Event]()
        freed: list[int] = []
        start = now = time.perf_counter()
        num_ticks, seconds_per_tick = 0, self.seconds_per_tick
        while not freed and (now - start < TURN_SECONDS or num_ticks == 0):
            count = self._ticks_within(start + ADVANCE_SECONDS - now, seconds_per_tick)
            pack.tick(count)
            num_ticks += count
            ended = [slot for slot in self.runs if pack.at_epoch_end(slot)]
            metrics = pack.epoch_metrics(ended) if ended else []
            seconds = self.seconds + time.perf_counter() - start
            for slot, values in zip(ended, metrics, strict=True):
                run, progress = self.runs[slot]
                its_rules = rules.get((run.group or "", run.bracket))
                report = progress.end_epoch(values, its_rules)
                if report is not None:
                    events.append(Reported(run.key, report))
                if progress.is_over:
                    freed.append(slot)
                elif report is not None:
                    at_rung = its_rules is not None and report.epoch in its_rules.thresholds
                    if self.saving.is_due(run.key, seconds, at_rung=at_rung):
                        events.append(self._save(run.key, progress, start))
            ends = [self.runs[slot] for slot in freed]
            over = [(progress, run.keep_weights) for run, progress in ends]
            found = outcomes(pack, over)
            events += [Over(run.key, its) for (run, _), its in zip(ends, found, strict=True)]
            now = time.perf_counter()
            if ended or pack.device.type == "cpu":  # else the device may still be at them
                seconds_per_tick = (now - start) / num_ticks
        return Turn(events, freed, now - start, num_ticks)

    def land(self, turn: Turn) -> list[Event]:
        """Take in a turn; its events, but those of runs that were taken out meanwhile."""
        self.seconds += turn.seconds
        self.seconds_per_tick = turn.seconds / turn.num_ticks
        for slot in {*turn.freed, *self.removed}:
            self.free(slot)
        gone = {*self.removed.values()}
        self.removed.clear()
        return [event for event in turn.events if event.key not in gone]

    def narrow(self) -> None:
        """Have the pack compute its runs alone, as none is there to take its free slots."""
        for old, new in self.pack.narrow().items():
            self.runs[new] = self.runs.pop(old)
            self.runs[new][1].slot = new

    @property
    def seconds_left(self) -> float:
        """How long it will probably train; 0 where its speed is not known."""
        epochs = (run.config.epochs - its.epochs_trained for run, its in self.runs.values())
        ticks = self.pack.steps_per_epoch * max(epochs, default=0)
        return ticks * (self.seconds_per_tick or 0.0)

    def move(self, count: int, other: OpenPack) -> None:
        """Have another pack of the same program, which is empty, go on with some of the runs."""
        for slot, old in enumerate([*self.runs][-count:]):
            run, progress = self.runs.pop(old)
            progress.move(other.pack, slot)
            other.runs[slot] = run, progress
            self.saving.end(run.key)
            other.saving.begin(run.key, other.seconds)

    def free(self, slot: int) -> None:
        """Take the run out of a slot."""
        self.pack.free(slot)
        if (taken := self.runs.pop(slot, None)) is not None:
            run, _ = taken
            self.saving.end(run.key)

    def _save(self, key: Hashable, progress: Progress, start: float) -> Saved:
        """The run as it is now, in a turn that began at `start`."""
        before = self.seconds + time.perf_counter() - start
        saved = Saved(key, progress.epochs_trained, progress.checkpoint())
        self.saving.saved(key, before, self.seconds + time.perf_counter() - start)
        return saved

    def _ticks_within(self, seconds: float, seconds_per_tick: float | None) -> int:
        """How many ticks to take at once."""
        ticks = self.pack.ticks_to_epoch_end
        if seconds_per_tick is None:
            return min(ticks, 4)
        return min(ticks, max(1, int(seconds / seconds_per_tick)))
