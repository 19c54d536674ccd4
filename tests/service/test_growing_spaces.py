"""Spaces that grow while they are searched: old trials count, new ones are from all of it."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from sqlalchemy import text

from ridgeline.search.history import History
from ridgeline.search.space import Space
from ridgeline.service import (
    explaining,
    extending,
    projection,
    reporting,
    sampling,
    studies,
    trials,
)
from ridgeline.service.errors import Conflict, InvalidInput
from ridgeline.service.external_protocol import CompleteRequest, SuggestRequest
from ridgeline.service.ledger import Ledger
from ridgeline.service.lifecycle import StudyState
from ridgeline.service.resources import ExtendStudyRequest, Study, Trial
from ridgeline.service.store.session import Store
from ridgeline.service.store.sources import Sources
from tests.service.factory import FakeWorker, external, post, spec, study_of
from tests.service.test_comparisons import create

SPACE: dict[str, Any] = {
    "rate": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True},
    "l2": {"type": "float", "low": 1e-5, "high": 1e-3, "log": True},
    "units": {"type": "int", "low": 8, "high": 16, "step": 4},
    "size": {"type": "values", "values": [32, 64]},
    "drop": {"type": "values", "values": [0.2, 0.4]},
    "kind": {"type": "values", "values": ["a", "b"]},
    "momentum": {"type": "float", "low": 0.5, "high": 0.9, "when": {"kind": "a"}},
}
GROWN: dict[str, Any] = {
    "rate": {"low": 1e-4, "high": 1e-1},
    "l2": {"zero": True},
    "units": {"low": 4, "high": 32},
    "size": {"values": [16, 32, 64, 128]},
    "drop": {"values": [0.0, 0.2, 0.4]},
    "kind": {"values": ["a", "b", "c"]},
}


def extend(store: Store, name: str = "s", **values: Any) -> Study:
    with store.transaction() as tx:
        request = ExtendStudyRequest(**values)
        return extending.extend_alone(tx, name, request, max_open=1_000)


def train(store: Store, num_trials: int) -> None:
    for _ in range(num_trials):
        (trial,) = trials.suggest(store, "s", SuggestRequest(count=1)).trials
        value = abs(float(trial.config["rate"]) - 0.05) + float(trial.config["drop"])
        request = CompleteRequest.model_validate({"attempt": trial.attempt, "value": value})
        with store.transaction() as tx:
            reporting.complete(tx, "s", trial.number, request, max_charges=1)


def all_trials(store: Store) -> list[Trial]:
    with store.reading() as tx:
        return trials.list_page(tx, "s", page_size=1_000, cursor=None, state=None)[0]


def refused(error: pytest.ExceptionInfo[InvalidInput]) -> list[str]:
    return [field for field, _ in error.value.problems]


@pytest.mark.parametrize("reproducible", [False, True])
@pytest.mark.parametrize("sampler", ["auto", "gp", "random", "tpe"])
def test_trials_are_from_the_space_of_their_time(
    store: Store, sampler: str, reproducible: bool
) -> None:
    changes: dict[str, Any] = {
        "sampler": {"name": sampler, "seed": 3},
        "reproducible": reproducible,
    }
    post(store, external(space=SPACE, budget={"trials": 12}, **changes))
    train(store, 12)
    assert extend(store, trials=12, space=GROWN).state is StudyState.QUEUED
    if not reproducible:
        with store.transaction() as tx:
            trials.enqueue(tx, "s", [{**all_trials(store)[0].config, "rate": 0.1}])
    train(store, 12)
    extend(store, trials=6, space={"rate": {"high": 0.3}})
    train(store, 6)
    found = all_trials(store)
    rates = [float(trial.config["rate"]) for trial in found]
    assert all(1e-3 <= rate <= 1e-2 for rate in rates[:12])
    assert any(not 1e-3 <= rate <= 1e-2 for rate in rates[13:])
    with store.reading() as tx:
        row = studies.find(tx, "s")
        for trial in found:
            if trial.seen_revision is not None:
                again = sampling.rederive(tx, row.id, trial.number)
                assert again.config == trial.config, trial.number
        assert projection.compare(tx.connection, row.id) == []
        shown = studies.get(tx, "s").past_spaces
        assert [past.space["rate"].problem(0.1) is None for past in shown] == [False, True]
    told = explaining.explain(store, "s", 5)
    assert told.is_derived_again


def test_optuna_sees_one_space(store: Store) -> None:
    post(store, external(space=SPACE, budget={"trials": 16}))
    train(store, 8)
    (under_way,) = trials.suggest(store, "s", SuggestRequest(count=1)).trials
    extend(store, space=GROWN)
    request = CompleteRequest.model_validate({"attempt": under_way.attempt, "value": 1.0})
    with store.transaction() as tx:
        reporting.complete(tx, "s", under_way.number, request, max_charges=1)
    train(store, 7)
    storage = RDBStorage(store.url.render_as_string(hide_password=False))
    study = optuna.load_study(study_name="s", storage=storage)
    assert len(study.trials) == 16
    for name in ("rate", "units", "size", "drop", "kind", "l2_zero"):
        kinds = {str(t.distributions[name]) for t in study.trials}
        assert len(kinds) == 1, name
    ours = {trial.number: trial.config for trial in all_trials(store)}
    assert all(t.params["drop"] == ours[t.number]["drop"] for t in study.trials)
    assert optuna.importance.get_param_importances(study).keys() >= {"rate", "drop"}
    storage.remove_session()
    storage.engine.dispose()
    with store.reading() as tx:
        assert projection.compare(tx.connection, studies.find(tx, "s").id) == []


def test_a_suggestion_from_the_smaller_space_is_not_taken_any_more(store: Store) -> None:
    post(store, external(space=SPACE, budget={"trials": 8}))
    with store.reading() as tx:
        row = studies.find(tx, "s")
        outlook = sampling.look(store, tx, row, 1)
    assert outlook is not None
    proposal = outlook.propose()
    extend(store, space=GROWN)
    with store.transaction() as tx:
        assert not sampling.accept(Ledger(tx, row.id), proposal)


def test_workers_train_on(store: Store) -> None:
    post(store, spec(budget={"trials": 2, "epochs": 3}))
    worker = FakeWorker(store, num_slots=2)
    worker.sync()
    worker.end_all()
    extend(store, trials=2, space={"learning_rate": {"high": 1.0}})
    worker.sync()
    worker.end_all()
    study = study_of(store)
    assert (study.state, study.trials.complete) == (StudyState.COMPLETED, 4)


def test_the_same_space_once_more_changes_nothing(store: Store) -> None:
    post(store, external(space=SPACE, budget={"trials": 8}))
    extend(store, trials=1, space=GROWN)
    extend(store, trials=1, space=GROWN)
    for space in (GROWN, dict[str, Any](rate={})):
        with pytest.raises(InvalidInput, match="searched already") as caught:
            extend(store, space=space)
        assert refused(caught) == ["space"]
    with store.reading() as tx:
        (past,) = studies.find(tx, "s").past_spaces
    assert past.space["rate"].problem(2e-2) is not None


def test_sources_are_read_in_the_larger_space(store: Store) -> None:
    post(store, external("old", space=SPACE, budget={"trials": 8}))
    request = SuggestRequest(count=8)
    for trial in trials.suggest(store, "old", request).trials:
        end = CompleteRequest.model_validate({"attempt": trial.attempt, "value": 0.5})
        with store.transaction() as tx:
            reporting.complete(tx, "old", trial.number, end, max_charges=1)
    gp = {"name": "gp", "seed": 1}
    post(store, external(space=SPACE, budget={"trials": 9}, sampler=gp, warm_start=["old"]))
    train(store, 9)
    extend(store, trials=3, space=GROWN)
    train(store, 3)
    with store.reading() as tx:
        row = studies.find(tx, "s")
        for number in range(12):
            again = sampling.rederive(tx, row.id, number)
            assert again.config == all_trials(store)[number].config


@pytest.mark.parametrize(
    ("space", "field"),
    [
        ({"nothing": {"type": "values", "values": [1]}}, "space.nothing"),
        ({"rate": {"low": 5e-3}}, "space.rate.low"),
        ({"rate": {"high": 5e-3}}, "space.rate.high"),
        ({"rate": {"log": False}}, "space.rate.log"),
        ({"rate": {"low": -1.0}}, "space.rate"),
        ({"rate": {"type": "int"}}, "space.rate.low"),
        ({"rate": {"hihg": 1.0}}, "space.rate.hihg"),
        ({"rate": {"high": "much"}}, "space.rate.high"),
        ({"units": {"low": 6}}, "space.units.low"),
        ({"units": {"step": 2}}, "space.units.step"),
        ({"drop": {"values": [0.2]}}, "space.drop.values"),
        ({"momentum": {"when": {"kind": "b"}}}, "space.momentum.when"),
    ],
)
def test_a_space_only_grows(store: Store, space: dict[str, Any], field: str) -> None:
    post(store, external(space=SPACE))
    revision = study_of(store).revision
    with pytest.raises(InvalidInput) as caught:
        extend(store, trials=1, space=space)
    assert refused(caught)[0] == field
    assert study_of(store).revision == revision


def test_what_cannot_grow(store: Store) -> None:
    grid = {"size": {"type": "values", "values": [1, 2]}}
    post(store, external(space=grid, sampler={"name": "grid"}, budget={}))
    with pytest.raises(InvalidInput, match="clone the study") as caught:
        extend(store, trials=1, space={"size": {"values": [1, 2, 3]}})
    assert refused(caught) == ["space"]
    post(store, external("r", reproducible=True))
    with pytest.raises(Conflict, match="once it has ended"):
        extend(store, "r", space={"x": {"high": 2}})


def test_a_larger_space_alone_does_not_help_a_study_without_trials(store: Store) -> None:
    post(store, external(space=SPACE, budget={"trials": 2}))
    train(store, 2)
    with pytest.raises(InvalidInput, match="every trial of the budget") as caught:
        extend(store, space=GROWN)
    assert refused(caught) == ["trials"]


def test_a_space_grows_so_often_and_no_oftener(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extending, "MAX_PAST_SPACES", 2)
    post(store, external())
    for high in (2, 3):
        extend(store, space={"x": {"high": high}})
    with pytest.raises(Conflict, match="grown 2 times"):
        extend(store, space={"x": {"high": 4}})
    assert extend(store, trials=1).num_trials == 5


def test_an_arm_does_not_grow(store: Store) -> None:
    create(store)
    with pytest.raises(Conflict, match="post another comparison"):
        extend(store, "c-search.none", space={"learning_rate": {"high": 1.0}})


def test_a_trial_of_a_task_that_has_gone_is_explained_all_the_same(store: Store) -> None:
    post(store, external(space=SPACE, budget={"trials": 4}))
    train(store, 4)
    extend(store, trials=1, space=GROWN)
    with store.transaction() as tx:
        gone = text("UPDATE rl_studies SET spec = replace(CAST(spec AS text), :old, :new)")
        if tx.connection.dialect.name == "postgresql":
            gone = text(
                "UPDATE rl_studies SET spec = CAST(replace(CAST(spec AS text), :old, :new) AS json)"
            )
        tx.connection.execute(gone, {"old": '"name": "external"', "new": '"name": "gone"'})
    with store.reading() as tx:
        assert studies.find(tx, "s").spec.task.name == "gone"
    assert explaining.explain(store, "s", 1).is_derived_again


def test_sources_are_read_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    post(store, external("old", budget={"trials": 2}))
    for trial in trials.suggest(store, "old", SuggestRequest(count=2)).trials:
        end = CompleteRequest.model_validate({"attempt": trial.attempt, "value": 0.5})
        with store.transaction() as tx:
            reporting.complete(tx, "old", trial.number, end, max_charges=1)
    more = {"x": {"type": "float", "low": 0, "high": 1}, **SPACE}
    post(store, external(space=more, sampler={"name": "gp"}, warm_start=["old"]))
    read = Sources.histories
    calls: list[int] = []

    def counting(self: Sources, study_id: int, space: Space) -> tuple[History, ...]:
        calls.append(study_id)
        return read(self, study_id, space)

    monkeypatch.setattr(Sources, "histories", counting)
    train(store, 3)
    assert len(calls) == 1
    extend(store, space=GROWN)
    train(store, 1)
    assert len(calls) == 2
