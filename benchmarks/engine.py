"""Measure the engine: packs against the loops that people write, and refill against static packs.

    python -m benchmarks.engine --device cpu --threads 2 --out benchmarks/results/engine.jsonl

Needs torch and numpy alone, and no network.  Prints a row of JSON for each figure, the first of
which says where and when; progress goes to the standard error.  All contenders train the same
configurations in turn, round by round, in one process; a ratio is the median over the rounds of the
ratio within a round (`…_range`: the extremes), a rate the median of the rates.  Every figure has
the evaluation after each epoch in it, and none the compilation, which is cold and stands in
`compile_seconds`.

* `ratio_to_loader`: to a loop over a `DataLoader`, with `torch.optim.Adam`, run by run;
* `ratio_to_solo`: to a loop over data on the device, with `Adam(fused=True)`, run by run;
* `ratio_to_compiled_solo`: to this engine with one slot;
* `share_of_limit`: of what the device could do at best; see `benchmarks.engine_limits`;
* `ratio_to_best_solo`, `ratio_to_builtin`: of modules; see `benchmarks.engine_modules`;
* `ratio_to_static`, `ratio_to_narrowing`, `ratio_to_pooled_narrowing`: of refill; see
  `benchmarks.engine_refill`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.engine_data import Work, digits_work, mnist_folder, mnist_work
from benchmarks.engine_modules import MODULES, measure_modules, module_work
from benchmarks.engine_refill import BLOCK, measure_refill
from benchmarks.engine_throughput import Options, measure_throughput
from benchmarks.rows import Row, count, header, tell, write

WORKS = ("digits", "mnist")


def main() -> None:
    arguments = _arguments()
    device = torch.device(arguments.device)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    first = header("engine", device)
    write(first, arguments.out)
    with tempfile.TemporaryDirectory() as scratch:
        is_eager = arguments.eager or device.type != "cpu"
        cache = None if is_eager else arguments.cache or Path(scratch, "programs")
        if cache is not None:
            cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        for row in _measure(arguments, device, cache):
            write({"work": row.pop("work"), "device": first["device"], **row}, arguments.out)


def _measure(
    arguments: argparse.Namespace, device: torch.device, cache: Path | None
) -> Iterator[Row]:
    quick = arguments.quick
    works = {"digits": digits_work(quick=quick), "mnist": mnist_work(arguments.mnist, quick=quick)}
    options = Options(
        rounds=arguments.rounds,
        width=arguments.width,
        num_configs=arguments.configs,
        num_serial=arguments.serial_configs,
        quick=quick,
        cache=cache,
    )

    def throughput(work: Work, *, dropout: bool) -> Iterator[Row]:
        return measure_throughput(work, device, options, dropout=dropout, progress=tell)

    for name in arguments.work:
        yield from throughput(works[name], dropout=False)
        if arguments.dropout:
            yield from throughput(works[name], dropout=True)
    for name in arguments.modules:
        work = module_work(name, arguments.mnist, quick=quick)
        yield from measure_modules(work, device, options, progress=tell)
    for name in arguments.refill:
        yield from measure_refill(
            works[name],
            device,
            options,
            num_runs=arguments.runs,
            num_slots=arguments.slots,
            progress=tell,
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engine",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--threads", type=count, help="of torch on a CPU")
    add("--rounds", type=count, help="default 5")
    add("--quick", action="store_true", help="little of everything, to see that it works")
    add("--out", type=Path, help="a file to append the rows to")
    add(
        "--mnist",
        type=mnist_folder,
        metavar="FOLDER",
        help="of MNIST's IDX files; data are made without",
    )
    parts = parser.add_argument_group("parts", "all of them where none is named")
    parts.add_argument("--work", nargs="*", choices=WORKS, help="throughput of these; all")
    parts.add_argument("--modules", nargs="*", choices=MODULES, help="traced modules; all")
    parts.add_argument("--refill", nargs="*", choices=WORKS, help="runs that stop at rungs; digits")
    add("--dropout", action="store_true", help="measure throughput with dropout too")
    add("--configs", type=count, help="for each batch size; default: as many as the widest pack")
    add("--serial-configs", type=count, help="of them a round one by one; default 4")
    add("--width", type=count, help="of the packs; default: the engine's own")
    add("--runs", type=count, help=f"of the refill part, a multiple of {BLOCK}; default 216")
    add("--slots", type=count, default=27, help="of the refill part; default 27")
    add("--eager", action="store_true", help="compile nothing, as on a GPU")
    add("--cache", type=Path, help="keep compiled programs here; compile_seconds is then 0 later")
    arguments = parser.parse_args()
    defaults = {"work": WORKS, "modules": MODULES, "refill": ("digits",)}
    asked = {name: getattr(arguments, name) for name in defaults}
    for name, everything in defaults.items():
        is_left_out = asked[name] is None and any(one is not None for one in asked.values())
        setattr(arguments, name, [] if is_left_out else asked[name] or [*everything])
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 5)
    arguments.serial_configs = arguments.serial_configs or (1 if arguments.quick else 4)
    arguments.runs = arguments.runs or (2 * BLOCK if arguments.quick else 8 * BLOCK)
    if arguments.quick:
        arguments.configs, arguments.width = arguments.configs or 4, arguments.width or 4
    if arguments.runs % BLOCK:
        parser.error(f"--runs must be a multiple of {BLOCK}")
    return arguments


if __name__ == "__main__":
    main()
