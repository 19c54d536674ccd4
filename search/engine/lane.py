"""A lane: the runs that can share one program, waiting or in the slots of its packs."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ridgeline.search.engine.admission import (
    FIXED_WIDTHS,
    ROOM,
    Widths,
    compiled_width,
    prior_width,
)
from ridgeline.search.engine.compiled import CompiledProgram, Job
from ridgeline.search.engine.config import Regulariser
from ridgeline.search.engine.data import DeviceData
from ridgeline.search.engine.native import Kernels
from ridgeline.search.engine.open_pack import OpenPack, Waiting
from ridgeline.search.engine.pack import Pack
from ridgeline.search.engine.program import Form, ProgramIdentity
from ridgeline.search.engine.programs import Programs
from ridgeline.search.engine.saving import SAVE_SECONDS, Saving
from ridgeline.search.engine.spec import StepSpec
from ridgeline.search.engine.threads import threads_for_step
from ridgeline.search.events import Began, Event

_SAVED_PER_TICK, _SAVED_SHARE = 1e-4, 0.1
"""What a compiled step saves: the calls of its operations, and passes over memory.  As measured
for 64-64-10 and 784-128-10 with batches of 16 to 512, against the native form."""

_ROOM_TO_GO_ON = 2
"""How many slots packs may have, as a multiple of what they have otherwise, while runs go on in the
programs of their checkpoints, which may be of several widths; or while runs wait whose regularisers
a compiled pack lacks."""

_WIDE = 8
"""Runs of a pack, past which another thread gains more than a wider pack."""

_LEAST_SECONDS = 0.25
"""That a pack has left at least where some of its runs move to a new one, in some milliseconds."""

_ALL_WIDTHS = 0
"""In the place of a width, where one program is for all."""

_log = logging.getLogger(__name__)


def savable_seconds(num_ticks: float, seconds: float) -> float:
    """Of so many ticks that take so long, what a compiled program would save."""
    return num_ticks * _SAVED_PER_TICK + seconds * _SAVED_SHARE


@dataclass(frozen=True)
class LaneOptions:
    """How a device trains.

    Attributes:
        width: of every pack; None takes what suits the runs and the device.
        compile: whether programs may be compiled.
        cache: the folder of compiled programs and measurements; None compiles nothing.
        memory_bytes: what a pack may take; None goes by what is free.
        threads: of a CPU, to train on.
        save_seconds: as the `seconds` of a `Saving`.
    """

    width: int | None = None
    compile: bool = True
    cache: Path | None = None
    memory_bytes: int | None = None
    threads: int = 1
    save_seconds: float | None = SAVE_SECONDS


@dataclass(frozen=True)
class Plan:
    """A pack to open: for which run first, and with which program, or else which kernels.

    `regularises` are those of a compiled program; other packs add them for each run.
    """

    run: Waiting
    program: CompiledProgram | None
    kernels: Kernels | None
    width: int
    regularises: tuple[Regulariser, ...] = ()


class Lane:
    """The runs of one training step over one data set, and the packs that they train in.

    Args:
        widest: by step, the widest pack that fits, where a wider one did not; shared by all lanes.
        widths: of packs, measured.
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
        self.filling: OpenPack | None = None
        """The pack that `refill` is at; None while it opens one, and at other times."""
        self._options, self._programs = options, programs
        self._pinned = pinned
        self._widest = widest
        self._widths = widths
        flops = spec.model.step_flops(spec.batch_size)
        self._threads = threads_for_step(flops, data.device, options.threads)
        self._side_by_side = options.threads if self._threads == 1 else 1
        self._num_lanes = 1
        self._measured_width: int | None = None
        """Of packs that call torch operation by operation; None until it is known."""
        self._pays: dict[Job, bool] = {}
        """Whether a program of fixed sizes does, of those that are at hand."""

    @property
    def full_spec(self) -> StepSpec:
        """Its step with the regularisers of all its runs."""
        kinds = (kind for run in self._runs() for kind in run.config.regularisers)
        return self.spec.regularising(kinds)

    def _runs(self) -> Iterator[Waiting]:
        """Those that wait, and those that train."""
        yield from self.waiting
        for open_pack in self.packs:
            yield from (run for run, _ in open_pack.runs.values())

    @property
    def needs_all_threads(self) -> bool:
        """Whether one of its packs keeps the whole device busy."""
        return self._side_by_side == 1

    @property
    def has_work(self) -> bool:
        """Whether a run waits or trains."""
        return bool(self.waiting) or any(p.runs or p.has_turn for p in self.packs)

    @property
    def num_open(self) -> int:
        """Runs waiting or training."""
        return len(self.waiting) + sum(len(p.runs) - len(p.removed) for p in self.packs)

    @property
    def num_idle(self) -> int:
        """Slots that packs compute without a run, and that none is about to take."""
        free = sum(p.pack.num_computed - len(p.runs) for p in self.packs if p.runs)
        return max(0, free - len(self.waiting))

    def narrow(self, width: int) -> None:
        """Remember that no pack as wide as this fits."""
        self._widest[self.spec] = max(1, width // 2)

    @property
    def needs_measuring(self) -> bool:
        """Whether `add` measures how wide its packs are to be."""
        if self._has_fixed_width:
            return False
        if self._is_native_at_any_width:
            return self.full_width > 1 and self._widths.narrows(self.spec) is None
        return self.has_work and self._measured_width is None

    def add(self, run: Waiting) -> None:
        """Have a run wait for a slot."""
        # Measured here, where a run is being added: what goes wrong is known to be about its step.
        if self.needs_measuring and self._is_native_at_any_width:
            assert self._kernels is not None
            width = min(self.full_width, ROOM["cpu"])
            self._widths.try_narrowing(self.spec, self.data, width, self._kernels)
        elif self.needs_measuring:
            self._measured_width = self._widths.best(
                *(self.spec, self.data, run.config, self.full_width, self._threads),
                form=self._uncompiled_form,
            )
        self.waiting.append(run)

    @property
    def _has_fixed_width(self) -> bool:
        return self._pinned or self._options.width is not None

    @property
    def _is_native_at_any_width(self) -> bool:
        return self._has_native_form and self._takes_all_sizes

    def remove(self, key: Hashable) -> bool:
        """Take a run out at once; False where there is none of that key."""
        for run in self.waiting:
            if run.key == key:
                self.waiting.remove(run)
                return True
        for open_pack in self.packs:
            for slot, (run, _) in open_pack.runs.items():
                if run.key == key and slot not in open_pack.removed:
                    if open_pack.has_turn:
                        open_pack.removed[slot] = key
                    else:
                        open_pack.free(slot)
                    return True
        return False

    def refill(self, seconds: float, num_lanes: int) -> Iterator[Event]:
        """Put waiting runs into free slots, opening a pack where there is none.

        Args:
            seconds: of device time that a new pack is taken to have had.
            num_lanes: that have work, this one included, among which the threads are shared.
        """
        self.filling, self._num_lanes = None, num_lanes
        if self.waiting:
            yield from self._refill(seconds)
        else:
            self._share_out()
        for open_pack in self.packs:
            if not self.waiting and open_pack.num_free and not open_pack.has_turn:
                self.filling = open_pack
                open_pack.narrow()
        self.filling = None
        self.packs = [p for p in self.packs if p.runs or p.has_turn]

    def _refill(self, seconds: float) -> Iterator[Event]:
        self._begin_anew_what_cannot_go_on()
        # Narrow ones, from before a width was known, are to end.
        for open_pack in sorted(self.packs, key=lambda its: its.pack.width, reverse=True):
            if not open_pack.has_turn:
                yield from self._fill(open_pack)
        self.filling = None
        if (plan := self.plan()) is not None:
            spec = self.spec.regularising(plan.regularises)
            pack = self._open(spec, plan.width, plan.program, plan.kernels, seconds)
            yield from self._fill(pack)

    def _open(
        self,
        spec: StepSpec,
        width: int,
        program: CompiledProgram | None,
        kernels: Kernels | None,
        seconds: float,
    ) -> OpenPack:
        """Open a pack without runs, which is taken to have had so much device time."""
        pack = Pack(
            spec,
            self.data,
            width=width,
            threads=self._threads,
            compiled=program,
            kernels=kernels,
        )
        self.packs.append(OpenPack(pack, {}, seconds, Saving(self._options.save_seconds)))
        return self.packs[-1]

    def _share_out(self) -> None:
        """Have more packs go on with runs of one that has more than its share.

        As when other lanes have ended, whose threads would be idle.  Only where free slots cost
        nothing: the runs go on in packs as wide as theirs, since they keep their program.
        """
        share = self._share
        for full in [p for p in self.packs if len(p.runs) > share and not p.has_turn]:
            self.filling = full
            if not full.pack.can_narrow or full.seconds_left < _LEAST_SECONDS:
                continue
            while (excess := len(full.runs) - share) > 0:
                pack, kernels = full.pack, self._kernels_here
                other = self._open(pack.spec, pack.width, None, kernels, full.seconds)
                full.move(min(excess, share), other)

    @property
    def has_untried_program(self) -> bool:
        """Whether `try_programs` has something to do."""
        return any(True for _ in self._untried())

    def try_programs(self) -> None:
        """Measure whether programs of fixed sizes that have come to hand pay; no pack trains."""
        for job in dict.fromkeys(self._untried()):
            assert job.sizes is not None
            self._pays[job] = False
            kinds = {*job.regularises}
            run = next(one for one in self._runs() if kinds.issuperset(one.config.regularisers))
            spec = self.spec.regularising(kinds)
            try:
                self._pays[job] = self._widths.pays(
                    *(spec, self.data, run.config, job.sizes.width, self._threads),
                    form=self._uncompiled_form,
                )
            except Exception as exc:
                _log.warning("the compiled program %s cannot be used: %s", job.name, exc)
            else:
                if not self._pays[job]:
                    _log.info("the compiled program %s is no faster, and not used", job.name)

    def _untried(self) -> Iterator[Job]:
        if self.has_work and self._may_have_program and self.spec.model.fixes_sizes:
            for kinds in dict.fromkeys(run.config.regularisers for run in self._runs()):
                for job in self._jobs_for(kinds):
                    if job not in self._pays and self._programs.get(job) is not None:
                        yield job

    @property
    def job(self) -> Job:
        """The program that suits its runs best; all of them can train in it."""
        return self._job(self.full_spec.regularises, self._program_widths[0])

    def _jobs_for(self, kinds: tuple[Regulariser, ...]) -> Iterator[Job]:
        """The programs that may train runs which begin with these regularisers, the best first."""
        for its in dict.fromkeys((self.full_spec.regularises, kinds)):
            for width in self._program_widths:
                yield self._job(its, width)

    @property
    def _program_widths(self) -> list[int]:
        """Those of the programs for runs that begin, the one that suits them best first.

        Of programs of fixed sizes that is the widest of those that there are enough runs for to
        fill more than half of the packs; then come narrower ones, and those too wide last.
        """
        if not self.spec.model.fixes_sizes:
            return [_ALL_WIDTHS]
        if self._options.width is not None:
            return [self.full_width]
        limit = min(self.full_width, self._measured_width or 1)
        widths = [width for width in FIXED_WIDTHS if width <= limit]
        most = max(1, (2 * self.num_open - 1) // self._side_by_side)
        return [*reversed([w for w in widths if w <= most]), *(w for w in widths if w > most)]

    def _job(self, kinds: Iterable[Regulariser], width: int) -> Job:
        """The program with these regularisers; of that width, where it is of one."""
        return Job.of(self.spec.regularising(kinds), self.data, self._threads, width)

    @property
    def _usual_width(self) -> int:
        """Of the packs that runs begin in, where there are enough of them."""
        _, program = self._program_for(self.full_spec.regularises)
        if program is None or program.sizes is None:
            return self.full_width
        return program.sizes.width

    @property
    def full_width(self) -> int:
        """The width of a pack with a run for every slot."""
        width = self._options.width or prior_width(self.spec, self.data.device)
        return min(width, self._widest.get(self.spec, width))

    def plan(self) -> Plan | None:
        """The next pack to open; None where there is no room for one, or no run waits for it."""
        # Those whose turn it is take more runs after it; no other has room.
        share = self._share
        num_free = {p: min(p.num_free, share - len(p.runs)) for p in self.packs if p.has_turn}
        num_slots = sum(p.pack.width for p in self.packs if p.runs)
        room, forms = self._usual_width * self._side_by_side, self._forms()
        for run in sorted(self.waiting, key=lambda run: run.saved is None):
            fitting = (p for p, n in num_free.items() if n > 0 and self._fits(run, p, forms))
            place = next(fitting, None)
            is_apart = run.saved is not None or not all(
                p.pack.takes(run.config) for p in self.packs
            )
            if place is not None:
                num_free[place] -= 1
            elif num_slots < (_ROOM_TO_GO_ON * room if is_apart else room):
                return self._plan_for(run)
        return None

    def _is_one_without_pack(self) -> bool:
        """Whether a run is to go on in a program that no pack has."""
        programs = {run.saved.program for run in self.waiting if run.saved is not None}
        return bool(programs - {p.pack.program for p in self.packs if p.runs})

    def _plan_for(self, run: Waiting) -> Plan:
        """The pack to open for a run that no other can take."""
        if run.saved is not None:
            saved = run.saved.program
            form, width, kinds = saved.form, saved.width, saved.regularisers
            program = self._programs.get(self._job(kinds, width)) if form == "compiled" else None
            kernels = self._kernels_here if form == "native" else None
            return Plan(run, program, kernels, width, kinds)
        full = self.full_width
        if self._pinned:
            return Plan(run, None, None, full)
        kinds, program = self._program_for(run.config.regularisers)
        if program is not None and program.sizes is not None:
            return Plan(run, program, None, program.sizes.width, kinds)
        kernels = None if program is not None else self._kernels
        if self._options.width is not None:
            return Plan(run, program, kernels, full, kinds)
        if program is not None:
            full = min(full, compiled_width(self.spec, self.data.device))
        elif kernels is None or not self._takes_all_sizes:
            known = self._widths.known(self.spec, self._uncompiled_form)
            full = min(full, self._measured_width or known or 1)
        width = min(sum(one.saved is None for one in self.waiting), self._share)
        if program is None and self._has_room:
            width = max(width, ROOM[self.data.device.type])
        return Plan(run, program, kernels, min(width, full), kinds)

    @property
    def _share(self) -> int:
        """How many runs a pack takes at most, so that no thread is idle for want of a pack.

        Each lane has its share of the threads, a pack for each; more where they are wide all the
        same, since lanes do not end together.
        """
        if self._has_fixed_width:
            return self.full_width
        # Others cannot be shared out later, see `_share_out`.
        num_lanes = self._num_lanes if self._has_room else 1
        least = max(1, self._side_by_side // num_lanes)
        num_packs = max(least, min(self._side_by_side, self.num_open // _WIDE))
        return max(1, -(-self.num_open // num_packs))

    @property
    def _has_room(self) -> bool:
        """Whether free slots of its packs cost little."""
        if self.data.device.type == "cpu":
            return self._is_native_at_any_width and self._widths.narrows(self.spec) is True
        return self._takes_all_sizes

    @property
    def _uncompiled_form(self) -> Form:
        return "eager" if self._kernels is None else "native"

    def _forms(self) -> dict[tuple[Regulariser, ...], Form]:
        """Of the packs that runs begin in, by their regularisers."""
        return {
            kinds: self._uncompiled_form if self._program_for(kinds)[1] is None else "compiled"
            for kinds in {run.config.regularisers for run in self.waiting}
        }

    def _fits(
        self, run: Waiting, open_pack: OpenPack, forms: dict[tuple[Regulariser, ...], Form]
    ) -> bool:
        """Whether a free slot of the pack is one for the run; `forms` are those of fresh runs."""
        pack = open_pack.pack
        if run.saved is not None:
            return pack.program == run.saved.program
        return pack.program.form == forms[run.config.regularisers] and pack.takes(run.config)

    def _begin_anew_what_cannot_go_on(self) -> None:
        """Let runs go whose checkpoints are of a program that is not at hand here."""
        for i, run in enumerate(self.waiting):
            if run.saved is not None and not self._has(run.saved.program):
                _log.info(
                    "a run of %d epochs begins anew: here is no %s",
                    *(run.saved.state.epochs_done, run.saved.program),
                )
                self.waiting[i] = replace(run, saved=None)

    def _has(self, program: ProgramIdentity) -> bool:
        """Whether a pack of this program can be opened."""
        device, dtype, threads = self.data.device, self.data.dtype, self._threads
        mine = ProgramIdentity.current(
            *(program.form, program.width, device, dtype),
            threads if device.type == "cpu" else 0,
            program.regularisers,
            self.spec.model.source,
        )
        width = program.width
        if mine != program or not 1 <= width <= self.full_width:
            return False
        if self._options.width not in (None, width) and width != self.full_width:
            return False
        if program.form == "compiled":
            job = self._job(program.regularisers, width)
            return self._options.compile and self._programs.get(job) is not None
        return program.form == "eager" or self._kernels_here is not None

    @property
    def wants_program(self) -> bool:
        """Whether a compiled program would train its runs, and there is none."""
        return self._may_have_program and self._programs.get(self.job) is None

    def savable_seconds(self) -> float:
        """What the runs that wait or train would save by a compiled program; 0 where unknown."""
        speeds = [(p.seconds_per_tick, p.pack.width) for p in self.packs if p.seconds_per_tick]
        if not speeds:
            return 0.0
        per_tick, width = min(speeds, key=lambda speed: speed[0] / speed[1])
        epochs = sum(run.config.epochs for run in self.waiting)
        for open_pack in self.packs:
            epochs += sum(r.config.epochs - p.epochs_trained for r, p in open_pack.runs.values())
        num_ticks = epochs * self.spec.num_steps / width
        return savable_seconds(num_ticks, num_ticks * per_tick)

    def _program_for(
        self, kinds: tuple[Regulariser, ...]
    ) -> tuple[tuple[Regulariser, ...], CompiledProgram | None]:
        """The compiled program in which a run with these regularisers begins, and those it has.

        It has those of all the lane's runs, so that they share packs; until that is compiled, the
        run's own alone.
        """
        jobs = self._jobs_for(kinds) if self._may_have_program else []
        for job in jobs:
            pays = job.sizes is None or self._pays.get(job, False)
            if pays and (program := self._programs.get(job)) is not None:
                return job.regularises, program
        return (), None

    @property
    def _may_have_program(self) -> bool:
        """Whether a compiled program is the fastest form; native steps are faster, and at hand."""
        if self._pinned or not self._options.compile or not self.spec.model.compiles:
            return False
        if self.spec.weighs:
            return False  # the last bit of a compiled step with weights depended on the slot
        if self.data.device.type != "cpu":
            return False  # see docs/decisions/0044
        return not (self._has_native_form and self.spec.native() is not None)

    @property
    def _has_native_form(self) -> bool:
        """Whether runs begin with native kernels, where they begin uncompiled."""
        return self._kernels is not None

    @property
    def _takes_all_sizes(self) -> bool:
        """Whether its native form is as fast at every width, and so needs no measuring."""
        return not self.spec.model.fixes_sizes or self.spec.native() is not None

    @property
    def _kernels(self) -> Kernels | None:
        return None if self._pinned else self._kernels_here

    @property
    def _kernels_here(self) -> Kernels | None:
        """Those of packs on one thread, whether or not runs begin with them."""
        may_have = self._threads == 1 and self._options.compile
        return self._programs.kernels if may_have else None

    def _fill(self, open_pack: OpenPack) -> Iterator[Event]:
        self.filling, pack, forms = open_pack, open_pack.pack, self._forms()
        # Those that begin would else keep packs going for ever that have to make room.
        are_held, share = self._is_one_without_pack(), self._share
        for slot in range(pack.width):
            if slot in open_pack.runs:
                continue
            if len(open_pack.runs) >= share:
                return
            fitting = (run for run in self.waiting if self._fits(run, open_pack, forms))
            run = next((run for run in fitting if run.saved is not None or not are_held), None)
            if run is None:
                return
            self.waiting.remove(run)
            # Named before it is touched: what fails from here on is known to be about it too.
            progress = open_pack.put(slot, run)
            yield Began(run.key, str(pack.program))
            if run.saved is None:
                pack.load(slot, run.config)
            else:
                progress.resume(run.saved)
