"""The study itself in Optuna's tables, and making those tables."""

from __future__ import annotations

import optuna
import pytest
from optuna.study import StudyDirection
from optuna_dashboard import get_note
from sqlalchemy import Engine, inspect

from ridgeline.service import projection
from ridgeline.service.projection.study import NameTaken
from tests.projection.book import METRIC, Book, run_through, spec
from tests.projection.conftest import OpenReader


def test_name_direction_and_attributes(engine: Engine, open_reader: OpenReader) -> None:
    book = Book(engine, spec(replicates=3), owner="tok1", data_fingerprint="ab" * 32)
    with book.transaction():
        pass
    study = open_reader()
    assert study.study_name == "digits"
    assert study.direction is StudyDirection.MAXIMIZE
    assert study.metric_names == [METRIC]
    assert study.trials == []
    assert study.user_attrs == {
        "state": "QUEUED",
        "stopping": False,
        "owner": "tok1",
        "task": "mlp",
        "dataset": "digits",
        "data_fingerprint": "ab" * 32,
        "sampler": "tpe",
        "sampler_seed": 7,
        "budget_trials": 100,
        "budget_epochs": 20,
        "budget_seconds": 3600.0,
        "max_parallel": 10,
        "replicates": 3,
        "ended_trials": 0,
        "device_seconds": 1.0,
    }
    assert book.row().projected_revision == book.row().revision


def test_attributes_follow_the_study(book: Book, open_reader: OpenReader) -> None:
    with book.transaction() as page:
        page.set_state("RUNNING")
    study = open_reader()
    assert study.user_attrs["state"] == "RUNNING"
    with book.transaction() as page:
        page.set_state("FAILED", reason="every trial failed")
    assert study.user_attrs["state"] == "FAILED"
    assert study.user_attrs["reason"] == "every trial failed"
    assert study.user_attrs["device_seconds"] == book.row().device_seconds


def test_the_note_tells_the_spec_whatever_its_length(
    engine: Engine, open_reader: OpenReader
) -> None:
    values = [f"<b>|`{i}`" for i in range(500)]
    space = {
        "x": {"type": "float", "low": 0, "high": 1, "step": 0.25},
        "n": {"type": "int", "low": 1, "high": 8, "log": True},
        "kind": {"type": "values", "values": values},
    }
    external = spec(
        task={"name": "external", "description": "λ\n```"},
        space=space,
        objective={"metric": "score", "direction": "minimize"},
    )
    book = Book(engine, external)
    with book.transaction():
        pass
    study = open_reader()
    note = get_note(study)
    assert note.startswith("Minimize `score` of external.\n\n* state: QUEUED\n* progress: 0 of 100")
    assert "| x | 0 to 1, in steps of 0.25 |\n| n | 1 to 8, log |\n" in note
    assert "| kind | `\"<b>\\|'0'\"`, " in note
    assert note.endswith("\n```")
    assert len(note) > 3 * 2_045
    assert study.direction is StudyDirection.MINIMIZE
    with book.transaction() as page:
        page.set_state("CANCELLED")
    assert "* state: CANCELLED\n* progress: 0 of 100 trials have ended\n\n| para" in get_note(study)


def test_the_note_follows_the_state_and_the_best_trial(book: Book, open_reader: OpenReader) -> None:
    with book.transaction() as page:
        page.set_state("RUNNING")
    study = open_reader()
    assert "* state: RUNNING\n* progress: 0 of 100" in get_note(study)
    with book.transaction() as page:
        run_through(page, range(3))
    best = study.best_trial
    rate = best.params["learning_rate"]
    told = f"* best: trial {best.number} with {best.value:.6g}: `learning_rate {rate}"
    assert told in get_note(study)
    with book.transaction() as page:
        page.set_state("FAILED", reason="a `reason`")
    assert (
        "* state: FAILED: `a 'reason'`\n* progress: 3 of 100 trials have ended (3 complete)\n* best"
        in (get_note(study))
    )


def test_a_foreign_study_of_the_same_name(book: Book, storage: optuna.storages.RDBStorage) -> None:
    foreign = optuna.create_study(study_name="digits", storage=storage)
    with (
        pytest.raises(NameTaken, match="rename or delete"),
        book.transaction() as page,
    ):
        run_through(page, range(1))
    optuna.delete_study(study_name=foreign.study_name, storage=storage)
    with book.transaction() as page:
        run_through(page, range(1))
    assert len(optuna.load_study(study_name="digits", storage=storage).trials) == 1


def test_prepare_makes_optunas_tables_once(
    database_url: str, engine: Engine, storage: optuna.storages.RDBStorage
) -> None:
    with engine.connect() as connection:
        before = set(inspect(connection).get_table_names())
    projection.prepare(database_url)
    projection.prepare(database_url)
    with engine.connect() as connection:
        assert set(inspect(connection).get_table_names()) == before
    assert storage.get_current_version() == storage.get_head_version()


def test_prepare_takes_any_path(tmp_path: object) -> None:
    projection.prepare(f"sqlite:///{tmp_path}/{{of}} 100%.db")
