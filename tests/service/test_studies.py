"""Studies: creating, listing, the verbs, export and events."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from ridgeline.search.measures import Measures
from ridgeline.search.space import Config
from ridgeline.search.tasks.data import DatasetCard
from ridgeline.search.tasks.kinds import Classes, Numbers, Vector
from ridgeline.service import reporting, studies, trials, workers
from ridgeline.service.errors import Conflict, InvalidInput, LimitExceeded, NotFound
from ridgeline.service.external_protocol import CompleteRequest, SuggestRequest
from ridgeline.service.lifecycle import StudyState, TrialState
from ridgeline.service.protocol import RunReport
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
