"""Optuna's studies as specs, from their storage and from the CSV of their trials."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from ridgeline.search.foreign.draft import Refused
from ridgeline.search.foreign.optuna import of_storage
from ridgeline.search.foreign.trials_csv import of_trials_csv
from ridgeline.search.spec import parse_spec
from tests.search.foreign_optuna import NUM_TRIALS, search, table


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("optuna") / "studies.db"
    search(path)
    return path


@pytest.fixture(scope="module")
def study(storage: Path) -> optuna.Study:
    return optuna.load_study(study_name="wing drag", storage=f"sqlite:///{storage}")


def test_a_study_is_taken_over(storage: Path, study: optuna.Study) -> None:
    before = storage.read_bytes()
    draft = of_storage(f"sqlite:///{storage}", "wing drag")
    assert storage.read_bytes() == before
    spec = parse_spec(draft.spec())
    assert draft.spec() == {
        "name": "wing-drag",
        "task": {"name": "external"},
        "space": {
            "lr": {"type": "float", "low": 1e-5, "high": 0.1, "log": True},
            "layers": {"type": "int", "low": 1, "high": 4},
            "momentum": {"type": "float", "low": 0.5, "high": 0.9, "step": 0.1},
            "shape": {"type": "values", "values": ["round", "flat", "null"]},
            "ribs": {"type": "int", "low": 4, "high": 60, "when": {"shape": ["flat"]}},
        },
        "sampler": {"name": "auto"},
        "objective": {"metric": "value", "direction": "maximize"},
        "budget": {"trials": NUM_TRIALS},
    }
    assert [at for at, _ in draft.notes] == [
        "study_name",
        "sampler",
        "budget.trials",
        "user_attrs.team",
        "params.shape.2",
        "params.ribs",
        "params.ribs",
        "pruner",
        "trials",
    ]
    best = study.best_trial.params
    assert draft.best[0]["lr"] == best["lr"]
    assert len(draft.best) == 10
    assert all(spec.space.problems(config, missing=None) == [] for config in draft.best)


def test_the_only_study_needs_no_name(storage: Path) -> None:
    url = f"sqlite:///{storage}"
    assert of_storage(url, None).spec() == of_storage(url, "wing drag").spec()


def test_a_table_is_taken_over(study: optuna.Study) -> None:
    draft = of_trials_csv(table(study), "trials")
    spec = parse_spec(draft.spec())
    space = draft.spec()["space"]
    tried = [trial.params["lr"] for trial in study.trials]
    assert space["lr"] == {"type": "float", "low": min(tried), "high": max(tried), "log": True}
    assert space["layers"] == {"type": "int", "low": 1, "high": 4}
    assert space["momentum"] == {"type": "float", "low": 0.5, "high": 0.9}
    assert set(space["shape"]["values"]) == {"round", "flat"}
    assert (space["ribs"]["type"], space["ribs"]["when"]) == ("int", {"shape": ["flat"]})
    assert spec.budget.trials == NUM_TRIALS
    assert {at for at, _ in draft.notes} == {
        *("direction", "sampler", "budget.trials", "pruner", "trials"),
        *("params_lr", "params_layers", "params_momentum", "params_shape", "params_ribs"),
    }
    complete = [one for one in study.trials if one.state is optuna.trial.TrialState.COMPLETE]
    worst = min(complete, key=lambda trial: float(trial.value or 0))
    assert draft.best[0]["lr"] == worst.params["lr"]  # a table does not say: maximize


def test_of_several_objectives_the_first_is_taken(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'two.db'}"
    sampler = optuna.samplers.RandomSampler(seed=1)
    two = optuna.create_study(
        storage=url, study_name="two", directions=["maximize", "minimize"], sampler=sampler
    )
    two.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 0.0), n_trials=3)
    draft = of_storage(url, None)
    assert draft.spec()["objective"] == {"metric": "value", "direction": "maximize"}
    assert "directions" in [at for at, _ in draft.notes]
    assert "values_1" in [at for at, _ in of_trials_csv(table(two), "t").notes]


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ("", ""),
        ("a,b\n", ""),
        ('a\n"b', ""),
        ("number,value\n0,1\n", "state"),
        ("number,state,params_x\n0,COMPLETE,1\n", "value"),
        ("number,state,value\n0,COMPLETE,1\n", "params_*"),
        ("state,value,params_x\nCOMPLETE,low,1\n", "value in row 2"),
        ("state,value,params_x\nCOMPLETE,,1\n", "value in row 2"),
        ("state,value,params_x\nFAIL,,\n", ""),
    ],
)
def test_what_is_no_table_is_refused_by_its_column(content: str, field: str) -> None:
    with pytest.raises(Refused) as caught:
        of_trials_csv(content, "t").spec()
    assert [at for at, _ in caught.value.problems] == [field]


def test_columns_have_the_types_of_their_values() -> None:
    head = "state,value,params_flag,params_one,params_mixed,params_none\n"
    draft = of_trials_csv(f"{head}COMPLETE,1,True,2,3,\nCOMPLETE,2,False,2,relu,\n", "t")
    assert draft.spec()["space"] == {
        "flag": {"type": "values", "values": [True, False]},
        "one": {"type": "values", "values": [2]},
        "mixed": {"type": "values", "values": ["3", "relu"]},
    }
    assert ("params_none", "no trial has a value; it is left out") in draft.notes
    assert [config["mixed"] for config in draft.best] == ["3", "relu"]


def test_what_is_no_storage_is_refused(tmp_path: Path, storage: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text("no database, " * 100)
    empty = tmp_path / "empty.db"
    empty.touch()
    for url, part in (
        ("ftp://host/x", "must be a file, or a URL of sqlite, postgresql or mysql"),
        (f"sqlite:///{tmp_path}/absent.db", "there is no such file"),
        ("sqlite://", "there is no such file"),
        (f"sqlite:///{text}", "cannot be read as an Optuna storage"),
        (f"sqlite:///{empty}", "cannot be read as an Optuna storage"),
        ("postgresql+nothing://host/x", "cannot be read as an Optuna storage"),
    ):
        with pytest.raises(Refused, match=part):
            of_storage(url, "x")
    assert empty.read_bytes() == b""
    with pytest.raises(Refused, match="has no study 'no'; it has wing drag"):
        of_storage(f"sqlite:///{storage}", "no")


def test_a_study_without_trials_has_no_space(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'none.db'}"
    optuna.create_study(storage=url, study_name="none")
    with pytest.raises(Refused, match="only trials tell the space"):
        of_storage(url, "none")
