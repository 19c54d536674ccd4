"""First part: the same configurations by four contenders, in turn, at every batch size.

The loops and the engine at one slot train a few configurations a round, others each round, since
they train one after the other and their speed does not depend on how many there are.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.engine_data import Work, configurations
from benchmarks.engine_limits import BYTES_COUNTED, FLOPS_COUNTED, Cost, Device
from benchmarks.engine_loops import Training, train_resident, train_with_loader
from benchmarks.engine_packs import Packs, Solo
from benchmarks.rows import Ratio, Row
from ridgeline.search.engine import RunConfig

Contender = Callable[[Sequence[RunConfig]], Training]

PACKS = "packs"
SERIAL = ("loader", "solo", "compiled_solo")
"""What packs are held against, by the name of the ratio."""


@dataclass(frozen=True)
class Options:
    """How to measure; `cache` None steps eagerly, `width` None takes the engine's own."""

    rounds: int
    width: int | None
    num_configs: int | None
    num_serial: int
    quick: bool
    cache: Path | None


def measure_throughput(
    work: Work,
    device: torch.device,
    options: Options,
    *,
    dropout: bool,
    progress: Callable[[str], None],
) -> Iterator[Row]:
    """Rows of the device and its limits, of every batch size, and of all of them together."""
    name = f"{work.name}-dropout" if dropout else work.name
    data = work.device_data(device)
    packs = Packs(work.shape, data, width=options.width, cache=options.cache)
    alone = Solo(work.shape, data, cache=options.cache)
    contenders: dict[str, Contender] = {
        "loader": lambda configs: train_with_loader(work, device, configs),
        "solo": lambda configs: train_resident(data, work.shape, configs),
        "compiled_solo": alone.train,
        PACKS: packs.train,
    }
    count = options.num_configs or max(
        packs.num_slots(_configs(work, batch_size, 1, dropout)[0])
        for batch_size in work.batch_sizes
    )
    configs = {size: _configs(work, size, count, dropout) for size in work.batch_sizes}
    compile_seconds: dict[str, dict[int, float]] = {"compiled_solo": {}, PACKS: {}}
    for size, (config, *_) in configs.items():
        progress(f"{name}: batch size {size}: compiling")
        compile_seconds["compiled_solo"][size] = alone.compile(config)
        compile_seconds[PACKS][size] = packs.compile(config)
        for train in contenders.values():  # warm up
            train([config])

    limits = Device(device, quick=options.quick)
    results = {who: {size: list[Training]() for size in configs} for who in contenders}
    turns = [
        [(number * options.num_serial + i) % count for i in range(min(options.num_serial, count))]
        for number in range(options.rounds)
    ]
    for number in range(options.rounds):
        limits.measure()
        for size, all_of_size in configs.items():
            few = [all_of_size[i] for i in turns[number]]
            for who, train in contenders.items():
                result = train(all_of_size if who == PACKS else few)
                results[who][size].append(result)
                progress(
                    f"{name}: round {number + 1} of {options.rounds}: batch size {size}: "
                    f"{who}: {result.rate:,.0f} samples/s"
                )

    yield from _limit_rows(name, work, limits)
    for sizes in (*([size] for size in configs), list(configs)):
        row: Row = {"work": name, "batch_size": sizes[0] if len(sizes) == 1 else None}
        rates = {
            who: [_rate([by_size[size][i] for size in sizes]) for i in range(options.rounds)]
            for who, by_size in results.items()
        }
        row["samples_per_s"] = round(statistics.median(rates[PACKS]))
        for who in SERIAL:
            row |= Ratio.of(rates[PACKS], rates[who]).columns(f"ratio_to_{who}")
        limit = limits.limit([Cost.of(work, size) for size in sizes])
        row["share_of_limit"] = round(row["samples_per_s"] / limit, 4)
        for who, seconds in compile_seconds.items():
            field = "compile_seconds" if who == PACKS else f"{who}_compile_seconds"
            row[field] = round(sum(seconds[size] for size in sizes), 2)
        row |= {f"{who}_samples_per_s": round(statistics.median(rates[who])) for who in SERIAL}
        # Of the same configurations for all: those whose turn it was.
        accuracies: dict[str, list[float]] = {
            who: [
                training.accuracies[i if who == PACKS else turn.index(i)]
                for size in sizes
                for training, turn in zip(by_size[size], turns, strict=True)
                for i in turn
            ]
            for who, by_size in results.items()
        }
        row["validation_accuracy"] = {
            who: round(statistics.fmean(values), 4) for who, values in accuracies.items()
        }
        row |= {"configs": count, "serial_configs": len(turns[0]), "epochs": work.epochs}
        row |= {"rounds": options.rounds, "data": work.data}
        row["programs"] = sorted(
            {program for size in sizes for t in results[PACKS][size] for program in t.programs}
        )
        yield row


def _configs(work: Work, batch_size: int, count: int, dropout: bool) -> list[RunConfig]:
    return configurations(batch_size, count=count, epochs=work.epochs, dropout=dropout)


def _rate(trainings: Sequence[Training]) -> float:
    """Samples a second over trainings of equally many samples."""
    return sum(t.num_samples for t in trainings) / sum(t.seconds for t in trainings)


def _limit_rows(name: str, work: Work, limits: Device) -> Iterator[Row]:
    yield {
        "work": "peak",
        "during": name,
        "flops_per_s": round(limits.peak),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }
    yield {"work": "bandwidth", "during": name, "bytes_per_s": round(limits.bandwidth)}
    for size in work.batch_sizes:
        cost = Cost.of(work, size)
        yield {
            "work": f"limit-{name}",
            "batch_size": size,
            "flops_per_sample": round(cost.flops, 1),
            "bytes_per_sample": round(cost.bytes, 1),
            "limit_samples_per_s": round(limits.limit([cost])),
            "flops_counted": FLOPS_COUNTED,
            "bytes_counted": BYTES_COUNTED,
        }
