"""Srivastava et al., "Dropout" (2014), table 9: test errors on MNIST by regulariser.

    python -m benchmarks.dropout_table9 --mnist FOLDER --threads 2
    python -m benchmarks.dropout_table9 --mnist FOLDER --full --device cuda --tf32 --seconds 300

A perceptron of three hidden layers of rectified linear units, 784-1024-1024-2048-10 in the paper
and with `--full`; by default, for a CPU, a smaller one on some of the rows.  All arms have the same
method.  Each is tuned by a random search of as many configurations over the learning rate and what
the arm adds (λ, the bound c of max-norm), chosen by the accuracy on validation rows.  The winner is
trained again with fresh seeds, with `--full` on the rows for validation too, as in the paper, and
only these runs are judged by the 10,000 test images.  Adam, whose rate falls along a cosine, in
place of the paper's SGD with momentum and a million steps.

Needs torch, numpy and scipy alone, and no network; without `--mnist` data are made.  Prints a row
of JSON for each arm, the most telling first, so that they are there where `--seconds` end the rest:

* `test_error`, `interval`: in %, the mean over fresh seeds and its 95 % interval;
* `scores`: of each seed; `published`: table 9's;
* `config`: of the winner, and `validation_error` in %, its own in the search; `searched`: of all.

Then one for each pair of arms: the mean difference on common seeds with its 95 % interval, the
p-value, corrected for the number of pairs, and the verdict; see `ridgeline.search.comparing`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path

import torch

from benchmarks.dropout_table9_runs import (
    PUBLISHED,
    SEARCH_SEED,
    Parts,
    Size,
    Trainer,
    configurations,
)
from benchmarks.engine_data import mnist_folder
from benchmarks.rows import Row, count, header, tell, write
from ridgeline.search.bounds import Bounds
from ridgeline.search.comparing import Interval, differences, mean_of, sentence
from ridgeline.search.engine import DeviceData, Outcome

FULL = Size(
    hidden=(1024, 1024, 2048),
    train=50_000,
    validation=10_000,
    joins=True,
    batch_size=256,
    configs=10,
    search_epochs=15,
    seeds=10,
    epochs=50,
)
SMALL = Size(
    hidden=(256, 256, 512),
    train=3_000,
    validation=5_000,
    joins=False,
    batch_size=32,
    configs=6,
    search_epochs=40,
    seeds=6,
    epochs=40,
)
QUICK = Size(
    hidden=(16, 16, 32),
    train=300,
    validation=100,
    joins=True,
    batch_size=32,
    configs=2,
    search_epochs=1,
    seeds=3,
    epochs=2,
)

ORDER = ("dropout+max_norm", "l2", "none", "dropout+l2", "max_norm", "l2+l1")
"""In which arms are trained: those first that the question is about."""


def main() -> None:
    arguments = _arguments()
    device = torch.device(arguments.device)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    if arguments.tf32:
        torch.set_float32_matmul_precision("high")
    size: Size = arguments.size
    data = {"data": "made" if arguments.mnist is None else "mnist", "tf32": arguments.tf32}
    write({**header("dropout_table9", device), **data, **asdict(size)}, arguments.out)
    deadline = None if arguments.seconds is None else time.monotonic() + arguments.seconds
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(size, device, Path(scratch), deadline, tell)
        for row in _rows(trainer, size, Parts.read(arguments.mnist, size), device):
            write(row, arguments.out)


def _rows(trainer: Trainer, size: Size, parts: Parts, device: torch.device) -> Iterator[Row]:
    to_choose, to_tell = parts.to_choose(device), parts.to_tell(device, joins=size.joins)
    errors: dict[str, list[float | None]] = {}
    for arm in ORDER:
        try:
            row = _arm(trainer, size, arm, to_choose, to_tell)
        except TimeoutError as exc:
            tell(str(exc))
            break
        errors[arm] = row["scores"]
        yield row
    in_the_tables_order = {arm: errors[arm] for arm in PUBLISHED if arm in errors}
    for one in differences(in_the_tables_order, "minimize"):
        yield {
            "pair": [one.arm, one.other],
            "difference": _rounded(one.value),
            "interval": _ends(one.interval),
            "p_value": None if one.p_value is None else float(f"{one.p_value:.3g}"),
            "num_pairs": one.num_pairs,
            "verdict": one.verdict,
            "sentence": sentence(one, "test error in %", Bounds(0, 100)),
        }


def _arm(trainer: Trainer, size: Size, arm: str, to_choose: DeviceData, to_tell: DeviceData) -> Row:
    """Tune an arm, and train the winner with fresh seeds.

    Raises:
        TimeoutError: there was no time for all of it.
    """
    start = time.monotonic()
    configs = configurations(arm, size)
    searched = [
        _error(outcome, "validation_accuracy")
        for outcome in trainer.train(
            f"{arm}: search",
            [(SEARCH_SEED, config) for config in configs],
            to_choose,
            size.search_epochs,
        )
    ]
    # The first of the best; a run that diverged is none of them.
    comparable = [100.0 if error is None else error for error in searched]
    best = comparable.index(min(comparable))
    seeds = range(SEARCH_SEED + 1, SEARCH_SEED + 1 + size.seeds)
    outcomes = trainer.train(
        f"{arm}: fresh seeds", [(seed, configs[best]) for seed in seeds], to_tell, size.epochs
    )
    scores = [_error(outcome, "test_accuracy") for outcome in outcomes]
    mean = mean_of(arm, scores)
    return {
        "arm": arm,
        "test_error": _rounded(mean.value),
        "interval": _ends(mean.interval),
        "published": PUBLISHED[arm],
        "scores": scores,
        "config": configs[best],
        "validation_error": searched[best],
        "searched": searched,
        "seconds": round(time.monotonic() - start, 1),
    }


def _error(outcome: Outcome, metric: str) -> float | None:
    """In %; None of a run that diverged."""
    return _rounded(100 * (1 - outcome.metrics[metric])) if outcome.metrics else None


def _ends(interval: Interval | None) -> list[float | None] | None:
    return None if interval is None else [_rounded(interval.low), _rounded(interval.high)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.dropout_table9",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--threads", type=count, help="of torch on a CPU")
    add("--mnist", type=mnist_folder, metavar="FOLDER", help="of MNIST's four IDX files")
    add("--out", type=Path, help="a file to append the rows to")
    add("--seconds", type=float, help="after which the arms that are done are told")
    add("--tf32", action="store_true", help="have a GPU multiply in TensorFloat-32")
    sizes = parser.add_mutually_exclusive_group()
    for name, size in (("full", FULL), ("quick", QUICK)):
        sizes.add_argument(
            f"--{name}", dest="size", action="store_const", const=size, help=_told(size)
        )
    parser.set_defaults(size=SMALL)
    parts = parser.add_argument_group("sizes", f"by default {_told(SMALL)}")
    names = [field.name for field in fields(Size) if field.name != "joins"]
    for name in names:
        many = "+" if name == "hidden" else None
        parts.add_argument(f"--{name.replace('_', '-')}", type=count, nargs=many)
    arguments = parser.parse_args()
    own = {name: getattr(arguments, name) for name in names}
    own["hidden"] = own["hidden"] and tuple(own["hidden"])
    arguments.size = replace(
        arguments.size, **{name: value for name, value in own.items() if value is not None}
    )
    if arguments.tf32 and arguments.device != "cuda":
        parser.error("--tf32 is for --device cuda")
    return arguments


def _told(size: Size) -> str:
    return ", ".join(f"{name} {value}" for name, value in asdict(size).items())


if __name__ == "__main__":
    main()
