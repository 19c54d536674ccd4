"""Optuna's samplers, importances and dashboard on the copy, and the statements it costs."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import optuna_dashboard
import pytest
from sqlalchemy import Engine, event

from ridgeline.search.optuna_space import distributions
from tests.projection.book import CONFIG, METRIC, Book, run_through
from tests.projection.conftest import OpenReader


@pytest.fixture
def filled(book: Book) -> Book:
    """Twelve complete trials, every third without penalty, and one of every other state."""
    with book.transaction() as page:
        for number in range(12):
            rate = 1e-3 * (1 + number)
            l2 = 0.0 if number % 3 == 0 else 1e-5 * (1 + number)
            page.add(number, config={**CONFIG, "learning_rate": rate, "l2": l2})
            page.start(number)
            page.report(number, {1: 0.1, 2: rate})
            page.end(number, value=rate, metrics={METRIC: rate, "test_accuracy": rate})
        for number in range(12, 16):
            page.add(number)
        for number in range(13, 16):
            page.start(number)
        page.end(14, state="FAIL", reason="diverged")
        page.report(15, {1: 0.5})
        page.end(15, state="PRUNED", value=0.5)
    return book


def test_best_and_importances(filled: Book, open_reader: OpenReader) -> None:
    study = open_reader()
    assert study.best_trial.number == 11
    assert study.best_value == 1e-3 * 12
    importances = optuna.importance.get_param_importances(study)
    assert {"learning_rate", "batch_size", "optimizer", "l2_zero"} <= set(importances)


@pytest.mark.parametrize("multivariate", [False, True])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_notebook_goes_on_with_tpe(
    filled: Book, open_reader: OpenReader, multivariate: bool
) -> None:
    sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=1, multivariate=multivariate)
    study = open_reader(sampler=sampler)
    space = filled.spec.space
    # The one that waits is asked for first; the others are new.
    for _ in range(4):
        trial = study.ask(distributions(space))
        assert trial.params["batch_size"] in range(16, 65)
        study.tell(trial, 0.5)


def test_as_a_table(filled: Book, open_reader: OpenReader) -> None:
    pytest.importorskip("pandas")
    assert len(open_reader().trials_dataframe()) == 16


def test_the_dashboard_shows_it(filled: Book, storage: optuna.storages.RDBStorage) -> None:
    app = optuna_dashboard.wsgi(storage)
    (summary,) = get(app, "/api/studies")["study_summaries"]
    assert summary["study_name"] == "digits"
    assert {"key": "state", "value": "QUEUED"} in summary["user_attrs"]
    detail = get(app, f"/api/studies/{summary['study_id']}")
    assert [trial["number"] for trial in detail["trials"]] == list(range(16))
    assert [trial["state"] for trial in detail["trials"][11:]] == [
        "Complete",
        "Waiting",
        "Running",
        "Fail",
        "Pruned",
    ]
    assert detail["best_trials"][0]["number"] == 11
    assert detail["objective_names"] == [METRIC]
    assert detail["has_intermediate_values"] is True
    assert detail["note"]["version"] > 1
    assert "* best: trial 11 with " in detail["note"]["body"]
    assert detail["note"]["body"].startswith("Maximize `validation_accuracy`")
    sortable = {attr["key"] for attr in detail["union_user_attrs"] if attr["sortable"]}
    assert {"test_accuracy", "device_seconds", "attempts", "charges", "seen_revision"} <= sortable


def get(app: Any, path: str) -> Any:
    environ: dict[str, Any] = {"wsgi.input": io.BytesIO()}
    setup_testing_defaults(environ)
    environ["PATH_INFO"] = path
    statuses = []
    body = b"".join(app(environ, lambda status, headers, *_: statuses.append(status)))
    assert statuses == ["200 OK"]
    return json.loads(body)


class TestStatements:
    """A call makes as many statements for one trial as for many."""

    @staticmethod
    def count(engine: Engine, project: Callable[[], None]) -> int:
        statements: list[str] = []

        def note(_c: object, _u: object, statement: str, *_: object) -> None:
            statements.append(statement)

        event.listen(engine, "before_cursor_execute", note)
        project()
        event.remove(engine, "before_cursor_execute", note)
        # The savepoint and one UPDATE, of the revision, are the caller's.
        return len(statements) - 1 - sum("SAVEPOINT" in statement for statement in statements)

    def test_new_trials(self, book: Book) -> None:
        counts = []
        with book.transaction():
            pass
        for numbers in (range(2), range(2, 34), range(34, 134)):
            with book.transaction(project=False) as page:
                run_through(page, numbers)
            with book.transaction(project=False) as page:
                counts.append(self.count(book.engine, page.project))
        # The last two end a tenth of the planned trials, so they count them and draw curves.
        assert counts == [18, 24, 24]

    def test_trials_that_go_on(self, book: Book) -> None:
        counts = []
        with book.transaction() as page:
            for number in range(32):
                page.add(number)
                page.start(number)
                page.report(number, {1: 0.5})
        for numbers in (range(1), range(32)):
            with book.transaction(project=False) as page:
                for number in numbers:
                    epoch = page.run(number).last_epoch + 1
                    page.report(number, {epoch: 0.5, epoch + 1: 0.75})
            with book.transaction(project=False) as page:
                counts.append(self.count(book.engine, page.project))
        assert counts == [10, 10]

    def test_nothing_new(self, book: Book) -> None:
        with book.transaction() as page:
            run_through(page, range(2))
        with book.transaction(project=False) as page:
            assert self.count(book.engine, page.project) == 1
