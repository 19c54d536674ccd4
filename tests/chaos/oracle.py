"""What must hold of a study once all is quiet, asked of the database itself.

Plain SQL and `optuna.load_study`: nothing of the service's own code says here that it is right.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.storages import RDBStorage
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.engine import make_url

from tests.chaos.campaign import Tally

Values = Mapping[int, Any]
"""By the number of a trial: all of its outcome that may not depend on who trained it, and when."""


def check(
    url: str, study: str, *, num_trials: int, max_charges: int, values: Values | None = None
) -> Tally:
    """What is lost, twice or wrong in a study that has ended.

    Args:
        num_trials: how many it should have.
        values: of the undisturbed study; left out, they are not compared.
    """
    with reading(url) as connection:
        tally = _check_own(connection, study, num_trials, max_charges)
        own = _finished(connection, study)
        found = outcomes(connection, study)
    _check_copy(url, study, own, tally)
    for number, value in (values or {}).items():
        if found.get(number) != value:
            tally.wrong_values += 1
            tally.problems.append(f"{study}: trial {number} has {found.get(number)}, not {value}")
    return tally


def reading(url: str) -> Connection:
    """A connection to look at the database with, and no more."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        parsed = parsed.set(database=f"file:{parsed.database}", query={"mode": "ro", "uri": "true"})
        return create_engine(parsed, poolclass=NullPool).connect()
    engine = create_engine(parsed, poolclass=NullPool)
    return engine.connect().execution_options(postgresql_readonly=True)


def outcomes(connection: Connection, study: str) -> dict[int, Any]:
    """The `Values` of a study."""
    rows = connection.execute(
        text(
            "SELECT t.number, t.state, t.reason, t.config, t.value, r.replicate, r.seed, r.state,"
            " r.value, r.kept_epoch, r.metrics"
            " FROM rl_trials t JOIN rl_studies s ON s.id = t.study_id"
            " JOIN rl_runs r ON r.trial_id = t.id"
            " WHERE s.name = :study ORDER BY t.number, r.replicate"
        ),
        {"study": study},
    )
    values: dict[int, Any] = {}
    for number, state, reason, config, value, *run in rows:
        *of_run, metrics = run
        mine = values.setdefault(number, [state, reason, _plain(config), value])
        mine.append([*of_run, _plain(metrics)])
    return values


def _plain(value: Any) -> Any:
    """A JSON column: PostgreSQL's driver has parsed it, SQLite's has not."""
    return json.loads(value) if isinstance(value, str) else value


def _check_own(connection: Connection, study: str, num_trials: int, max_charges: int) -> Tally:
    tally = Tally()

    def ask(statement: str) -> list[Any]:
        return list(connection.execute(text(statement), {"study": study}))

    trials = ask(
        "SELECT t.number, t.state FROM rl_trials t JOIN rl_studies s ON s.id = t.study_id"
        " WHERE s.name = :study"
    )
    times = Counter(number for number, _ in trials)
    for number in range(num_trials):
        if times[number] == 0:
            tally.lost += 1
            tally.problems.append(f"{study}: trial {number} is missing")
    for number, state in trials:
        if state in ("WAITING", "RUNNING"):
            tally.lost += 1
            tally.problems.append(f"{study}: trial {number} is {state}")
    extra = sum(times.values()) - sum(1 for number in times if number < num_trials)
    if extra:
        tally.twice += extra
        tally.problems.append(f"{study}: {extra} trials too many")
    for number, replicate, state, trial_state, charges, has_value in ask(
        "SELECT t.number, r.replicate, r.state, t.state, r.charges, r.value IS NOT NULL"
        " FROM rl_runs r JOIN rl_trials t ON t.id = r.trial_id"
        " JOIN rl_studies s ON s.id = t.study_id WHERE s.name = :study"
    ):
        run = f"{study}: run {replicate} of trial {number}"
        if state in ("WAITING", "RUNNING"):
            tally.lost += 1
            tally.problems.append(f"{run} is {state} and its trial {trial_state}")
        elif state == "COMPLETE" and not has_value:
            tally.lost += 1
            tally.problems.append(f"{run} is COMPLETE without a value")
        if charges > max_charges:
            tally.problems.append(f"{run} has {charges} charges")
    for number, replicate, epochs, last in ask(
        "SELECT t.number, r.replicate, COUNT(*), MAX(p.epoch)"
        " FROM rl_reports p JOIN rl_runs r ON r.id = p.run_id"
        " JOIN rl_trials t ON t.id = r.trial_id JOIN rl_studies s ON s.id = t.study_id"
        " WHERE s.name = :study GROUP BY t.number, r.replicate HAVING COUNT(*) <> MAX(p.epoch)"
    ):
        tally.lost += 1
        tally.problems.append(
            f"{study}: run {replicate} of trial {number} has {epochs} reports of {last} epochs"
        )
    num_open, counted = ask(
        "SELECT s.num_open, s.next_number FROM rl_studies s WHERE s.name = :study"
    )[0]
    if num_open != 0 or counted != len(trials):
        tally.problems.append(f"{study}: counts {num_open} open trials of {counted}")
    return tally


def _finished(connection: Connection, study: str) -> dict[int, tuple[str, float | None]]:
    rows = connection.execute(
        text(
            "SELECT t.number, t.state, t.value FROM rl_trials t"
            " JOIN rl_studies s ON s.id = t.study_id WHERE s.name = :study"
            " AND t.finished_at IS NOT NULL"
        ),
        {"study": study},
    )
    return {number: (state, value) for number, state, value in rows}


def _check_copy(
    url: str, study: str, own: Mapping[int, tuple[str, float | None]], tally: Tally
) -> None:
    """What Optuna reads is what our own tables say."""
    storage = RDBStorage(url)
    try:
        copy = optuna.load_study(study_name=study, storage=storage).trials
    finally:
        storage.remove_session()
        storage.engine.dispose()
    for trial in copy:
        state, value = own.get(trial.number, ("missing", None))
        # Optuna keeps no value of a trial that failed.
        if (trial.state.name, trial.value) != (state, value):
            tally.wrong_values += 1
            tally.problems.append(
                f"{study}: trial {trial.number} is {state} with {value},"
                f" Optuna reads {trial.state.name} with {trial.value}"
            )
    numbers = [trial.number for trial in copy]
    if sorted(numbers) != sorted(own):
        tally.lost += len(own.keys() - set(numbers))
        tally.twice += len(numbers) - len(set(numbers))
        tally.problems.append(f"{study}: Optuna reads the trials {numbers}")
