"""Third part: modules that the engine traces, against the loops that people write around them.

Of convolutional nets the engine is held against the best loop of all candidates: eager, by
`torch.compile`, and each of them with the channels last.  Of perceptrons it is held against what
the engine has built in for them.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks import engine_nets as nets
from benchmarks.engine_data import (
    NUM_CLASSES,
    NUM_TEST,
    Part,
    configurations,
    made,
    read_mnist,
)
from benchmarks.engine_loops import ModuleLoop, Training
from benchmarks.engine_packs import Packs
from benchmarks.engine_throughput import Options
from benchmarks.rows import Ratio, Row
from ridgeline.search.engine import DeviceData, Mlp, RunConfig
from ridgeline.search.engine.models.base import Model
from ridgeline.search.engine.models.module import ModuleModel

MODULES = ("lenet", "resnet", "digits-perceptron", "mnist-perceptron")

Contender = Callable[[Sequence[RunConfig]], Training]

_LOOPS = {
    "eager": (False, False),
    "channels_last": (True, False),
    "compiled": (False, True),
    "compiled_channels_last": (True, True),
}
"""The loops for images: whether their channels are last, whether `torch.compile` is used."""


@dataclass(frozen=True)
class ModuleWork:
    """Modules that are trained on the same data, and what they are held against.

    Attributes:
        models: by contender; the first is what the row is about.
        has_loops: whether loops of plain torch train the first model too.
        data_kind: `made` or `mnist`.
    """

    name: str
    models: dict[str, Model]
    has_loops: bool
    batch_size: int
    epochs: int
    data_kind: str
    train: Part
    validation: Part

    def device_data(self, device: torch.device) -> DeviceData:
        """The data as the engine has it; its test part is next to nothing."""
        parts = [self.train, self.validation, self.validation.first(NUM_TEST)]
        arrays = [(part.x_ND, part.y_N) for part in parts]
        return DeviceData.from_arrays(*arrays, num_classes=NUM_CLASSES, device=device)


def module_work(name: str, mnist: Path | None, *, quick: bool) -> ModuleWork:
    """The work of this name.

    Args:
        mnist: a folder of MNIST's IDX files; None makes data of the same shape.
    """
    if name == "lenet":
        num_train, num_validation = (640, 128) if quick else (12_000, 1_200)
        if mnist is None:
            train, validation = made(784, num_train, num_validation)
        else:
            train, validation = read_mnist(mnist, num_train, num_validation)
        parts = [part.shaped(1, 28, 28) for part in (train, validation)]
        model = ModuleModel.of(nets.lenet, (1, 28, 28), NUM_CLASSES)
        kind = "made" if mnist is None else "mnist"
        return ModuleWork(name, {"packs": model}, True, 64, 1, kind, *parts)
    if name == "resnet":
        parts = [
            part.shaped(3, 32, 32)
            for part in made(3 * 32 * 32, *((128, 32) if quick else (2_560, 256)))
        ]
        model = ModuleModel.of(nets.resnet, (3, 32, 32), NUM_CLASSES)
        return ModuleWork(name, {"packs": model}, True, 64, 1, "made", *parts)
    if name == "digits-perceptron":
        widths, sizes, batch_size, epochs = (64, 64, 64, NUM_CLASSES), (1_437, 360), 32, 10
    else:
        widths, sizes, batch_size, epochs = (784, 128, 128, NUM_CLASSES), (27_000, 3_000), 128, 1
    if quick:
        sizes, epochs = (400, 100), 1
    shape = (widths[0],)
    models: dict[str, Model] = {
        "packs": ModuleModel.of(nets.ResidualPerceptron, shape, NUM_CLASSES, widths=widths),
        "plain_module": ModuleModel.of(nets.perceptron, shape, NUM_CLASSES, widths=widths),
        "builtin": Mlp(widths[0], widths[1:-1], NUM_CLASSES),
    }
    return ModuleWork(name, models, False, batch_size, epochs, "made", *made(widths[0], *sizes))


def measure_modules(
    work: ModuleWork, device: torch.device, options: Options, *, progress: Callable[[str], None]
) -> Iterator[Row]:
    """A row of what the engine comes to, at its own width, and all candidates beside it."""
    data = work.device_data(device)
    packs = {
        who: Packs(model, data, width=None, cache=options.cache)
        for who, model in work.models.items()
    }
    contenders: dict[str, Contender] = {who: its.train for who, its in packs.items()}
    first, *_ = work.models.values()
    if work.has_loops:
        assert isinstance(first, ModuleModel)
        contenders |= {
            who: _loop(first, data, channels_last=is_last, compiled=is_compiled)
            for who, (is_last, is_compiled) in _LOOPS.items()
        }
    config, *_ = _configs(work, 1)
    compile_seconds = {}
    for who, its in packs.items():
        progress(f"{work.name}: {who}: compiling")
        compile_seconds[who] = round(its.compile(config), 2)
    count = options.num_configs or max(its.num_slots(config) for its in packs.values())
    configs = _configs(work, count)
    few = configs[: options.num_serial]
    for who, train in contenders.items():
        progress(f"{work.name}: {who}: warming up")
        train([replace(one, epochs=1) for one in (configs if who in packs else configs[:1])])
    results = {who: list[Training]() for who in contenders}
    for number in range(options.rounds):
        for who, train in contenders.items():
            result = train(configs if who in packs else few)
            results[who].append(result)
            progress(
                f"{work.name}: round {number + 1} of {options.rounds}: {who}: "
                f"{result.rate:,.0f} samples/s"
            )
    rates = {who: [result.rate for result in its] for who, its in results.items()}
    rate = {who: statistics.median(its) for who, its in rates.items()}
    others = [who for who in contenders if who != "packs"]
    row: Row = {"work": work.name, "batch_size": work.batch_size}
    row["samples_per_s"] = round(rate["packs"])
    if work.has_loops:
        best = max(_LOOPS, key=rate.__getitem__)
        row["best_solo"] = best
        row |= Ratio.of(rates["packs"], rates[best]).columns("ratio_to_best_solo")
    for who in others:
        row |= Ratio.of(rates["packs"], rates[who]).columns(f"ratio_to_{who}")
    row |= {f"{who}_samples_per_s": round(rate[who]) for who in others}
    row["compile_seconds"] = compile_seconds
    row["validation_accuracy"] = {
        who: round(statistics.fmean(its[-1].accuracies[: len(few)]), 4)
        for who, its in results.items()
    }
    row |= {"configs": count, "serial_configs": len(few), "epochs": work.epochs}
    row |= {"num_samples": len(work.train), "rounds": options.rounds, "data": work.data_kind}
    row["programs"] = {who: sorted(results[who][-1].programs) for who in packs}
    yield row


def _configs(work: ModuleWork, count: int) -> list[RunConfig]:
    return configurations(work.batch_size, count=count, epochs=work.epochs, dropout=False)


def _loop(
    model: ModuleModel, data: DeviceData, *, channels_last: bool, compiled: bool
) -> Contender:
    factory, settings = model.function(), json.loads(model.settings)
    loop = ModuleLoop(
        lambda: factory(**settings), data, channels_last=channels_last, compiled=compiled
    )
    return loop.train
