"""Second part: runs that stop at rungs, as successive halving stops them, and three ways to pack.

Of each 27 runs 18 stop at epoch 1, 6 at 3, 2 at 9 and the last at 27, in an order drawn once.

* refill: all runs wait, and a slot that is freed is taken at once; when none waits any more, the
  free slots of native steps are not computed;
* static (as HFTA does): K runs start together, and the next K when all of them have ended;
* narrowing (as Hydro does): at each rung the survivors of a pack move to the smallest of some fixed
  widths that holds them, through states as a checkpoint keeps them
  (here K, K/3, K/9 and K/27: none fits this halving better);
* pooled narrowing: the same, with the survivors of all packs gathered at each rung.  Every run then
  waits at its rung for all others, and its state lies outside of the device meanwhile.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch

from benchmarks.engine_data import Work, configurations
from benchmarks.engine_loops import Training, synchronise
from benchmarks.engine_packs import ACCURACY, Packs, num_threads, open_pack
from benchmarks.engine_throughput import Options
from benchmarks.rows import Ratio, Row
from ridgeline.search.engine import DeviceData, Pack, RunConfig
from ridgeline.search.engine.pack import SlotState

RUNGS = (1, 3, 9, 27)
_ETA = 3
_STOPS = (1,) * 18 + (3,) * 6 + (9,) * 2 + (27,)
BLOCK = len(_STOPS)
_SEED = 1

T = TypeVar("T")


def runs_with_stops(batch_size: int, count: int) -> list[RunConfig]:
    """Runs that end at the rungs: in each BLOCK of them as many at each as halving leaves."""
    generator = np.random.default_rng(_SEED)
    stops = [int(s) for _ in range(count // BLOCK) for s in generator.permutation(_STOPS)]
    configs = configurations(batch_size, count=count, epochs=1, dropout=False)
    return [replace(c, epochs=stop) for c, stop in zip(configs, stops, strict=True)]


def measure_refill(
    work: Work,
    device: torch.device,
    options: Options,
    *,
    num_runs: int,
    num_slots: int,
    progress: Callable[[str], None],
) -> Iterator[Row]:
    """One row: refilled slots, held against the packs that are not."""
    name, data = f"refill-{work.name}", work.device_data(device)
    runs = runs_with_stops(work.refill_batch_size, num_runs)
    # Packs train side by side, a thread of the CPU each; so do those of all other contenders.
    num_packs = num_threads(device)
    width = -(-num_slots // num_packs)
    num_slots = width * num_packs
    lanes = Packs(work.shape, data, width=width, cache=options.cache)
    progress(f"{name}: compiling")
    compile_seconds = lanes.compile(runs[0])
    widths = sorted({-(-width // _ETA**i) for i in range(len(RUNGS))})
    crews = [
        {w: open_pack(runs[0], work.shape, data, w, options.cache)[0] for w in widths}
        for _ in range(num_packs)
    ]
    full = [{width: crew[width]} for crew in crews]
    contenders: dict[str, Callable[[Sequence[RunConfig]], Training]] = {
        "refill": lanes.train,
        "static": lambda runs: side_by_side(full, runs, data, cohort=width),
        "narrowing": lambda runs: side_by_side(crews, runs, data, cohort=width),
        "pooled_narrowing": lambda runs: side_by_side(crews, runs, data, cohort=len(runs)),
    }
    short = [replace(run, epochs=1) for run in runs[: num_slots + 1]]
    lanes.train(short)  # warm up
    for crew in crews:
        for w, pack in crew.items():
            narrowing({w: pack}, short[:w], data, cohort=w)

    results = {who: list[Training]() for who in contenders}
    for number in range(options.rounds):
        for who, train in contenders.items():
            result = train(runs)
            results[who].append(result)
            progress(
                f"{name}: round {number + 1} of {options.rounds}: {who}: "
                f"{result.rate:,.0f} samples/s, occupancy {result.occupancy:.2f}"
            )

    rates = {who: [t.rate for t in trainings] for who, trainings in results.items()}
    row: Row = {"work": name, "batch_size": work.refill_batch_size}
    row["samples_per_s"] = round(statistics.median(rates["refill"]))
    for who in ("static", "narrowing", "pooled_narrowing"):
        row |= Ratio.of(rates["refill"], rates[who]).columns(f"ratio_to_{who}")
    row["occupancy"] = {
        who: round(statistics.fmean(t.occupancy for t in trainings), 4)
        for who, trainings in results.items()
    }
    row["validation_accuracy"] = {
        who: round(statistics.fmean(a for t in trainings for a in t.accuracies), 4)
        for who, trainings in results.items()
    }
    row |= {"runs": num_runs, "slots": num_slots, "widths": widths, "rungs": RUNGS}
    row["compile_seconds"] = round(compile_seconds, 2)
    row |= {"rounds": options.rounds, "data": work.data}
    row["programs"] = sorted({program for t in results["refill"] for program in t.programs})
    yield row


def side_by_side(
    crews: Sequence[Mapping[int, Pack]], runs: Sequence[RunConfig], data: DeviceData, *, cohort: int
) -> Training:
    """`narrowing` on several threads at once, each with packs and an equal part of the runs."""
    synchronise(data.device)
    start = time.perf_counter()
    num_crews = len(crews)
    with ThreadPoolExecutor(num_crews) as threads:
        jobs = [
            threads.submit(narrowing, crew, runs[i::num_crews], data, cohort=cohort)
            for i, crew in enumerate(crews)
        ]
        parts = [job.result() for job in jobs]
    seconds = time.perf_counter() - start
    return Training(
        num_samples=sum(part.num_samples for part in parts),
        seconds=seconds,
        accuracies=tuple(accuracy for part in parts for accuracy in part.accuracies),
        occupancy=sum(p.occupancy * p.seconds for p in parts) / sum(p.seconds for p in parts),
    )


def narrowing(
    packs: Mapping[int, Pack], runs: Sequence[RunConfig], data: DeviceData, *, cohort: int
) -> Training:
    """Packs that shrink to the widths at hand: `cohort` runs at a time, which meet at each rung.

    Args:
        packs: idle ones by their width, the widest of which takes the runs at first.

    Raises:
        RuntimeError: a run diverged.
    """
    synchronise(data.device)
    start = time.perf_counter()
    accuracies: list[float] = []
    used = held = 0  # slots, times epochs
    for group in _groups(runs, cohort):
        survivors: list[tuple[RunConfig, SlotState | None]] = [(run, None) for run in group]
        begin = 0
        for rung in RUNGS:
            going_on: list[tuple[RunConfig, SlotState | None]] = []
            for riders in _groups(survivors, max(packs)):
                pack = packs[min(width for width in packs if width >= len(riders))]
                for slot, (config, state) in enumerate(riders):
                    pack.load(slot, config, state)
                last = _train_epochs(pack, len(riders), rung - begin)
                for slot, (config, _) in enumerate(riders):
                    if config.epochs > rung:
                        going_on.append((config, pack.state(slot)))
                    else:
                        accuracies.append(last[slot])
                        _finish(pack, slot)
                    pack.free(slot)
                used += len(riders) * (rung - begin)
                held += pack.width * (rung - begin)
            survivors, begin = going_on, rung
    synchronise(data.device)
    return Training(
        num_samples=used * data.train.num_samples,
        seconds=time.perf_counter() - start,
        accuracies=tuple(accuracies),
        occupancy=used / held,
    )


def _train_epochs(pack: Pack, num_runs: int, num_epochs: int) -> list[float]:
    """Train the first slots, with metrics after each epoch; their accuracies after the last.

    Raises:
        RuntimeError: a run diverged.
    """
    accuracies: list[float] = []
    for _ in range(num_epochs):
        pack.tick(pack.ticks_to_epoch_end)
        metrics = pack.epoch_metrics(range(num_runs))
        if not np.isfinite(metrics).all():
            raise RuntimeError("a run diverged")
        accuracies = [values[ACCURACY] for values in metrics]
    return accuracies


def _finish(pack: Pack, slot: int) -> None:
    """What `Lanes` does for the outcome of a run: test its weights."""
    pack.test([pack.weights(slot)]).tolist()


def _groups(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[i : i + size] for i in range(0, len(items), size))
