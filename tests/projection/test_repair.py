"""After a failure, whenever it struck, the next projection leaves what an undisturbed one would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import optuna
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from tests.projection.book import METRIC, Book, Page, run_through, spec
from tests.projection.conftest import OpenReader


def contents(study: optuna.Study) -> list[Any]:
    """Everything a reader sees, but for ids and the names of studies."""
    trials = [
        (t.number, t.state, t.values, t.params, t.distributions, t.user_attrs, t.system_attrs,
         t.intermediate_values, t.datetime_start, t.datetime_complete)
        for t in study.trials
    ]  # fmt: skip
    return [study.direction, study.user_attrs, study.metric_names, trials]


@contextmanager
def without(engine: Engine, table: str) -> Iterator[None]:
    with engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {table} RENAME TO {table}_gone"))
    yield
    with engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {table}_gone RENAME TO {table}"))


def first_changes(page: Page) -> None:
    run_through(page, range(3), epochs=3)
    page.add(3, replicates=2)
    page.start(3, 0)
    page.start(3, 1)
    page.report(3, {1: 0.5, 2: 0.75}, 0)
    page.report(3, {1: 0.25, 2: 0.5}, 1)
    page.add(4)
    page.start(4)
    page.report(4, {1: 0.5})


def second_changes(page: Page) -> None:
    page.hand_back(3, 1)
    page.end(4, value=0.5, metrics={METRIC: 0.5})
    run_through(page, range(5, 8), epochs=3)
    page.set_state("RUNNING")


def third_changes(page: Page) -> None:
    page.start(3, 1)
    page.report(3, {1: 0.125}, 1)
    page.end(3, 0, value=0.75)
    page.end(3, 1, state="FAIL", reason="cancelled")


ALL_CHANGES = (first_changes, second_changes, third_changes)


@pytest.mark.parametrize(
    ("table", "failing"),
    [
        ("study_system_attributes", {0}),
        ("trial_params", {0, 1}),
        ("trial_intermediate_values", {1}),
        ("trial_user_attributes", {0, 1}),
    ],
)
def test_a_projection_that_failed_midway_is_repaired_by_the_next(
    engine: Engine, open_reader: OpenReader, table: str, failing: set[int]
) -> None:
    disturbed, calm = Book(engine, spec("disturbed")), Book(engine, spec("calm"))
    for index, changes in enumerate(ALL_CHANGES):
        with calm.transaction() as page:
            changes(page)
        if index in failing:
            before = disturbed.row().projected_revision
            with without(engine, table), disturbed.transaction(project=False) as page:
                changes(page)
                with pytest.raises(DBAPIError, match=table):
                    page.project()
            assert disturbed.row().projected_revision == before
        else:
            with disturbed.transaction() as page:
                changes(page)
    assert contents(open_reader("disturbed")) == contents(open_reader("calm"))
    row = disturbed.row()
    assert (row.projected_revision, row.projection_error) == (row.revision, None)


def test_projecting_again_changes_nothing(book: Book, open_reader: OpenReader) -> None:
    for changes in ALL_CHANGES:
        with book.transaction() as page:
            changes(page)
        before = contents(open_reader())
        with book.transaction() as page:
            page.project()
        assert contents(open_reader()) == before


def test_a_copy_deleted_in_optuna_is_built_anew(
    engine: Engine, storage: optuna.storages.RDBStorage, open_reader: OpenReader
) -> None:
    book, calm = Book(engine, spec("disturbed")), Book(engine, spec("calm"))
    for index, changes in enumerate(ALL_CHANGES):
        if index == 2:
            optuna.delete_study(study_name="disturbed", storage=storage)
            # On SQLite it takes the ids of the study that is gone.
            optuna.create_study(study_name="foreign", storage=storage).ask()
        for each in (book, calm):
            with each.transaction() as page:
                changes(page)
    assert contents(open_reader("disturbed")) == contents(open_reader("calm"))
    assert len(open_reader("foreign").trials) == 1
