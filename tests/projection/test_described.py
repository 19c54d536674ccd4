"""What the dashboard shows of a study beside its trials: the note, and learning curves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import optuna
import pytest
from optuna_dashboard import get_note, save_note
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects
from sqlalchemy import Engine, delete, text

from ridgeline.service import projection
from ridgeline.service.projection.optuna_tables import STUDY_SYSTEM_ATTRS
from tests.projection.book import CONFIG, Book, Page, run_through, spec
from tests.projection.conftest import OpenReader

LOSSES = {"metric": "validation_loss", "direction": "minimize"}
GRAPHS = ["learning-curves-1", "learning-curves-2"]


def graphs(study: optuna.Study) -> dict[str, dict[str, Any]]:
    """Figures as the dashboard reads them, by id."""
    attributes = study._storage.get_study_system_attrs(study._study_id)
    return {key: json.loads(text) for key, text in get_plotly_graph_objects(attributes).items()}


def lines(graph: Mapping[str, Any]) -> dict[str, tuple[list[int], list[float]]]:
    return {line["name"]: (line["x"], line["y"]) for line in graph["data"]}


def learn(page: Page, number: int, value: float, *, epochs: int = 3) -> None:
    """A whole trial of one run, whose losses fall to `value` in training and in validation."""
    page.add(number)
    page.start(number)
    for epoch in range(1, epochs + 1):
        loss = value + epochs - epoch
        page.report(
            number, {epoch: loss}, metric="validation_loss", train_loss=loss / 2, train_accuracy=0.5
        )
    page.end(number, value=value, kept_epoch=epochs)


def differences(book: Book) -> list[str]:
    with book.engine.connect() as connection:
        return projection.compare(connection, book.study_id)


@pytest.fixture
def losses(engine: Engine) -> Book:
    return Book(engine, spec(objective=LOSSES))


def test_the_curves_of_the_best_trials_training_beside_validation(
    losses: Book, open_reader: OpenReader
) -> None:
    with losses.transaction() as page:
        for number, value in enumerate([0.5, 0.25, 7.0, 0.75, 1.0, 2.0]):
            learn(page, number, value)
        page.set_state("COMPLETED")
    drawn = graphs(open_reader())
    assert sorted(drawn) == GRAPHS
    loss, accuracy = (drawn[graph] for graph in GRAPHS)
    found = lines(loss)
    assert list(found) == [
        f"trial {number}, {side}"
        for number in (1, 0, 3, 4, 5)
        for side in ("validation", "training")
    ]
    assert found["trial 1, validation"] == ([1, 2, 3], [2.25, 1.25, 0.25])
    assert found["trial 1, training"] == ([1, 2, 3], [1.125, 0.625, 0.125])
    title = "validation_loss by epoch<br>the best 5 trials; training is dashed"
    assert loss["layout"]["title"]["text"] == title
    assert loss["layout"]["yaxis"]["title"]["text"] == "validation_loss"
    assert loss["layout"]["xaxis"] == {"title": {"text": "epoch"}, "dtick": 1}
    colors = {line["name"].split(",")[0]: line["line"]["color"] for line in loss["data"]}
    assert len(set(colors.values())) == 5
    assert {line["line"]["dash"] for line in loss["data"] if "training" in line["name"]} == {"dash"}
    assert list(lines(accuracy)) == [f"trial {number}, training" for number in (1, 0, 3, 4, 5)]
    assert differences(losses) == []


def test_figures_are_drawn_at_each_tenth_and_each_change_of_the_state(
    engine: Engine, open_reader: OpenReader
) -> None:
    book = Book(engine, spec(objective=LOSSES, budget={"trials": 20, "epochs": 3}))
    best = []
    for number in range(5):
        with book.transaction() as page:
            learn(page, number, 10.0 - number)
        drawn = graphs(open_reader())
        best.append(next(iter(lines(drawn["learning-curves-1"]))) if drawn else None)
        assert open_reader().user_attrs["ended_trials"] == number + 1
        assert differences(book) == []
    assert best == [f"trial {number}, validation" for number in (0, 1, 1, 3, 3)]
    assert "4 of 20 trials have ended (4 complete); counted at each tenth" in get_note(
        open_reader()
    )
    with book.transaction() as page:
        page.set_state("PAUSED")
    assert "trial 4, validation" in lines(graphs(open_reader())["learning-curves-1"])
    assert "5 of 20 trials have ended (5 complete)" in get_note(open_reader())
    assert differences(book) == []


def test_a_figure_is_small_whatever_the_number_of_epochs(
    losses: Book, open_reader: OpenReader
) -> None:
    with losses.transaction() as page:
        for number in range(5):
            learn(page, number, 0.1 + number / 7, epochs=300)
        page.set_state("COMPLETED")
    first = graphs(open_reader())["learning-curves-1"]
    assert first["layout"]["xaxis"] == {"title": {"text": "epoch"}}
    xs, ys = lines(first)["trial 0, validation"]
    assert (xs[0], xs[-1], len(xs), ys[-1]) == (1, 300, 101, 0.1)
    assert len(json.dumps(first)) < 25_000


def test_curves_are_means_over_the_runs_of_a_trial(engine: Engine, open_reader: OpenReader) -> None:
    book = Book(engine, spec(replicates=3))
    with book.transaction() as page:
        page.add(0, replicates=3)
        for replicate, value in enumerate([0.5, 0.75, 0.625]):
            page.start(0, replicate)
            page.report(0, {1: value / 2, 2: value}, replicate)
            page.end(0, replicate, value=value, kept_epoch=2)
        page.set_state("COMPLETED")
    (graph,) = graphs(open_reader()).values()
    assert lines(graph) == {"trial 0, validation": ([1, 2], [0.3125, 0.625])}
    assert graph["layout"]["title"]["text"].endswith("the best trial, means over 3 runs")
    told = (
        "* best: trial 0 with 0.625, the mean over 3 seeds (95 % interval 0.314483 to 0.935517): `"
    )
    assert told in get_note(open_reader())
    assert differences(book) == []


def test_the_interval_of_the_best_trial_ends_where_the_metric_does(
    engine: Engine, open_reader: OpenReader
) -> None:
    book = Book(engine, spec(replicates=3))
    with book.transaction() as page:
        page.add(0, replicates=3)
        for replicate, value in enumerate([0.875, 1.0, 1.0]):
            page.start(0, replicate)
            page.end(0, replicate, value=value)
        page.set_state("COMPLETED")
    note = get_note(open_reader())
    assert "(95 % interval 0.779056 to 1)" in note, "no accuracy is above 1"


def test_no_figure_without_curves_and_names_are_no_markup(
    engine: Engine, open_reader: OpenReader
) -> None:
    name = '<a href="https://example.org">loss</a>'
    external: dict[str, Any] = {
        "task": {"name": "external"},
        "space": {"x": {"type": "float", "low": 0, "high": 1}},
    }
    book = Book(engine, spec(**external, objective={"metric": name, "direction": "minimize"}))
    with book.transaction() as page:
        page.add(0, config={"x": 0.5})
        page.start(0)
        page.end(0, value=1.0)
        page.set_state("RUNNING")
    assert graphs(open_reader()) == {}
    with book.transaction() as page:
        page.add(1, config={"x": 0.25})
        page.start(1)
        page.report(1, {1: 0.5}, metric=name)
        page.end(1, value=0.5)
        page.set_state("COMPLETED")
    (graph,) = graphs(open_reader()).values()
    assert graph["data"][0]["mode"] == "markers"
    title = graph["layout"]["yaxis"]["title"]["text"]
    assert title == '&lt;a href="https://example.org"&gt;loss&lt;/a&gt;'


def test_nothing_is_shown_of_validation_rows_that_were_trained_on(
    engine: Engine, open_reader: OpenReader
) -> None:
    task = {"name": "mlp", "dataset": "digits", "split": {"train_on": "train+validation"}}
    space = {"learning_rate": {"type": "values", "values": [0.01]}}
    sampler, budget = {"name": "grid"}, {"epochs": 3}
    study = spec(task=task, space=space, sampler=sampler, budget=budget, objective=LOSSES)
    book = Book(engine, study)
    with book.transaction() as page:
        page.add(0, config={"learning_rate": 0.01})
        page.start(0)
        page.report(0, {1: 0.5, 2: 0.25}, metric="validation_loss", train_loss=0.75)
        page.end(0, value=0.25, kept_epoch=2)
        page.set_state("COMPLETED")
    (graph,) = graphs(open_reader()).values()
    assert list(lines(graph)) == ["trial 0, training"]
    assert "* best: trial 0: `learning_rate 0.01`" in get_note(open_reader())


def test_numbers_of_any_size_are_drawn(losses: Book, open_reader: OpenReader) -> None:
    largest = 1.7976931348623157e308  # which five digits round to infinity
    with losses.transaction() as page:
        learn(page, 0, largest, epochs=1)
        page.set_state("COMPLETED")
    assert lines(graphs(open_reader())["learning-curves-1"])["trial 0, validation"][1] == [largest]
    assert differences(losses) == []


def test_the_note_of_a_person_is_never_overwritten(book: Book, open_reader: OpenReader) -> None:
    with book.transaction() as page:
        run_through(page, range(2))
    study = open_reader()
    save_note(study, "Mine. " * 1_000)
    with book.transaction() as page:
        page.set_state("PAUSED")
        run_through(page, range(2, 4))
    for _ in range(5):
        with book.transaction() as page:
            page.set_state("RUNNING")
    assert get_note(study) == "Mine. " * 1_000
    assert study.user_attrs["state"] == "RUNNING"
    assert list(graphs(study)) == GRAPHS[:1]
    assert differences(book) == []
    save_note(study, "Shorter.")
    with book.transaction() as page:
        page.set_state("COMPLETED")
    assert get_note(study) == "Shorter."
    assert differences(book) == []


def test_notes_of_people_outlive_a_copy_that_is_made_anew(
    book: Book, storage: optuna.storages.RDBStorage, open_reader: OpenReader
) -> None:
    with book.transaction() as page:
        run_through(page, range(3))
    study = open_reader()
    trial = optuna.Trial(study, study.trials[1]._trial_id)
    save_note(trial, "Of trial 1. " * 300)
    assert differences(book) == []
    with book.engine.begin() as connection:
        projection.rebuild(connection, book.study_id)
    study = open_reader()
    assert "Maximize" in get_note(study)  # ours, which is written anew
    trial = optuna.Trial(study, study.trials[1]._trial_id)
    assert get_note(trial) == "Of trial 1. " * 300
    save_note(study, "Of the study.")
    for _ in range(2):
        with book.engine.begin() as connection:
            projection.rebuild(connection, book.study_id)
        study = open_reader()
        assert get_note(study) == "Of the study."
        assert get_note(optuna.Trial(study, study.trials[1]._trial_id)) == "Of trial 1. " * 300
        assert differences(book) == []
        with book.transaction() as page:
            page.set_state("RUNNING")
        assert get_note(study) == "Of the study."


@pytest.mark.parametrize("is_edited", [False, True])
def test_a_copy_that_an_earlier_version_has_described(
    book: Book, open_reader: OpenReader, is_edited: bool
) -> None:
    with book.transaction() as page:
        run_through(page, range(2))
    if is_edited:
        save_note(open_reader(), "Mine.")
    ours = STUDY_SYSTEM_ATTRS.c.key.like("ridgeline:%")
    figures = STUDY_SYSTEM_ATTRS.c.key.like("dashboard:plot%")
    with book.engine.begin() as connection:
        connection.execute(delete(STUDY_SYSTEM_ATTRS).where(ours | figures))
    assert differences(book) == []
    with book.transaction() as page:
        page.set_state("COMPLETED")
    note = get_note(open_reader())
    assert note == "Mine." if is_edited else "* state: COMPLETED\n* progress: 2 of" in note
    assert list(graphs(open_reader())) == GRAPHS[:1]
    assert differences(book) == []


@pytest.mark.parametrize(
    "mark",
    ["7", '"x"', "{}", '{"version": 1}', "nonsense", "[1]"],
)
def test_a_mark_that_somebody_has_spoilt(book: Book, open_reader: OpenReader, mark: str) -> None:
    with book.transaction() as page:
        run_through(page, range(2))
    query = (
        "UPDATE study_system_attributes SET value_json = :mark WHERE key = 'ridgeline:described'"
    )
    with book.engine.begin() as connection:
        connection.execute(text(query), {"mark": mark})
    assert "the study's system attribute ridgeline:described" in differences(book)
    with book.transaction() as page:
        run_through(page, range(2, 3))
        page.set_state("COMPLETED")
    assert differences(book) == []
    assert "3 of 100 trials have ended" in get_note(open_reader())


def test_texts_of_people_are_no_markup_in_a_note(engine: Engine, open_reader: OpenReader) -> None:
    space = {
        "x": {"type": "float", "low": 0, "high": 1},
        "y": {"type": "float", "low": 0, "high": 1},
    }
    values = {"type": "values", "values": ["a|b `c`", "*d*"]}
    changes: dict[str, Any] = {
        "task": {"name": "external"},
        "space": {**space, "kind": values},
        "objective": {"metric": "a|b\u202e", "direction": "minimize"},
        "constraints": ["2 * x + 3 * y <= 4"],
    }
    book = Book(engine, spec(**changes))
    with book.transaction() as page:
        page.set_state("RUNNING")
    found = get_note(open_reader())
    assert found.startswith("Minimize `a|b` of external.\n")
    assert '| kind | `"a\\|b \'c\'"`, `"*d*"` |\n' in found
    assert "* constraints: 2 \\* x \\+ 3 \\* y \\<= 4\n" in found


def test_configurations_are_code(book: Book, open_reader: OpenReader) -> None:
    with book.transaction() as page:
        run_through(page, range(1))
    assert f"`learning_rate 0.001, l2 {CONFIG['l2']}" in get_note(open_reader())
