"""A study that Optuna itself has searched, and its table as Optuna writes it."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import optuna
from optuna.study._dataframe import _create_records_and_aggregate_column, _flatten_columns

NUM_TRIALS = 24


def search(path: Path, name: str = "wing drag") -> optuna.Study:
    """A study in an SQLite file, of which some trials were pruned and one failed."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        study_name=name,
        storage=f"sqlite:///{path}",
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=1),
    )
    study.set_user_attr("team", "wings")
    study.optimize(_objective, n_trials=NUM_TRIALS, catch=ValueError)
    optuna.logging.set_verbosity(verbosity)
    return study


def _objective(trial: optuna.Trial) -> float:
    lr = trial.suggest_float("lr", 1e-5, 0.1, log=True)
    layers = trial.suggest_int("layers", 1, 4)
    momentum = trial.suggest_float("momentum", 0.5, 0.9, step=0.1)
    shape = trial.suggest_categorical("shape", ["round", "flat", None])
    if shape == "flat":
        trial.suggest_int("ribs", 4, 40 if trial.number < 12 else 60)
    trial.report(lr, 1)
    if trial.number % 5 == 4:
        raise optuna.TrialPruned
    if trial.number == 3:
        raise ValueError("diverged")
    return lr * layers + momentum


def table(study: optuna.Study) -> str:
    """`study.trials_dataframe().to_csv()`, from the same records, without pandas."""
    attributes = (
        "number",
        "value" if len(study.directions) == 1 else "values",
        *("datetime_start", "datetime_complete"),
        *("duration", "params", "user_attrs", "system_attrs", "state"),
    )
    records, columns = _create_records_and_aggregate_column(study, attributes)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["", *_flatten_columns(columns)])
    for number, record in enumerate(records):
        values = [record.get(column) for column in columns]
        writer.writerow([number, *("" if value is None else value for value in values)])
    return text.getvalue()
