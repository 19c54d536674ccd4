"""How wide a pack to open: as wide as throughput still rises and memory allows.

A slot more costs memory, and past the cache or the parallelism of the device it gains nothing.
`measure` shows what each width is worth for a training step and a device.  A compiled program takes
tens of seconds to make, so its width is `compiled_width`, which follows from such tables; that of
packs that call torch operation by operation, which may be slower than solo, is measured in
`Widths`.  So is whether a program of one width pays once it is there.

# K slots
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from ridgeline.search.engine import native
from ridgeline.search.engine.compilation import Compilation
from ridgeline.search.engine.compiled import CompiledProgram, Job, digest
from ridgeline.search.engine.config import RunConfig
from ridgeline.search.engine.data import DeviceData
from ridgeline.search.engine.memory import bytes_per_slot
from ridgeline.search.engine.native import SCRATCH_PREFIX
from ridgeline.search.engine.pack import Pack
from ridgeline.search.engine.products import multiplies_with_onednn
from ridgeline.search.engine.program import Form
from ridgeline.search.engine.spec import StepSpec
from ridgeline.search.scratch import scratch_folder

_log = logging.getLogger(__name__)

WIDTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""The widths that packs have: few, so that programs are used again."""

MAX_WIDTH = {"cpu": 32, "cuda": 256}
"""By kind of device; on a CPU more slots gain 3 % at most, by 64-64-10 with batches of 16."""

ROOM = {"cpu": 8, "cuda": 16}
"""By kind of device, the slots that a pack has at least whose free slots cost little: those of
native packs are not computed, and a GPU takes no longer for 16 small ones than for one.  Runs come
one by one where a study waits for what came of others, and join a pack that has room."""

FIXED_WIDTHS = (1, 4, 16, 32, 64)
"""The widths of packs whose program, or traced graph, is for one width: making one takes time."""

GAIN = 1.05
"""A width twice as wide must be so much faster: runs in narrow packs end sooner."""

_MKL_FLOPS = 4e7
"""Of the products of a compiled step, past which one run keeps every core busy where MKL takes
them: 784-128-10 gains 11 % from company at batches of 64, 2 % at 128, and loses 2 % at 256."""

_CACHE_BYTES = 32 * 2**20
"""Of a CPU's last-level cache; past it MNIST's 784-128-10 with batches of 512 loses 3 %."""

_MEMORY_SHARE = 0.5
"""Of the memory that is free, what packs may take; the rest is for data sets and neighbours."""

_ROUND_SECONDS, _NUM_ROUNDS = 0.005, 12
"""How long a width is measured, in ticks that it takes alone: longer than another process is in the
way, and short, since a run waits for it."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether it is one of torch's ways to say so, or Python's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # The CPU's allocator has no class of its own (c10/core/impl/alloc_cpu.cpp).
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


@dataclass(frozen=True)
class Measurement:
    """What one width came to; `bytes` is the memory of the pack."""

    width: int
    form: Form
    samples_per_s: float
    bytes: int


def prior_width(spec: StepSpec, device: torch.device) -> int:
    """The width to take unmeasured; on one kind of device always the same for a step.

    On a CPU the slots' working set stays within the cache.  On a GPU every width up to the largest
    pays for networks that are narrow enough for packs to pay at all (pytorch issue 182631).
    """
    if not spec.model.packs(device.type):
        return 1
    limit = MAX_WIDTH.get(device.type, 1)
    if device.type == "cpu":
        limit = min(limit, max(1, _CACHE_BYTES // bytes_per_slot(spec, 2)))
    return max(width for width in WIDTHS if width <= limit)


def compiled_width(spec: StepSpec, device: torch.device) -> int:
    """`prior_width` for a compiled program: 1 where that is as fast."""
    flops, dtype = spec.model.step_flops(spec.batch_size), getattr(torch, spec.dtype)
    is_busy = device.type == "cpu" and flops > _MKL_FLOPS
    if is_busy and not multiplies_with_onednn(flops, device, dtype):
        return 1
    return prior_width(spec, device)


def free_bytes(device: torch.device) -> int:
    """What packs may take of the memory that is free now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch has set aside and not given out is free to it.
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    else:
        free = _free_host_bytes()
    return int(free * _MEMORY_SHARE)


def _free_host_bytes() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(li.split()[1]) * 1024 for li in lines if li.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def measure(
    spec: StepSpec,
    data: DeviceData,
    config: RunConfig,
    *,
    form: Form,
    widths: Sequence[int],
    threads: int = 1,
    folder: Path | None = None,
) -> Iterator[Measurement]:
    """Train copies of a run at each of some rising widths; ends where memory does.

    Args:
        threads: of a CPU, that a pack trains on.
        folder: of programs; what is not there is compiled.  Needs none to step eagerly.

    Raises:
        RuntimeError: the program cannot be compiled.
    """
    spec = spec.regularising(config.regularisers)
    program: CompiledProgram | None = None
    kernels: native.Kernels | None = None
    if form != "eager":
        assert folder is not None
        if (kernels := native.kernels(folder)) is None:
            raise RuntimeError("the native kernels cannot be compiled; the log says why")
    for width in widths:
        if form == "compiled":
            assert folder is not None
            assert kernels is not None
            job = Job.of(spec, data, threads, width)
            if not (folder / job.name).exists():
                Compilation(job, folder / job.name, hurry=True).finish()
            program = CompiledProgram(folder / job.name, kernels, job)

        def pack(width: int = width, program: CompiledProgram | None = program) -> Pack:
            its_kernels = None if program is not None else kernels
            return Pack(
                spec, data, width=width, threads=threads, compiled=program, kernels=its_kernels
            )

        try:
            if width > 1 and program is not None and program.sizes is not None:
                _check_slots_are_alone(pack, config)
            speed = _samples_per_second(pack(), config)
        except Exception as exc:
            if not is_out_of_memory(exc):
                raise
            return
        yield Measurement(width, form, speed, width * bytes_per_slot(spec, width))


def _check_slots_are_alone(pack: Callable[[], Pack], config: RunConfig) -> None:
    """Train an epoch in other slots and beside runs that diverge: no bit of a run may change.

    Of programs that are written by hand tests know this; those of people's modules are tried.

    Raises:
        RuntimeError: some do.
    """
    one, other = pack(), pack()
    for slot in range(one.width):
        run = replace(config, seed=slot)
        one.load(slot, run)
        diverging = replace(run, learning_rate=1e30)
        other.load(one.width - 1 - slot, run if slot % 2 == 0 else diverging)
    for it in (one, other):
        it.tick(it.ticks_to_epoch_end)
    slots = range(0, one.width, 2)
    places = [one.width - 1 - slot for slot in slots]
    results = zip(
        *(map(one.weights, slots), one.epoch_metrics(slots)),
        *(map(other.weights, places), other.epoch_metrics(places)),
        strict=True,
    )
    for mine, metrics, its, its_metrics in results:
        same = (
            mine.parameters_P.equal(its.parameters_P)
            and mine.statistics_Q.equal(its.statistics_Q)
            and metrics == its_metrics
        )
        if not same and mine.parameters_P.isfinite().all():
            raise RuntimeError("a slot's last digits change with its place and its neighbours")


def _samples_per_second(pack: Pack, config: RunConfig) -> float:
    """The best of some rounds of ticks, each about as long as a clock can tell."""
    for slot in range(pack.width):
        pack.load(slot, replace(config, seed=slot))

    def seconds_for(num_ticks: int) -> float:
        before = time.perf_counter()
        pack.tick(num_ticks)
        if pack.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - before

    seconds_for(1)  # warms up
    per_tick = seconds_for(1) if pack.steps_per_epoch > 1 else _ROUND_SECONDS
    num_ticks = max(1, int(_ROUND_SECONDS / per_tick))
    seconds = []
    for _ in range(_NUM_ROUNDS):
        count = min(num_ticks, pack.ticks_to_epoch_end)
        seconds.append(seconds_for(count) / count)
    return pack.width * pack.spec.batch_size / min(seconds)


def best_width(measured: list[Measurement], form: Form) -> int:
    """The widest that is faster, by GAIN, than all narrower ones; never one slower than solo."""
    best = None
    for m in sorted((m for m in measured if m.form == form), key=lambda m: m.width):
        if best is None or m.samples_per_s > GAIN * best.samples_per_s:
            best = m
    return 1 if best is None else best.width


class Widths:
    """How wide packs of each step pay on a device, measured once; and which have free slots free.

    Args:
        folder: keeps what was measured for later processes; None keeps it in this one.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._best: dict[tuple[StepSpec, Form], int] = {}
        self._narrows: dict[StepSpec, bool] = {}
        self._measured: dict[tuple[StepSpec, Form, tuple[int, ...]], list[Measurement]] = {}

    def best(
        self,
        spec: StepSpec,
        data: DeviceData,
        config: RunConfig,
        limit: int,
        threads: int,
        form: Form = "eager",
    ) -> int:
        """The width to take, of those up to `limit`, on so many threads of a CPU.

        Args:
            config: any run of the step.
            form: eager, or native where kernels are at hand.
        """
        if limit == 1:
            return 1
        if (spec, form) not in self._best:
            known = FIXED_WIDTHS if spec.model.fixes_sizes else WIDTHS
            widths = [width for width in known if width <= limit]
            measured = self._measure(spec, data, config, widths, threads, form)
            self._best[spec, form] = best_width(measured, form)
        return min(limit, self._best[spec, form])

    def narrows(self, spec: StepSpec) -> bool | None:
        """Whether native packs of the step compute no free slots; None before `try_narrowing`."""
        return self._narrows.get(spec)

    def try_narrowing(
        self, spec: StepSpec, data: DeviceData, width: int, kernels: native.Kernels
    ) -> None:
        """Find that out, with a pack of so many slots."""
        self._narrows[spec] = Pack(spec, data, width=width, kernels=kernels).narrows()

    def known(self, spec: StepSpec, form: Form) -> int | None:
        """What `best` has found, without a limit."""
        return self._best.get((spec, form))

    def pays(
        self,
        spec: StepSpec,
        data: DeviceData,
        config: RunConfig,
        width: int,
        threads: int,
        form: Form,
    ) -> bool:
        """Whether a compiled program, which is at hand, is faster than packs of another form.

        Args:
            width: of the program, and the most that packs of the other form have.
        """
        widths = [other for other in FIXED_WIDTHS if other < width]
        others = self._measure(spec, data, config, [*widths, width], threads, form)
        compiled = self._measure(spec, data, config, [width], threads, "compiled")
        fastest = max((m.samples_per_s for m in others), default=0.0)
        return any(m.samples_per_s > fastest for m in compiled)

    def _measure(
        self,
        spec: StepSpec,
        data: DeviceData,
        config: RunConfig,
        widths: Sequence[int],
        threads: int,
        form: Form,
    ) -> list[Measurement]:
        """Measure what has not been measured, by this process or one before it."""
        key = (spec, form, tuple(widths))
        if key not in self._measured:
            file = None
            if self._folder is not None:
                what = [spec.as_dict(), spec.model.source, form, widths, threads]
                file = self._folder / f"{digest(what, data.device.type)}.widths.json"
            measured = _read(file)
            if not measured:
                measured = list(
                    measure(
                        spec,
                        data,
                        config,
                        form=form,
                        widths=widths,
                        threads=threads,
                        folder=self._folder,
                    )
                )
                _write(file, measured)
            self._measured[key] = measured
        return self._measured[key]


def _read(file: Path | None) -> list[Measurement]:
    """What was measured before; nothing where the file is missing or damaged."""
    if file is None:
        return []
    try:
        measured = [Measurement(**row) for row in json.loads(file.read_text())]
        return measured if all(m.width in WIDTHS and m.samples_per_s > 0 for m in measured) else []
    except (OSError, ValueError, TypeError, RecursionError):
        return []


def _write(file: Path | None, measured: Sequence[Measurement]) -> None:
    if file is None:
        return
    # Whole or not at all: other processes read it.
    try:
        with scratch_folder(SCRATCH_PREFIX, file.parent) as scratch:
            draft = scratch / file.name
            draft.write_text(json.dumps([asdict(one) for one in measured]))
            os.replace(draft, file)
    except OSError as exc:  # it is measured again next time
        _log.warning("measured widths cannot be kept: %s", exc)
