"""A lane: the runs that can share one program, waiting or in the slots of its packs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path

from search.engine.admission import Widths, compiled_width, prior_width, width_for
from search.engine.compiled import CompiledProgram, Job
from search.engine.config import RunConfig
from search.engine.data import DeviceData
from search.engine.pack import Pack
from search.engine.programs import Programs
from search.engine.progress import Progress
from search.engine.pruning import PruningRules
from search.engine.spec import StepSpec
from search.events import Began, Event, Over, Reported

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
class Waiting:
    """A run that has no slot yet."""

    key: Hashable
    config: RunConfig
    group: str | None


@dataclass
class OpenPack:
    """A pack and the runs in its slots."""

    pack: Pack
    runs: dict[int, tuple[Waiting, Progress]]
    """By slot."""
    seconds_per_tick: float | None = None

    def chunk(self) -> int:
        """How many ticks to take at once."""
        ticks = self.pack.ticks_to_epoch_end
        if self.seconds_per_tick is None:
            return min(ticks, 4)
        return min(ticks, max(1, int(ADVANCE_SECONDS / self.seconds_per_tick)))


class Lane:
    """The runs of one training step over one data set, and the packs that they train in.

    Args:
        widest: by step, the widest pack that fits, where a wider one did not; shared by all lanes.
        widths: of eager packs, measured.
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
        widths: Widths,
        pinned: bool,
    ) -> None:
        self.spec, self.data = spec, data
        self.waiting: deque[Waiting] = deque()
        self.packs: list[OpenPack] = []
        self.seconds = 0.0
        self.filling: OpenPack | None = None
        """The pack that `refill` is at; None while it opens one, and at other times."""
        self._options, self._programs = options, programs
        self._pinned = pinned
        self._widest = widest
        self._widths = widths
        self._eager_width: int | None = None
        """None until it is known."""

    @property
    def has_work(self) -> bool:
        """Whether a run waits or trains."""
        return bool(self.waiting) or any(open_pack.runs for open_pack in self.packs)

    @property
    def num_open(self) -> int:
        """Runs waiting or training."""
        return len(self.waiting) + sum(len(open_pack.runs) for open_pack in self.packs)

    @property
    def num_idle(self) -> int:
        """Slots of packs in training that no run is in, and none is about to take."""
        free = sum(p.pack.width - len(p.runs) for p in self.packs if p.runs)
        return max(0, free - len(self.waiting))

    def narrow(self, width: int) -> None:
        """Remember that no pack as wide as this fits."""
        self._widest[self.spec] = max(1, width // 2)

    def add(self, run: Waiting) -> None:
        """Have a run wait for a slot."""
        is_fixed = self._pinned or self._options.width is not None
        if self.has_work and self._eager_width is None and not is_fixed:
            # Here, where a run is being added: what goes wrong is known to be about its step.
            self._eager_width = self._widths.best(self.spec, self.data, run.config, self.full_width)
        self.waiting.append(run)

    def remove(self, key: Hashable) -> bool:
        """Take a run out at once; False where there is none of that key."""
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
            self.packs.append(OpenPack(pack, {}))
            yield from self._fill(self.packs[-1])
        self.filling = None
        self.packs = [open_pack for open_pack in self.packs if open_pack.runs]

    def train(self, open_pack: OpenPack, rules: dict[str, PruningRules]) -> Iterator[Event]:
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
        """The width of a pack with a run for every slot, and how many runs train at once."""
        width = self._options.width or prior_width(self.spec, self.data.device)
        return min(width, self._widest.get(self.spec, width))

    def choose(self) -> tuple[CompiledProgram | None, int]:
        """The program and width of the next pack."""
        full = self.full_width
        fixed = self._pinned or self._options.width is not None
        may_compile = not self._pinned and self._options.compile
        if may_compile and self._programs.folder is not None:
            width = full
            if not fixed:
                limit = min(full, compiled_width(self.spec, self.data.device))
                width = width_for(len(self.waiting), limit)
            job = Job.of(self.spec, width, self.data)
            program = self._programs.get(job)
            if program is not None:
                return program, width
            if self._worth_compiling():
                self._programs.request(job)
        if fixed:
            return None, full
        return None, width_for(len(self.waiting), min(full, self._eager_width or 1))

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

    def _fill(self, open_pack: OpenPack) -> Iterator[Event]:
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
