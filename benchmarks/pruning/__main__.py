"""Measure how many epochs pruners save, and what that costs, on learning curves of real runs.

    OMP_NUM_THREADS=1 python -m benchmarks.pruning --out benchmarks/results/pruning.jsonl

A study searches a table of curves (`benchmarks.pruning.train`) for the validation accuracy, as the
service would: with so many slots, asynchronously.  Prints a row of JSON for each table, sampler and
pruner:

* `epochs`: trained, as a share of those of all trials in full; the mean over the studies;
* `accuracy`: of the best complete trial after all of its epochs, the mean over the studies;
* `difference`: from the same studies without a pruner, and `difference_se` its standard error;
* `other_difference`: the same for the chosen configuration with another seed, by which nothing was
  chosen.  The best of many noisy values is partly luck, of which less is left where fewer trials
  are trained in full; this has none.

`halving-3` and `halving-no-prediction` are halving with the lowest rung 3, and with the rungs of
`curve`; `…-freezing`: what was pruned goes on once the rules would not stop it any more;
`one-epoch`: each trial for one epoch, then the best tenth in full.
"""

from __future__ import annotations

import argparse
import multiprocessing
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch

from benchmarks.pruning.replay import Found, Study, replay
from benchmarks.pruning.train import TABLES
from benchmarks.rows import Row, count, header, tell, write
from ridgeline.search.pruners import (
    CurvePruner,
    HalvingPruner,
    HyperbandPruner,
    MedianPruner,
)

_CURVE = CurvePruner(name="curve")
_HALVING = HalvingPruner(name="halving")
_NONE = Study("", "random", 0, num_trials=1, num_slots=1)
PRUNERS = {
    "none": _NONE,
    "median": replace(_NONE, pruner=MedianPruner(name="median")),
    "halving": replace(_NONE, pruner=_HALVING),
    "halving-3": replace(_NONE, pruner=HalvingPruner(name="halving", min_epochs=3)),
    "halving-no-prediction": replace(
        _NONE,
        pruner=HalvingPruner(name="halving", eta=_CURVE.eta, min_epochs=_CURVE.min_epochs),
    ),
    "hyperband": replace(_NONE, pruner=HyperbandPruner(name="hyperband")),
    "curve": replace(_NONE, pruner=_CURVE),
    "halving-freezing": replace(_NONE, pruner=_HALVING, freezes=True),
    "curve-freezing": replace(_NONE, pruner=_CURVE, freezes=True),
    "one-epoch": _NONE,
}


def main() -> None:
    arguments = _arguments()
    write(header("pruning", torch.device("cpu")), arguments.out)
    kinds = [*product(arguments.tables, arguments.samplers, ["none", *arguments.pruners])]
    studies = [
        replace(
            PRUNERS[pruner],
            table=table,
            sampler=sampler,
            seed=seed,
            num_trials=arguments.trials,
            num_slots=arguments.slots,
            one_epoch=max(1, arguments.trials // 10) if pruner == "one-epoch" else None,
        )
        for table, sampler, pruner in kinds
        for seed in range(arguments.seeds)
    ]
    found: list[Found] = []
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        for one in pool.imap(replay, studies):
            found.append(one)
            if len(found) % 100 == 0:
                tell(f"{len(found)} of {len(studies)} studies")
    whole: list[Found] = []
    for place, (table, sampler, pruner) in enumerate(kinds):
        its = found[place * arguments.seeds : (place + 1) * arguments.seeds]
        whole = its if pruner == "none" else whole
        row = {"table": table, "sampler": sampler, "pruner": pruner}
        row |= {"trials": arguments.trials, "slots": arguments.slots}
        write(row | _figures(its, whole), arguments.out)


def _figures(found: list[Found], whole: list[Found]) -> Row:
    """What studies came to, against the same ones without a pruner."""
    row: Row = {
        "studies": len(found),
        "epochs": round(float(np.mean([one.share for one in found])), 3),
        "accuracy": round(float(np.mean([one.accuracy for one in found])), 4),
    }
    for name, field in (("difference", "accuracy"), ("other_difference", "other_accuracy")):
        differences = np.array(
            [
                getattr(one, field) - getattr(other, field)
                for one, other in zip(found, whole, strict=True)
            ]
        )
        row[name] = round(float(differences.mean()), 4)
        row[f"{name}_se"] = round(float(differences.std(ddof=1)) / len(found) ** 0.5, 4)
    return row


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pruning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    pruners = [name for name in PRUNERS if name != "none"]
    add("--tables", nargs="*", choices=TABLES, default=[*TABLES])
    add("--samplers", nargs="*", choices=["random", "auto"], default=["random", "auto"])
    add("--pruners", nargs="*", choices=pruners, default=pruners)
    add("--trials", type=count, default=100)
    add("--slots", type=count, default=10, help="runs that train at once; default 10")
    add("--seeds", type=int, choices=range(2, 1000), default=10, metavar="N", help="default 10")
    add("--processes", type=count, default=2)
    add("--out", type=Path, help="a file to append the rows to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
