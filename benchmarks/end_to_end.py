"""Measure what a person sees: a study from POST to end, against the script they would write.

    python -m benchmarks.end_to_end --data-root FOLDER --out benchmarks/results/end_to_end.jsonl

Starts the service (`ridgeline up`, as it comes, on a free port and in folders of its own).  Prints
a row of JSON for each study, sampler and state, the first of which says where and when; progress
goes to the standard error.  It takes an hour or more; `--study digits` ten minutes, `--quick` two.
Nothing else may run on the machine: a script's threads wait for one another at each operation, so
it suffers from company most, and the ratios come out too high (`load_average` in the first row).

Studies: digits 64-64-10, 100 trials of 20 epochs; MNIST 784-128-10, 20 trials of 5 epochs
(`benchmarks.studies`).  They train on the machine's first GPU, or else on its CPU.  `cold`: the
service is up and its worker registered, with an empty folder of compiled programs.  `warm`: the
same service, after such a study has ended and nothing is being compiled any more.  The contenders
take turns: in each round, with a seed of its own, both states, then the script, then the engine.
With random search all train the same configurations; with the others the service has its own
sampler and the scripts Optuna's TPE, and the engine trains the configurations of the service.
`benchmarks.end_to_end_scripts` says what a script is.

* `seconds`: from the POST until the study has ended; a script's from its imports to its end;
* `ratio_to_resident`: the seconds of the script with its data in memory and `Adam(fused=True)` over
  ours; the median over the rounds of the ratio within a round (`…_range`: the extremes);
* `ratio_to_loader`: the same of the script with a `DataLoader`, in the first round alone, since it
  takes long;
* `share_of_engine`: our samples a second over those of the engine called directly, with the same
  configurations given at once and its programs compiled;
* `occupancy`: the share of the time in which the device had a run in training; `idle_slots`: of
  packs in training, those without a run, the mean over four looks a second;
* `programs`: runs by the form of program that trained them, in the last round.

The row `slow_configurations`: 40 random configurations of MNIST, eight a batch size and the worst
corner known among them, each trained alone by the engine; the slowest samples a second over the
median at equal batch size, and the least of these over the batch sizes.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.end_to_end_contenders import STATES, Contenders
from benchmarks.end_to_end_data import make_mnist
from benchmarks.end_to_end_rows import slow_row, study_rows
from benchmarks.rows import count, header, write
from benchmarks.studies import MNIST, SAMPLERS, WORKS, quick
from ridgeline.search.tasks.training import device_names

SLOW = "slow"
_NUM_SLOW_CONFIGS = 40


def main() -> None:
    arguments = _arguments()
    # As Ctrl-C does: whatever was started is ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    write(header("end_to_end", torch.device(device_names()[0])), arguments.out)
    works = {name: quick(work) if arguments.quick else work for name, work in WORKS.items()}
    if arguments.trials is not None:
        works = {name: replace(work, trials=arguments.trials) for name, work in works.items()}
    with tempfile.TemporaryDirectory(prefix="ridgeline-benchmark-") as scratch:
        data_root = arguments.data_root
        if data_root is None:
            data_root = Path(scratch, "data")
            make_mnist(data_root, quick=arguments.quick)
        contenders = Contenders(Path(scratch), data_root)
        for name in arguments.study:
            if name == SLOW:
                continue
            for sampler in arguments.sampler:
                rounds = contenders.measure(
                    works[name],
                    sampler,
                    arguments.state,
                    arguments.rounds,
                    with_loader=arguments.loader,
                )
                num_samples = contenders.num_samples(works[name])
                for row in study_rows(works[name], sampler, num_samples, rounds):
                    write(row, arguments.out)
        if SLOW in arguments.study:
            work = works[MNIST.name]
            num_configs = 6 if arguments.quick else _NUM_SLOW_CONFIGS
            configs, result = contenders.one_by_one(work, num_configs)
            samples_per_run = contenders.num_samples(work) // work.trials
            write(slow_row(work, samples_per_run, configs, result), arguments.out)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.end_to_end",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    studies = (*WORKS, SLOW)
    add("--study", nargs="*", choices=studies, default=[*studies], help="slow: the last row")
    add("--sampler", nargs="*", choices=SAMPLERS, default=[*SAMPLERS])
    add("--state", nargs="+", choices=STATES, default=[*STATES])
    add("--rounds", type=count, help="default 3")
    add("--loader", action=argparse.BooleanOptionalAction, default=True, help="in round one")
    add("--trials", type=count, help="of each study; default as above")
    add("--quick", action="store_true", help="little of everything, to see that it works")
    add(
        "--data-root",
        type=Path,
        metavar="FOLDER",
        help="of the worker, with MNIST's IDX files in its folder mnist; data are made without",
    )
    add("--out", type=Path, help="a file to append the rows to")
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 3)
    if arguments.data_root is not None and not (arguments.data_root / "mnist").is_dir():
        parser.error(f"--data-root: there is no folder mnist in {arguments.data_root}")
    return arguments


if __name__ == "__main__":
    main()
