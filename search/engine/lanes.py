"""All that trains on one device: runs wait in lanes, and take a slot the moment one is free.

A lane is the runs that can share one program; its packs are open while it has runs.  The device's
time is shared fairly among lanes.  Nothing here knows of studies, processes or the network.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from search.engine.admission import (
    free_bytes,
    is_out_of_memory,
    prior_width,
    width_for,
)
from search.engine.compiled import CompiledProgram, Job
from search.engine.config import ModelShape, RunConfig
from search.engine.data import DeviceData
from search.engine.memory import bytes_per_slot
from search.engine.pack import Pack
from search.engine.programs import Programs
from search.engine.progress import EpochReport, Outcome, Progress
from search.engine.pruning import PruningRules
from search.engine.spec import StepSpec

NUM_SLOTS = {"cpu": 32, "cuda": 256}
"""Runs that a device trains at once, all its lanes together, where no width is set."""

COMPILE_SECONDS = 20.0
"""What compiling a program takes: a lane that has trained for as long, or will, is worth it."""

ADVANCE_SECONDS = 0.25
"""How long the device is kept before somebody may be heard: a cancel waits no longer."""


@dataclass(frozen=True)
class LaneOptions:
    """How a device trains.

    Attributes:
        width: of every pack; None takes what suits the runs and the device.
        compile: whether programs may be compiled.
        cache: the folder of compiled programs and measurements; None compiles nothing.
        memory_bytes: what a pack may take; None goes by what is free.
    """

    width: int | None = None
    compile: bool = True
    cache: Path | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Began:
    """The run trains from now on, by this program for life; nothing was touched before."""

    key: Hashable
    program: str


@dataclass(frozen=True)
class Reported:
    """An epoch of a run has ended."""

    key: Hashable
    report: EpochReport


@dataclass(frozen=True)
class Over:
    """A run has ended: complete, diverged or pruned."""

    key: Hashable
    outcome: Outcome


@dataclass(frozen=True)
class Failed:
    """A run failed alone in its pack, so it is to blame; a MemoryError: it does not fit alone."""

    key: Hashable
    error: Exception


@dataclass(frozen=True)
class HandedBack:
    """A run's pack failed with others in it, and nobody is to blame.

    `limit` is beside how few others, itself counted, to try it again, so that in the end the guilty
    one is alone; None after memory has run out: the next pack is narrower.
    """

    key: Hashable
    error: Exception
    limit: int | None


Event = Began | Reported | Over | Failed | HandedBack


@dataclass(frozen=True)
class _Waiting:
    key: Hashable
    config: RunConfig
    group: str | None


@dataclass
class _OpenPack:
    pack: Pack
    runs: dict[int, tuple[_Waiting, Progress]]
    """By slot."""
    seconds_per_tick: float | None = None

    def chunk(self) -> int:
        """How many ticks to take at once."""
        ticks = self.pack.ticks_to_epoch_end
        if self.seconds_per_tick is None:
            return min(ticks, 4)
        return min(ticks, max(1, int(ADVANCE_SECONDS / self.seconds_per_tick)))


class _Lane:
    """The runs of one training step over one data set, and the packs that they train in.

    Args:
        widest: by step, the widest pack that fits, where a wider one did not; shared by all lanes.
        pinned: always the same program, whatever waits and whatever has been compiled.
    """

    def __init__(
        self,
        spec: StepSpec,
        data: DeviceData,
        options: LaneOptions,
        programs: Programs,
        *,
        widest: dict[StepSpec, int],
        pinned: bool,
    ) -> None:
        self.spec, self.data = spec, data
        self.waiting: deque[_Waiting] = deque()
        self.packs: list[_OpenPack] = []
        self.seconds = 0.0
        self.filling: _OpenPack | None = None
        """The pack that `refill` is at; None while it opens one."""
        self._options, self._programs = options, programs
        self._pinned = pinned
        self._widest = widest

    @property
    def has_work(self) -> bool:
        return bool(self.waiting) or any(open_pack.runs for open_pack in self.packs)

    @property
    def num_open(self) -> int:
        """Runs waiting or training."""
        return len(self.waiting) + sum(len(open_pack.runs) for open_pack in self.packs)

    def narrow(self, width: int) -> None:
        """Remember that no pack as wide as this fits."""
        self._widest[self.spec] = max(1, width // 2)

    def remove(self, key: Hashable) -> bool:
        for run in self.waiting:
            if run.key == key:
                self.waiting.remove(run)
                return True
        for open_pack in self.packs:
            for slot, (run, _) in open_pack.runs.items():
                if run.key == key:
                    open_pack.pack.free(slot)
                    del open_pack.runs[slot]
                    return True
        return False

    def refill(self) -> Iterator[Event]:
        """Put waiting runs into free slots, opening a pack where there is none."""
        self.filling = None
        program, width = self.choose()
        wanted = None if program is None else "compiled"
        for open_pack in self.packs:
            if wanted is None or open_pack.pack.program.form == wanted:
                yield from self._fill(open_pack)
        num_slots = sum(p.pack.width for p in self.packs if p.runs)
        if self.waiting and num_slots < self.full_width:
            self.filling = None
            pack = Pack(self.spec, self.data, width=width, compiled=program)
            self.packs.append(_OpenPack(pack, {}))
            yield from self._fill(self.packs[-1])
        self.packs = [open_pack for open_pack in self.packs if open_pack.runs]

    def train(self, open_pack: _OpenPack, rules: dict[str, PruningRules]) -> Iterator[Event]:
        """Some ticks of a pack, and what has come of them."""
        pack, count = open_pack.pack, open_pack.chunk()
        before = time.perf_counter()
        pack.tick(count)
        ended = [slot for slot in open_pack.runs if pack.at_epoch_end(slot)]
        metrics = pack.epoch_metrics(ended) if ended else []
        seconds = time.perf_counter() - before
        self.seconds += seconds
        open_pack.seconds_per_tick = seconds / count
        for slot, values in zip(ended, metrics, strict=True):
            run, progress = open_pack.runs[slot]
            report = progress.end_epoch(values, rules.get(run.group or ""))
            if report is not None:
                yield Reported(run.key, report)
            if progress.is_over:
                outcome = progress.outcome()
                pack.free(slot)
                del open_pack.runs[slot]
                yield Over(run.key, outcome)

    @property
    def full_width(self) -> int:
        """The width of a pack with a run for every slot."""
        width = self._options.width or prior_width(self.spec, self.data.device)
        return min(width, self._widest.get(self.spec, width))

    def choose(self) -> tuple[CompiledProgram | None, int]:
        """The program and width of the next pack."""
        full = self.full_width
        if self._pinned or not self._options.compile or self._programs.folder is None:
            fixed = self._pinned or self._options.width is not None
            return None, full if fixed else width_for(len(self.waiting), full)
        job = Job.of(self.spec, full, self.data)
        program = self._programs.get(job)
        if program is not None:
            return program, full
        if self._worth_compiling():
            self._programs.request(job)
        fixed = self._options.width is not None
        return None, full if fixed else width_for(len(self.waiting), full)

    def _worth_compiling(self) -> bool:
        if self.seconds > COMPILE_SECONDS:
            return True
        speeds = [p.seconds_per_tick / p.pack.width for p in self.packs if p.seconds_per_tick]
        if not speeds:
            return False
        epochs = [run.config.epochs for run in self.waiting]
        for open_pack in self.packs:
            epochs += [
                run.config.epochs - progress.epochs_trained
                for run, progress in open_pack.runs.values()
            ]
        return sum(epochs) * self.spec.num_steps * min(speeds) > COMPILE_SECONDS

    def _fill(self, open_pack: _OpenPack) -> Iterator[Event]:
        self.filling, pack = open_pack, open_pack.pack
        for slot in range(pack.width):
            if not self.waiting:
                return
            if slot in open_pack.runs:
                continue
            run = self.waiting.popleft()
            # Named before it is touched: what fails from here on is known to be about it too.
            open_pack.runs[slot] = run, Progress(run.config, self.data, pack, slot)
            yield Began(run.key, str(pack.program))
            pack.load(slot, run.config)


class Lanes:
    """The runs of one device."""

    def __init__(self, device: torch.device, options: LaneOptions) -> None:
        self._device, self._options = device, options
        self._programs = Programs(options.cache if options.compile else None)
        self._lanes: dict[Hashable, _Lane] = {}
        self._rules: dict[str, PruningRules] = {}
        self._widest: dict[StepSpec, int] = {}

    @property
    def num_slots(self) -> int:
        """How many runs it trains at once."""
        return self._options.width or NUM_SLOTS.get(self._device.type, 1)

    @property
    def is_idle(self) -> bool:
        """Whether no run waits or trains."""
        return not any(lane.has_work for lane in self._lanes.values())

    @property
    def num_open(self) -> int:
        """Runs that wait or train."""
        return sum(lane.num_open for lane in self._lanes.values())

    def add(
        self,
        key: Hashable,
        config: RunConfig,
        shape: ModelShape,
        data: DeviceData,
        *,
        group: str | None = None,
        pinned: bool = False,
    ) -> None:
        """Have a run wait for a slot.

        Args:
            key: names the run in every event.
            group: whose pruning rules it goes by.
            pinned: by the same program whatever else waits and whatever has been compiled.

        Raises:
            ValueError: where the shape's features or classes are not the data's.
        """
        data.check(shape)
        dtype = str(data.dtype).removeprefix("torch.")
        spec = StepSpec.of(config, shape, data.train.num_samples, dtype)
        lane_key = (spec, id(data), pinned)
        if lane_key not in self._lanes:
            lane = self._lanes[lane_key] = _Lane(
                spec,
                data,
                self._options,
                self._programs,
                widest=self._widest,
                pinned=pinned,
            )
            # It starts level with the others: device time is shared from now on.
            busy = [other.seconds for other in self._lanes.values() if other.has_work]
            lane.seconds = min(busy, default=0.0)
        self._lanes[lane_key].waiting.append(_Waiting(key, config, group))

    def remove(self, key: Hashable) -> bool:
        """Take a run out at once; False where there is none of that key."""
        return any(lane.remove(key) for lane in self._lanes.values())

    def set_rules(self, group: str, rules: PruningRules) -> None:
        """Prune the runs of a group by these rules from their next epochs on."""
        self._rules[group] = rules

    def advance(self) -> list[Event]:
        """Train for a moment; what is to be told, in the order in which it came about."""
        busy = [lane for lane in self._lanes.values() if lane.has_work]
        if not busy:
            return []
        lane = min(busy, key=lambda lane: lane.seconds)
        events: list[Event] = []
        opening: Exception | None = None
        try:
            self._check_memory(lane)
            for event in lane.refill():
                events.append(event)
        except Exception as exc:
            opening = exc
        if opening is not None:
            events += self._fail(lane, lane.filling, opening)
            return events
        for open_pack in list(lane.packs):
            try:
                for event in lane.train(open_pack, self._rules):
                    events.append(event)
            except Exception as exc:
                events += self._fail(lane, open_pack, exc)
        if not lane.has_work:
            self._lanes = {key: other for key, other in self._lanes.items() if other is not lane}
        return events

    def _check_memory(self, lane: _Lane) -> None:
        """Keep packs narrow enough for the memory there is."""
        if not lane.packs:
            room = self._options.memory_bytes or free_bytes(self._device)
            while (width := lane.full_width) > 1 and width * bytes_per_slot(
                lane.spec, width
            ) > room:
                lane.narrow(width)

    def _fail(self, lane: _Lane, open_pack: _OpenPack | None, error: Exception) -> list[Event]:
        """Close a pack that failed, and say what becomes of its runs."""
        out_of_memory = is_out_of_memory(error)
        if out_of_memory and not isinstance(error, MemoryError):
            error = MemoryError(str(error))
        if open_pack is None:  # not even its tensors could be made
            _, width = lane.choose()
            if out_of_memory and width > 1:
                lane.narrow(width)
                return []
            return [Failed(lane.waiting.popleft().key, error)]
        lane.packs = [other for other in lane.packs if other is not open_pack]
        keys = [run.key for run, _ in open_pack.runs.values()]
        width = open_pack.pack.width
        if out_of_memory:
            lane.narrow(width)
            if width == 1:
                return [Failed(key, error) for key in keys]
            return [HandedBack(key, error, None) for key in keys]
        if len(keys) == 1:
            return [Failed(keys[0], error)]
        return [HandedBack(key, error, len(keys) // 2) for key in keys]
