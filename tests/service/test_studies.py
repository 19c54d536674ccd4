"""Studies: creating, listing, the verbs, export and events."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ridgeline.search.measures import Measures
from ridgeline.search.space import Config
from ridgeline.search.tasks.data import DatasetCard
from ridgeline.search.tasks.datasets import card_of, load
from ridgeline.search.tasks.kinds import Classes, Numbers, Vector
from ridgeline.search.tasks.splits import split_column
from ridgeline.service import reporting, studies, trials, workers
from ridgeline.service.errors import Conflict, InvalidInput, LimitExceeded, NotFound
from ridgeline.service.external_protocol import CompleteRequest, SuggestRequest
from ridgeline.service.lifecycle import StudyState, TrialState
from ridgeline.service.protocol import DatasetInfo, RunReport
from ridgeline.service.resources import Event, Study
from ridgeline.service.store.session import Store
from tests.conftest import ManualClock
from tests.measures import RELU, TANH
from tests.service.factory import (
    GRID_SPACE,
    FakeWorker,
    ended,
    external,
    grant_deadlines,
    post,
    spec,
    study_of,
)
from tests.tasks.table_files import write_csv


def tell(store: Store, verb: studies.Verb, name: str = "s") -> StudyState:
    with store.transaction() as tx:
        return studies.apply_verb(tx, name, verb).state


def test_a_name_is_taken_once(store: Store) -> None:
    post(store, spec())
    with pytest.raises(Conflict, match="choose another"):
        post(store, spec())


def test_an_unknown_study_is_not_found(store: Store) -> None:
    with store.reading() as tx, pytest.raises(NotFound, match="nope"):
        studies.get(tx, "nope")


def test_a_data_set_that_nobody_has_is_refused(store: Store) -> None:
    with pytest.raises(
        InvalidInput, match=r"task\.dataset.*known: breast-cancer, diabetes, digits, wine"
    ):
        post(store, spec(task={"name": "mlp", "dataset": "imagenet"}))


def test_a_data_set_of_a_live_worker_is_known_with_its_fingerprint(store: Store) -> None:
    FakeWorker(store, fingerprint="cd" * 32)
    assert post(store, spec()).data_fingerprint == "cd" * 32


def test_columns_that_a_study_names_are_what_is_learned(store: Store) -> None:
    flats = DatasetCard("flats", "ab" * 32, 9, 4, None, False, None, None, None, needs="why")

    def create(**task: Any) -> Study:
        objective = task.pop(
            "objective", {"metric": "validation_accuracy", "direction": "maximize"}
        )
        study = spec(
            str(len(task)), task={"name": "mlp", "dataset": "flats", **task}, objective=objective
        )
        with store.transaction() as tx:
            return studies.create(tx, study, owner=None, local_datasets=[flats], max_open=9)

    with pytest.raises(InvalidInput, match=r"task\.dataset: why"):
        create()
    with pytest.raises(InvalidInput, match=r"objective\.metric: .* the targets are numbers"):
        create(target="rent")
    rmse = {"metric": "validation_rmse", "direction": "minimize"}
    assert create(target="rent", objective=rmse).data_fingerprint == "ab" * 32
    split = {"kind": "group", "column": "house"}
    assert create(label="heating", split=split).spec.num_runs == 1


def write_flats(root: Path) -> DatasetCard:
    """A table of 12 flats in four houses, one of them heated by wood."""
    kinds = ["gas", "gas", "district", "district", "gas", "wood"] * 2
    kinds[11] = "gas"
    rows = [
        [row, kind, f"house {row % 4}", f"2024-05-{row + 1:02}", 100 + row]
        for row, kind in enumerate(kinds)
    ]
    names = ["area", "heating", "house", "day", "rent"]
    write_csv(root / "flats" / "train.csv", [names, *rows])
    return card_of("flats", root)


RMSE = {"metric": "validation_rmse", "direction": "minimize"}


@pytest.mark.parametrize(
    ("task", "field", "reason"),
    [
        ({"label": "kind"}, "task.label", "has no column 'kind'; it has 'area', 'heating', 'h"),
        ({"target": "house"}, "task.target", "'house' cannot be the target, .* a number in each"),
        ({"label": "heating", "split": {"kind": "group", "column": "street"}},
         "task.split.column", "has no column 'street'"),
        ({"label": "heating", "split": {"kind": "time", "column": "house"}},
         "task.split.column", "'house' cannot be the time, which takes"),
        ({"label": "heating", "split": {"kind": "group", "column": "house", "folds": 4}},
         "task.split.column", "has 4 of the 5 groups needed"),
        ({"label": "heating", "split": {"kind": "time", "column": "day", "folds": 11}},
         "task.split.column", "has 12 of the 13 times needed"),
        ({"label": "house", "split": {"kind": "group", "column": "house"}},
         "task.split.column", "'house' is to be learned"),
        ({"target": "rent", "split": {"kind": "random", "folds": 12}},
         "task.dataset", "has 12 of the 13 rows needed"),
        ({"label": "heating"}, "task.dataset", "smallest class, 'wood', has 1 of the 3 rows"),
        ({"label": "heating", "split": {"kind": "random"}, "class_weights": [1, 2]},
         "task.class_weights", "must be 3 numbers, one for each class, not 2"),
        ({"target": "rent", "class_weights": "balanced"}, "task.class_weights", "must be left out"),
        ({"split": {"kind": "group", "column": "house"}}, "task.dataset", "no column to learn"),
        ({"label": "house", "images": {"channels": 1}}, "task.images", "is no folder of pictures"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("by_worker", [False, True])
def test_columns_splits_and_weights_that_do_not_fit_are_refused_by_their_field(
    store: Store, tmp_path: Path, task: dict[str, Any], field: str, reason: str, by_worker: bool
) -> None:
    flats = write_flats(tmp_path)
    if by_worker:
        FakeWorker(store, datasets=(DatasetInfo(**asdict(flats)),))
    objective: dict[str, Any] = {"objective": RMSE} if "target" in task else {}
    study = spec(task={"name": "mlp", "dataset": "flats", **task}, **objective)
    local = [] if by_worker else [flats]
    with store.transaction() as tx, pytest.raises(InvalidInput) as caught:
        studies.create(tx, study, owner=None, local_datasets=local, max_open=9)
    assert any(at == field and re.search(reason, why) for at, why in caught.value.problems), (
        caught.value.problems
    )


@pytest.mark.parametrize(
    "task",
    [
        {"label": "house"},
        {"label": "heating", "split": {"kind": "random"}, "class_weights": [1, 2, 3]},
        {"label": "heating", "split": {"kind": "group", "column": "house", "folds": 3}},
        {"label": "heating", "split": {"kind": "time", "column": "day", "folds": 10}},
        {"target": "rent", "split": {"kind": "random", "folds": 11}},
    ],
)
def test_what_fits_is_taken_and_can_be_divided(
    store: Store, tmp_path: Path, task: dict[str, Any]
) -> None:
    flats = write_flats(tmp_path)
    objective: dict[str, Any] = {"objective": RMSE} if "target" in task else {}
    study = spec(task={"name": "mlp", "dataset": "flats", **task}, **objective)
    with store.transaction() as tx:
        studies.create(tx, study, owner=None, local_datasets=[flats], max_open=9)
    choice = study.definition.data(study.task)
    assert choice is not None
    split_column(load("flats", tmp_path, choice.reading), choice.split)


def test_a_column_that_can_be_no_feature_is_refused(store: Store, tmp_path: Path) -> None:
    rows = [[row, "ab"[row % 2], "a", "what people wrote " * 20] for row in range(12)]
    write_csv(tmp_path / "notes" / "train.csv", [["x", "good", "who", "note"], *rows])
    notes = card_of("notes", tmp_path)

    def create(**task: Any) -> Study:
        study = spec(task={"name": "mlp", "dataset": "notes", **task})
        with store.transaction() as tx:
            return studies.create(tx, study, owner=None, local_datasets=[notes], max_open=9)

    with pytest.raises(InvalidInput, match=r"task\.dataset: its column 'note' cannot be a feature"):
        create(label="good")
    with pytest.raises(InvalidInput, match=r"task\.label: 'who' cannot be the label"):
        create(label="who")


@pytest.mark.parametrize("is_known", [False, True])
def test_what_is_built_in_has_no_columns(store: Store, is_known: bool) -> None:
    if is_known:
        FakeWorker(store, datasets=(DatasetInfo(**asdict(card_of("digits", None))),))
    task = {"name": "mlp", "dataset": "digits", "split": {"kind": "group", "column": "x"}}
    with pytest.raises(InvalidInput, match=r"task\.split\.column: .* digits is no table"):
        post(store, spec(task=task))


def test_how_to_get_well_known_data_is_told(store: Store) -> None:
    with pytest.raises(
        InvalidInput, match=r"task\.dataset: .* `ridgeline data download mnist` bri"
    ):
        post(store, spec(task={"name": "mlp", "dataset": "mnist"}))


def test_folds_need_rows_of_each_class(store: Store) -> None:
    FakeWorker(store, smallest_class=5)
    task = {"name": "mlp", "dataset": "digits"}
    with pytest.raises(InvalidInput, match=r"task\.dataset: .* has 5 of the 6 rows needed"):
        post(store, spec(task={**task, "split": {"folds": 5}}))
    post(store, spec(task={**task, "split": {"folds": 4}}))
    post(store, spec("random", task={**task, "split": {"folds": 5, "kind": "random"}}))


def test_data_that_cannot_be_split_are_refused(store: Store) -> None:
    FakeWorker(store, smallest_class=2)
    with pytest.raises(InvalidInput, match=r"task\.dataset: .* has 2 of the 3 rows needed"):
        post(store, spec())
    card = DatasetCard("tiny", "ab" * 32, 9, 2, 2, True, 1, Vector(2), Classes(2))
    of_tiny = spec(task={"name": "mlp", "dataset": "tiny"})
    with store.transaction() as tx, pytest.raises(InvalidInput, match="has 1 of the 2 rows"):
        studies.create(tx, of_tiny, owner=None, local_datasets=[card], max_open=1)


PRICES = DatasetCard("prices", "ab" * 32, 90, 2, None, False, None, Vector(2), Numbers(1))


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({}, "objective.metric", "must be one of validation_loss, .*: the targets are numbers"),
        ({"task": {"name": "cnn", "dataset": "prices"}}, "task.dataset", "features are vector"),
        (
            {
                "task": {"name": "cnn", "dataset": "prices"},
                "objective": {"metric": "validation_rmse", "direction": "minimize"},
            },
            "task.dataset",
            "the task cnn needs image",
        ),
    ],
)
def test_data_that_the_task_cannot_train_on_so_are_refused(
    store: Store, changes: dict[str, Any], field: str, reason: str
) -> None:
    of_prices = spec(**{"task": {"name": "mlp", "dataset": "prices"}, **changes})
    with store.transaction() as tx, pytest.raises(InvalidInput, match=f"{field}.*{reason}"):
        studies.create(tx, of_prices, owner=None, local_datasets=[PRICES], max_open=1)


def test_numbers_are_learned_by_a_metric_of_theirs(store: Store) -> None:
    of_prices = spec(
        task={"name": "linear", "dataset": "prices"},
        objective={"metric": "validation_r2", "direction": "maximize"},
    )
    with store.transaction() as tx:
        study = studies.create(tx, of_prices, owner=None, local_datasets=[PRICES], max_open=1)
    assert study.data_fingerprint == PRICES.fingerprint


def test_data_of_unknown_kinds_are_not_refused(store: Store) -> None:
    """Of workers from before data sets told what they are."""
    FakeWorker(store)
    assert post(store, spec(task={"name": "cnn", "dataset": "digits"})).spec.dataset == "digits"


def test_data_that_some_worker_can_split_are_not_refused(store: Store) -> None:
    FakeWorker(store, smallest_class=2)
    FakeWorker(store, smallest_class=3, fingerprint="cd" * 32)
    assert post(store, spec()).data_fingerprint is None


def test_unfinished_studies_are_limited(store: Store) -> None:
    post(store, spec("a"))
    with store.transaction() as tx, pytest.raises(LimitExceeded):
        studies.create(tx, spec("b"), owner=None, local_datasets=(), max_open=1)


def test_pages_are_newest_first(store: Store) -> None:
    for name in "abcde":
        post(store, spec(name))
    seen, cursor = [], None
    while True:
        with store.reading() as tx:
            page, cursor = studies.list_page(tx, page_size=2, cursor=cursor)
        assert len(page) <= 2
        seen += [study.name for study in page]
        if cursor is None:
            break
    assert seen == list("edcba")


def test_pause_hands_nothing_out_and_resume_goes_on(store: Store) -> None:
    post(store, spec())
    assert tell(store, "pause") is StudyState.PAUSED
    worker = FakeWorker(store)
    assert worker.sync().start == ()
    assert tell(store, "resume") is StudyState.QUEUED
    assert len(worker.sync().start) == 1
    assert tell(store, "pause") is StudyState.PAUSED
    worker.end_all()
    assert worker.held == {}
    assert study_of(store).trials.complete == 1
    assert tell(store, "resume") is StudyState.RUNNING


def test_stop_lets_running_trials_finish(store: Store) -> None:
    post(store, spec())
    with store.transaction() as tx:
        trials.enqueue(tx, "s", [{"learning_rate": 0.001}, {"learning_rate": 0.002}])
    worker = FakeWorker(store)
    worker.sync()
    assert tell(store, "stop") is StudyState.RUNNING
    worker.end_all()
    study = study_of(store)
    assert study.state is StudyState.COMPLETED
    assert (study.trials.complete, study.trials.fail) == (1, 1)
    assert study.num_trials == 2
    assert worker.held == {}


def test_stop_before_the_first_trial_completes_at_once(store: Store) -> None:
    post(store, spec())
    assert tell(store, "stop") is StudyState.COMPLETED


@pytest.mark.parametrize("verb", ["pause", "resume", "stop", "cancel"])
def test_verbs_repeat_without_effect(store: Store, verb: studies.Verb) -> None:
    post(store, spec())
    if verb == "resume":
        tell(store, "pause")
    tell(store, verb)
    revision = study_of(store).revision
    tell(store, verb)
    assert study_of(store).revision == revision


def test_a_study_that_ended_takes_no_verb(store: Store) -> None:
    post(store, spec())
    tell(store, "cancel")
    for verb in ("pause", "resume", "stop"):
        with pytest.raises(Conflict, match="CANCELLED"):
            tell(store, verb)


def test_time_runs_out(store: Store, clock: ManualClock) -> None:
    post(store, spec(budget={"trials": 6, "seconds": 10}))
    worker = FakeWorker(store)
    worker.sync()
    grant_deadlines(store)
    clock.advance(11)
    worker.end_all()
    assert worker.held == {}
    assert study_of(store).state is StudyState.RUNNING
    workers.expire(store)
    study = study_of(store)
    assert (study.state, study.num_trials) == (StudyState.COMPLETED, 1)


def test_every_cell_of_a_grid_is_tried_once(store: Store) -> None:
    post(store, spec(space=GRID_SPACE, sampler={"name": "grid"}, budget={}))
    with store.transaction() as tx:
        extra: Config = {"learning_rate": 0.05, "batch_size": 16, "l2": 5e-4, "dropout": 0.5}
        trials.enqueue(tx, "s", [extra])
    pair = [FakeWorker(store, num_slots=2), FakeWorker(store, num_slots=1)]
    for worker in pair:
        worker.sync()
    while any(worker.held for worker in pair):
        for worker in pair:
            worker.end_all()
    with store.reading() as tx:
        found, _ = trials.list_page(tx, "s", page_size=100, cursor=None, state=None)
    assert [trial.grid_cell for trial in found] == [None, *range(36)]
    assert {trial.state for trial in found} == {TrialState.COMPLETE}
    assert len({tuple(trial.config.values()) for trial in found}) == 37
    assert study_of(store).state is StudyState.COMPLETED


def test_best_breaks_ties_by_number(store: Store) -> None:
    post(store, spec())
    worker = FakeWorker(store, num_slots=3)
    worker.sync()
    with store.reading() as tx, pytest.raises(NotFound, match="complete"):
        studies.best(tx, "s")
    worker.sync(ended=[ended(order, value=0.5) for order in worker.held.values()])
    with store.reading() as tx:
        assert studies.best(tx, "s").number == 0


def test_export_has_a_line_a_run(store: Store) -> None:
    post(store, spec(replicates=2, budget={"trials": 2}))
    worker = FakeWorker(store, num_slots=4)
    worker.sync()
    worker.end_all()
    with store.reading() as tx:
        rows = list(csv.DictReader(io.StringIO(studies.export_csv(tx, "s"))))
    assert [(row["number"], row["replicate"]) for row in rows] == [
        ("0", "0"),
        ("0", "1"),
        ("1", "0"),
        ("1", "1"),
    ]
    assert all(float(row["metrics_test_accuracy"]) == 0.5 for row in rows)


def test_what_is_seen_of_weights_is_kept_shown_and_exported(store: Store) -> None:
    post(store, spec(budget={"trials": 3}))
    worker = FakeWorker(store, num_slots=3)
    first, second, third = worker.sync().start
    seen = [
        ended(first, value=0.5, measures=RELU),
        ended(second, value=0.5),  # by an older worker
        ended(third, "pruned", value=0.5, measures=TANH),
    ]
    worker.sync(ended=seen)
    with store.reading() as tx:
        found = [trials.get(tx, "s", number).runs[0] for number in range(3)]
        rows = list(csv.DictReader(io.StringIO(studies.export_csv(tx, "s"))))
    assert [run.measures for run in found] == [RELU, None, None]
    assert [row["measures_inputs_kept"] for row in rows] == ["3", "", ""]
    assert rows[0]["measures_weight_norm.layers.1.weight"] == "1.5"
    (last,) = (e for e in read_events(store, 0, 1_000)[0] if e.data.get("measures"))
    assert Measures.model_validate(last.data["measures"]) == RELU


def test_export_keeps_what_has_one_name_apart(store: Store) -> None:
    names = ("lr", "seed", "number", "params_lr", "metrics_lr")
    space = {name: {"type": "int", "low": 1, "high": 9} for name in names}
    post(store, external(space=space))
    with store.transaction() as tx:
        trials.enqueue(tx, "s", [dict.fromkeys(names, 7)])
    (trial,) = trials.suggest(store, "s", SuggestRequest()).trials
    end = CompleteRequest(attempt=1, value=0.5, metrics=dict.fromkeys(names, 0.25))
    with store.transaction() as tx:
        reporting.complete(tx, "s", trial.number, end, max_charges=1)
    with store.reading() as tx:
        header, line = csv.reader(io.StringIO(studies.export_csv(tx, "s")))
    assert len(set(header)) == len(header)
    row = dict(zip(header, line, strict=True))
    assert [row[f"params_{name}"] for name in names] == ["7"] * 5
    assert [row[f"metrics_{name}"] for name in names] == ["0.25"] * 5
    assert (row["number"], row["seed"]) == ("0", str(trial.seed))


def test_export_quotes_what_a_spreadsheet_would_run(store: Store) -> None:
    space = {"x": {"type": "values", "values": ["=1+1", "b"]}}
    post(store, external(space=space, sampler={"name": "grid"}, budget={}))
    with store.transaction() as tx:
        trials.enqueue(tx, "s", [{"x": "=1+1"}])
    with store.reading() as tx:
        (row,) = csv.DictReader(io.StringIO(studies.export_csv(tx, "s")))
    assert row["params_x"] == "'=1+1"


def read_events(store: Store, after: int, limit: int) -> tuple[list[Event], bool]:
    with store.reading() as tx:
        return studies.events(tx, "s", after=after, limit=limit)


def test_events_resume_anywhere_and_rise(store: Store) -> None:
    post(store, spec(budget={"trials": 2}))
    worker = FakeWorker(store)
    (order,) = worker.sync().start
    reports = [
        RunReport(run=order.run, attempt=1, epoch=epoch, metrics={"validation_accuracy": 0.5})
        for epoch in (1, 2)
    ]
    worker.sync(reports=reports)
    worker.end_all()
    worker.end_all()
    whole, closed = read_events(store, 0, 1_000)
    assert closed
    ids = [event.id for event in whole]
    assert ids == sorted(set(ids))
    assert ids[-1] == study_of(store).revision
    for limit in (1, 2, 5):
        pieces: list[Event] = []
        closed = False
        while not closed:
            piece, closed = read_events(store, pieces[-1].id if pieces else 0, limit)
            pieces += piece
        assert pieces == whole
    assert [e.data["epoch"] for e in whole if e.type == "report"] == [1, 2]
    states = [e.data["state"] for e in whole if e.type == "study"]
    assert states == [StudyState.COMPLETED]
