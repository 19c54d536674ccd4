"""The oracle sees what is lost, twice or wrong."""

from __future__ import annotations

from contextlib import closing

import pytest
from sqlalchemy import Engine, text

from tests.chaos import oracle
from tests.chaos.campaign import Tally
from tests.projection.book import Book, run_through, spec
from tests.projection.conftest import engine  # noqa: F401  a fixture

NAME = "digits"
NUM_TRIALS = 3

RUN = "(SELECT r.id FROM rl_runs r JOIN rl_trials t ON t.id = r.trial_id WHERE t.number = 1)"


@pytest.fixture
def ended(engine: Engine) -> Engine:  # noqa: F811
    """A database with one study, of three trials that are complete."""
    book = Book(engine, spec(NAME), next_number=NUM_TRIALS)
    with book.transaction() as page:
        run_through(page, range(NUM_TRIALS))
    return engine


def check(engine: Engine, **changes: object) -> Tally:  # noqa: F811
    url = engine.url.render_as_string(hide_password=False)
    arguments = {"num_trials": NUM_TRIALS, "max_charges": 3, **changes}
    return oracle.check(url, NAME, **arguments)  # type: ignore[arg-type]


def test_a_study_that_is_whole(ended: Engine) -> None:
    with closing(oracle.reading(ended.url.render_as_string(hide_password=False))) as connection:
        values = oracle.outcomes(connection, NAME)
    assert [value[0] for value in values.values()] == ["COMPLETE"] * NUM_TRIALS
    assert check(ended, values=values) == Tally()


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (f"UPDATE rl_runs SET state = 'RUNNING', attempt = 2 WHERE id = {RUN}", "lost"),
        (f"UPDATE rl_runs SET state = 'WAITING' WHERE id = {RUN}", "lost"),
        (
            "UPDATE rl_trials SET state = 'RUNNING', finished_revision = NULL WHERE number = 1",
            "lost",
        ),
        (f"DELETE FROM rl_reports WHERE epoch = 2 AND run_id = {RUN}", "lost"),
        (f"UPDATE rl_runs SET charges = 4 WHERE id = {RUN}", "problems"),
        ("UPDATE rl_studies SET num_open = 1", "problems"),
        ("UPDATE rl_trials SET value = value + 1 WHERE number = 1", "wrong_values"),
        ("UPDATE trials SET state = 'RUNNING' WHERE number = 1", "wrong_values"),
        ("UPDATE trial_values SET value = value + 1", "wrong_values"),
    ],
)
def test_a_study_that_is_not(ended: Engine, fault: str, what: str) -> None:
    with ended.begin() as connection:
        assert connection.execute(text(fault)).rowcount > 0
    tally = check(ended)
    assert getattr(tally, what)
    assert not tally.is_good


def test_trials_that_are_missing_or_too_many(ended: Engine) -> None:
    assert check(ended, num_trials=NUM_TRIALS + 1).lost == 1
    assert check(ended, num_trials=NUM_TRIALS - 1).twice == 1


def test_values_that_differ(ended: Engine) -> None:
    assert check(ended, values={0: ["COMPLETE", None, {}, 0.5]}).wrong_values == 1
