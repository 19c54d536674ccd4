"""Measure how long suggestions take after a long history, on one core.

    OMP_NUM_THREADS=1 python -m benchmarks.search.speed --out benchmarks/results/search_speed.jsonl

The space is one that people have: a learning rate, a batch size, an l2 with a 0, a dropout and a
number of units.  Optuna's `TPESampler()` is asked in the same run, as a script would: for a trial
and each parameter, over and over, while the trials stay open.  Prints a row of JSON for each
sampler and length of the history:

* `milliseconds`: CPU time of 64 suggestions asked for together, the median of the rounds;
* `times_optuna`: how many times as long Optuna takes, where it was asked.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import optuna
import torch

from benchmarks.rows import count, header, tell, write
from ridgeline.search.fields import SamplerName
from ridgeline.search.history import History, TrialStatus
from ridgeline.search.optuna_space import distributions, to_optuna
from ridgeline.search.samplers import sampler_for
from ridgeline.search.space import Config, Space

SPACE = Space.model_validate(
    {
        "learning_rate": {"type": "float", "low": 1e-4, "high": 0.3, "log": True},
        "batch_size": {"type": "values", "values": [16, 32, 64, 128]},
        "l2": {"type": "float", "low": 1e-6, "high": 0.1, "log": True, "zero": True},
        "dropout": {"type": "float", "low": 0, "high": 0.6},
        "units": {"type": "int", "low": 16, "high": 256, "log": True},
    }
)
NUM_SUGGESTIONS = 64
SAMPLERS: tuple[SamplerName, ...] = ("auto", "tpe", "random")


def main() -> None:
    arguments = _arguments()
    write(header("search_speed", torch.device("cpu")), arguments.out)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for length in arguments.trials:
        history = _history(length)
        theirs = None
        if length <= arguments.optuna:
            tell(f"Optuna after {length} trials")
            theirs = _milliseconds(_optuna(history), 1)
            row = {"sampler": "optuna", "trials": length, "milliseconds": round(theirs, 1)}
            write(row, arguments.out)
        for name in SAMPLERS:
            ours = _milliseconds(_ours(name, history), arguments.rounds)
            row = {"sampler": name, "trials": length, "milliseconds": round(ours, 1)}
            if theirs is not None:
                row["times_optuna"] = round(theirs / ours, 1)
            write(row, arguments.out)


def _milliseconds(suggest: Callable[[int], None], num_rounds: int) -> float:
    suggest(num_rounds)  # what is imported and set up once
    taken = []
    for number in range(num_rounds):
        begun = time.process_time()
        suggest(number)
        taken.append(1_000 * (time.process_time() - begun))
    return median(taken)


def _history(length: int) -> History:
    history = History(SPACE)
    drawn = sampler_for("random").suggest(SPACE, history, range(length), 1, "minimize")
    for suggestion in drawn:
        state, value = TrialStatus.COMPLETE, _value(suggestion.config)
        history.put(suggestion.number, suggestion.config, enqueued=False, state=state, value=value)
    return history


def _value(config: Config) -> float:
    """Some value that has a best place, and is not smooth."""
    rate, dropout = float(config["learning_rate"]), float(config["dropout"])
    rough = math.sin(1e3 * rate + 10 * dropout + float(config["units"]))
    return (math.log10(rate) + 2) ** 2 + dropout + 0.1 * rough


def _ours(name: SamplerName, history: History) -> Callable[[int], None]:
    numbers = range(len(history), len(history) + NUM_SUGGESTIONS)

    def suggest(seed: int) -> None:
        sampler_for(name).suggest(SPACE, history, numbers, seed, "minimize")

    return suggest


def _optuna(history: History) -> Callable[[int], None]:
    axes = distributions(SPACE)
    trials = []
    for number in range(len(history)):
        params = to_optuna(SPACE, history.config(number))
        own = {name: axes[name] for name in params}
        value = float(history.values[number])
        trials.append(optuna.create_trial(params=params, distributions=own, value=value))
    study = optuna.create_study()
    study.add_trials(trials)

    def suggest(seed: int) -> None:
        study.sampler = optuna.samplers.TPESampler(seed=seed)
        for _ in range(NUM_SUGGESTIONS):
            trial = study.ask()
            trial.suggest_float("learning_rate", 1e-4, 0.3, log=True)
            trial.suggest_int("batch_size", 16, 128, log=True)
            if not trial.suggest_categorical("l2_zero", [False, True]):
                trial.suggest_float("l2", 1e-6, 0.1, log=True)
            trial.suggest_float("dropout", 0, 0.6)
            trial.suggest_int("units", 16, 256, log=True)

    return suggest


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search.speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--trials", nargs="*", type=count, default=[1_000, 10_000, 100_000])
    add("--optuna", type=count, default=10_000, help="the longest history that Optuna is asked of")
    add("--rounds", type=count, default=7)
    add("--out", type=Path, help="a file to append the rows to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
