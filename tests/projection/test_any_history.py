"""Whatever happens to the trials of a study, and whichever projections are left out."""

from __future__ import annotations

import itertools
from typing import Any

import optuna
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from ridgeline.service.lifecycle import OPEN_RUN
from ridgeline.service.store.tables import reports, runs, trials
from tests.projection.book import METRIC, Book, Page, spec
from tests.projection.conftest import OpenReader

MOVES = ("report", "report", "hand back", "complete", "fail", "prune", "add")
Move = tuple[str, int, int, int]

moves = st.tuples(st.sampled_from(MOVES), st.integers(0, 2), st.integers(0, 1), st.integers(1, 3))
transactions = st.lists(
    st.tuples(st.lists(moves, min_size=1, max_size=6), st.booleans()), min_size=3, max_size=12
)
names = (f"study-{index}" for index in itertools.count())


def play(page: Page, num_trials: int, move: Move) -> int:
    """Make a move where it is legal, and count the trials; each has two runs."""
    kind, number, replicate, amount = move
    if kind == "add":
        page.add(num_trials, replicates=2)
        return num_trials + 1
    if number >= num_trials or page.run(number, replicate).state not in OPEN_RUN:
        return num_trials
    if page.run(number, replicate).state == "WAITING":
        page.start(number, replicate)
    run = page.run(number, replicate)
    match kind:
        case "report":
            epochs = range(run.last_epoch + 1, run.last_epoch + 1 + amount)
            page.report(number, {epoch: page.next_revision() / 7 for epoch in epochs}, replicate)
        case "hand back":
            page.hand_back(number, replicate, keep_epochs=min(amount - 1, run.last_epoch))
        case "complete":
            page.end(number, replicate, value=page.next_revision() / 7)
        case "prune":
            page.end(number, replicate, state="PRUNED")
        case "fail":  # with its reports gone, as after a hand-back
            page.hand_back(number, replicate, keep_epochs=min(amount - 1, run.last_epoch))
            page.end(number, replicate, state="FAIL", reason="cancelled")
    return num_trials


def expected(engine: Engine, study_id: int) -> list[tuple[Any, ...]]:
    """(number, state, value, steps) of each trial, told from our tables in the plainest way."""
    found = []
    with engine.connect() as connection:
        for trial in connection.execute(
            select(trials).where(trials.c.study_id == study_id).order_by(trials.c.number)
        ).all():
            curves = []
            for run in connection.execute(select(runs).where(runs.c.trial_id == trial.id)).all():
                rows = connection.execute(select(reports).where(reports.c.run_id == run.id))
                curve = {row.epoch: row.metrics[METRIC] for row in rows}
                curves.append((curve, run.state not in OPEN_RUN))
            steps = {}
            for epoch in range(1, 100):
                reported = [curve[epoch] for curve, _ in curves if epoch in curve]
                if reported and all(
                    ended or epoch <= max(curve, default=0) for curve, ended in curves
                ):
                    steps[epoch] = sum(reported) / len(reported)
            found.append((trial.number, trial.state, trial.value, steps))
    return found


@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(history=transactions)
def test_readers_find_what_stands_in_our_tables(
    engine: Engine,
    open_reader: OpenReader,
    history: list[tuple[list[Move], bool]],
) -> None:
    book = Book(engine, spec(next(names)))
    with book.transaction() as page:
        page.add(0, replicates=2)
    num_trials = 1
    live = open_reader(book.spec.name)
    finished: dict[int, optuna.trial.FrozenTrial] = {}
    for of_one, is_projected in [*history, ([], True)]:
        with book.transaction(project=is_projected) as page:
            for move in of_one:
                num_trials = play(page, num_trials, move)
        for trial in live.trials:
            if trial.state.is_finished():
                finished.setdefault(trial.number, trial)
    seen = live.trials
    assert [
        (t.number, t.state.name, t.values and t.values[0], t.intermediate_values) for t in seen
    ] == expected(engine, book.study_id)
    assert seen == open_reader(book.spec.name).trials
    assert all(seen[number] == trial for number, trial in finished.items())
