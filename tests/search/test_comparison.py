"""Arms become studies on equal terms, and winners studies of fresh seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ridgeline.search.comparison import (
    READY_MADE,
    blamed,
    fresh_study,
    parse_comparison,
    scores_by_seed,
    studies_of,
)
from ridgeline.search.space import Config
from ridgeline.search.spec import InvalidSpec, StudySpec
from ridgeline.search.tasks.settings import Split

EXAMPLES = sorted(Path(__file__).parents[2].glob("examples/regularisation/*.yaml"))

BASE: dict[str, Any] = {
    "task": {"name": "mlp", "dataset": "digits", "hidden": [32]},
    "space": {
        "learning_rate": {"type": "float", "low": 0.001, "high": 0.1, "log": True},
        "batch_size": {"type": "values", "values": [32, 64]},
    },
    "sampler": {"name": "random", "seed": 3},
    "budget": {"trials": 12, "epochs": 20, "seconds": 600.0},
    "pruner": {"name": "median"},
}


LONG: dict[str, Any] = {"type": "int", "low": 100, "high": 200}


def comparison(arms: Any, **changes: Any) -> dict[str, Any]:
    return {"name": "digits", "base": {**BASE, **changes}, "arms": arms}


def problems_of(data: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        parse_comparison(data)
    return dict(caught.value.problems)


def test_each_arm_is_a_study_over_the_base_and_its_own() -> None:
    spec = parse_comparison(comparison(["none", "l2", "dropout+max_norm"]))
    studies = studies_of(spec)
    assert [study.name for study in studies.values()] == [
        "digits-search.none",
        "digits-search.l2",
        "digits-search.dropout.max_norm",
    ]
    shared = ["learning_rate", "batch_size"]
    assert [[*dict(study.space.items())] for study in studies.values()] == [
        shared,
        [*shared, "l2"],
        [*shared, "dropout", "max_norm"],
    ]
    first, *others = studies.values()
    for study in others:
        for field in ("budget", "sampler", "objective", "replicates"):
            assert getattr(study, field) == getattr(first, field)


@pytest.mark.parametrize("task", ["mlp", "cnn"])
def test_all_ready_made_arms_can_be_run(task: str) -> None:
    named = {"name": task, "dataset": "digits"}
    # Nothing moves the images of a perceptron, to which they are vectors.
    arms = [arm for arm in READY_MADE if arm != "augmentation" or task == "cnn"]
    studies = studies_of(parse_comparison(comparison(arms, task=named)))
    norm = studies["batch_norm"].task.model_dump()
    assert norm["batch_norm"] if task == "mlp" else norm["norm"] == "batch"
    early = studies["early_stopping"].early_stopping
    assert early is not None
    assert early.patience == 5


def test_an_arm_of_ones_own_goes_over_what_is_ready_made() -> None:
    arms = {
        "l1": {"space": {"l1": {"type": "values", "values": [0.0, 0.001]}}},
        "wide": {"task": {"hidden": [64]}, "early_stopping": {"patience": 3}},
    }
    studies = studies_of(parse_comparison(comparison(arms)))
    assert studies["l1"].space["l1"].model_dump()["values"] == (0.0, 0.001)
    assert studies["wide"].task.model_dump()["hidden"] == (64,)
    assert studies["wide"].dataset == "digits"


def test_a_winner_trains_by_seeds_that_no_selection_has_seen() -> None:
    spec = parse_comparison({**comparison(["none", "l2", "early_stopping"]), "replicates": 7})
    studies = studies_of(spec)
    fresh = {
        arm: fresh_study(spec, arm, study, {"learning_rate": 0.01, "batch_size": 32})
        for arm, study in studies.items()
    }
    assert len({study.sampler.seed for study in fresh.values()}) == 1
    for arm, study in fresh.items():
        assert study.sampler.seed != studies[arm].sampler.seed
        assert (study.num_trials, study.replicates, study.pruner) == (1, 7, None)
        assert study.task == studies[arm].task
        assert study.early_stopping == studies[arm].early_stopping
        assert study.budget.epochs == 20
        assert study.budget.seconds is None
        assert study.name == f"digits-fresh.{arm}"
        assert fixed(study) == {"learning_rate": 0.01, "batch_size": 32}


def test_a_winner_may_have_flags_choices_and_a_zero() -> None:
    winner: Config = {"nesterov": True, "optimizer": "sgd", "l2": 0.0, "epochs": 3}
    spec = parse_comparison(comparison(["none", "l2"]))
    study = fresh_study(spec, "l2", studies_of(spec)["l2"], winner)
    assert fixed(study) == winner


def fixed(study: StudySpec) -> Config:
    """The one configuration of a study."""
    return study.space.cell(0)


def test_a_problem_of_all_arms_is_the_bases() -> None:
    found = problems_of(comparison(["none", "l2"], budget={"epochs": 20}))
    assert found == {"base.budget.trials": "is needed with the sampler random"}


@pytest.mark.parametrize("name", ["mine", None, 3])
def test_a_name_in_the_base_is_refused_as_nothing_would_have_it(name: Any) -> None:
    found = problems_of(comparison(["none", "l2"], name=name))
    assert [*found] == ["base.name"]
    assert "named after the comparison" in found["base.name"]
    found = problems_of(comparison(["none", "l2"], name=name, budget={"epochs": 20}))
    assert [*found] == ["base.name", "base.budget.trials"]


def test_arms_begin_alike() -> None:
    found = problems_of(comparison(["none", "l2"], sampler={"name": "auto"}, warm_start=["old"]))
    assert [*found] == ["base.warm_start"]


def test_a_problem_of_one_arm_names_it() -> None:
    found = problems_of(comparison(["none", "dropout"], task={"name": "linear", "dataset": "wine"}))
    assert list(found) == ["arms.dropout.space.dropout"]
    found = problems_of(comparison({"none": {}, "bad": {"space": {"l2": {"type": "float"}}}}))
    assert list(found) == ["arms.bad.space.l2.low", "arms.bad.space.l2.high"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("task", 3), ("task", "mlp"), ("space", None), ("early_stopping", 5), ("penalty", [])],
)
def test_an_arm_hides_no_mistake_of_the_base(field: str, value: Any) -> None:
    arms = {
        "none": {},
        "own": {"space": {"l2": LONG}, "penalty": {"penalize": "all"}},
        "early_stopping": {},
        "batch_norm": {},
    }
    found = problems_of(comparison(arms, **{field: value}))
    assert found == {f"base.{field}": "must be an object"}


def test_early_stopping_may_be_switched_off_for_all_but_an_arm() -> None:
    studies = studies_of(
        parse_comparison(comparison(["none", "early_stopping"], early_stopping=None))
    )
    assert studies["none"].early_stopping is None
    assert studies["early_stopping"].early_stopping is not None


@pytest.mark.parametrize(
    ("arm", "field", "expected"),
    [
        ("none", "task.dataset", "base.task.dataset"),
        ("none", "objective.metric", "base.objective.metric"),
        ("dropout", "space.dropout", "arms.dropout.space.dropout"),
        ("dropout", "space.learning_rate", "base.space.learning_rate"),
        ("wide", "task.hidden.0", "arms.wide.task.hidden.0"),
        ("wide", "task", "arms.wide.task"),
        ("wide", "", "arms.wide"),
    ],
)
def test_what_the_service_refuses_is_told_where_it_stands(
    arm: str, field: str, expected: str
) -> None:
    arms = {"none": {}, "dropout": {}, "wide": {"task": {"hidden": [64]}}}
    assert blamed(parse_comparison(comparison(arms)), arm, field) == expected


@pytest.mark.parametrize(
    ("arms", "field"),
    [
        ({"none": {}, "long": {"budget": {"trials": 99}}}, "arms.long.budget"),
        ({"none": {}, "other": {"sampler": {"name": "tpe"}}}, "arms.other.sampler"),
        ({"none": {}, "rows": {"task": {"dataset": "wine"}}}, "arms.rows.task.dataset"),
        ({"none": {}, "rows": {"task": {"split": {"seed": 1}}}}, "arms.rows.task.split"),
        ({"none": {}, "long": {"space": {"epochs": LONG}}}, "arms.long.space.epochs"),
        (["none", "dropout+dropuot"], "arms.dropout+dropuot"),
        (["none", "dropuot"], "arms.dropuot"),
        ({"none": {}, "dropuot": {}}, "arms.dropuot"),
        (["none"], "arms"),
        (["none", "none"], "arms"),
        (["none", 3], "arms"),
        ({"none": {}, "a.b": {}}, "arms.a.b"),
        ({"none": {}, "l2": []}, "arms.l2"),
        ({"none": {}, "l2": {"name": "mine"}}, "arms.l2.name"),
        ("none", "arms"),
    ],
)
def test_what_would_not_be_fair_or_makes_no_sense_is_refused(arms: Any, field: str) -> None:
    assert list(problems_of(comparison(arms))) == [field]


def test_all_arms_train_on_the_same_folds() -> None:
    folds = {"name": "mlp", "dataset": "digits", "split": {"folds": 4}}
    spec = parse_comparison(comparison(["none", "l2"], task=folds))
    studies = studies_of(spec)
    assert {study.num_runs for study in studies.values()} == {4}
    winner: Config = {"learning_rate": 0.1, "batch_size": 32}
    fresh = fresh_study(spec, "none", studies["none"], winner)
    assert (fresh.num_divisions, fresh.num_runs) == (4, 20)
    scores: dict[int, float | None] = {run: float(run) for run in range(20)}
    assert scores_by_seed(fresh, scores) == [1.5, 5.5, 9.5, 13.5, 17.5]
    del scores[4]
    scores[19] = None
    assert scores_by_seed(fresh, scores) == [1.5, None, 9.5, 13.5, None]
    arms = {"none": {}, "other": {"task": {"split": {"folds": 2}}}}
    assert "base.split" not in problems_of(comparison(arms))
    assert "arms.other.task.split" in problems_of(comparison(arms))
    many = {**comparison(["none", "l2"], task=folds), "replicates": 26}
    assert problems_of(many)["replicates"].startswith("26 by 4 divisions of the rows are 104 runs")


ALL = {"train_on": "train+validation"}
WINNER: Config = {"learning_rate": 0.01, "batch_size": 32}


def test_winners_may_train_on_all_rows_but_those_of_test() -> None:
    data = comparison(["none", "early_stopping"])
    plain, spec = parse_comparison(data), parse_comparison({**data, **ALL})
    assert studies_of(spec) == studies_of(plain), "no search is another one for that"
    for arm, study in studies_of(spec).items():
        usual = fresh_study(plain, arm, study, WINNER, [3, 4])
        assert usual == fresh_study(plain, arm, study, WINNER)
        assert usual.early_stopping == study.early_stopping
        fresh = fresh_study(spec, arm, study, WINNER, [3, 4])
        assert fresh.task.model_dump()["split"] == {**Split().model_dump(), **ALL}
        assert fresh.early_stopping is None
        assert fresh.budget.epochs == (20 if arm == "none" else 4), "halves are rounded up"
        assert (fresh.sampler, fresh.space) == (usual.sampler, usual.space)


def test_the_number_of_epochs_takes_the_place_of_one_that_was_searched() -> None:
    space = {"epochs": {"type": "values", "values": [10, 50]}}
    data = comparison(["none", "l2"], space=space, early_stopping={"patience": 2}, pruner=None)
    spec = parse_comparison({**data, **ALL})
    winner: Config = {"epochs": 50, "l2": 0.001}
    study = fresh_study(spec, "l2", studies_of(spec)["l2"], winner, [7])
    assert fixed(study) == {"epochs": 7, "l2": 0.001}


def test_folds_come_to_one_division_where_all_rows_train() -> None:
    folds = {"name": "mlp", "dataset": "digits", "split": {"folds": 4, "repeats": 5}}
    data = {**comparison(["none", "l2"], task=folds), "replicates": 26}
    assert list(problems_of(data)) == ["replicates"]
    spec = parse_comparison({**data, **ALL})
    fresh = fresh_study(spec, "none", studies_of(spec)["none"], WINNER)
    assert (fresh.num_divisions, fresh.num_runs) == (1, 26)
    assert scores_by_seed(fresh, dict.fromkeys(range(26), 1.0)) == [1.0] * 26


def test_a_schedule_that_goes_by_the_epochs_is_refused_with_early_stopping() -> None:
    cosine = {"schedule": {"type": "values", "values": ["constant", "cosine"]}}
    arms = {"none": {}, "early_stopping": {}, "cosine": {"space": cosine}}
    parse_comparison({**comparison(arms), **ALL})
    parse_comparison(comparison({**arms, "early_stopping": {"space": cosine}}))
    found = problems_of({**comparison({**arms, "early_stopping": {"space": cosine}}), **ALL})
    assert list(found) == ["arms.early_stopping.early_stopping"]
    assert "as many epochs" in found["arms.early_stopping.early_stopping"]
    warm = {**BASE["space"], "warmup": {"type": "float", "low": 0.0, "high": 0.2}}
    early = comparison(["none", "l2"], space=warm, early_stopping={"patience": 3})
    assert list(problems_of({**early, **ALL})) == ["base.early_stopping"]
    task = {**BASE["task"], "defaults": {"schedule": "step"}}
    early = comparison(["none", "l2"], task=task, early_stopping={"patience": 3})
    assert list(problems_of({**early, **ALL})) == ["base.early_stopping"]


def test_a_search_trains_on_training_rows_alone() -> None:
    task = {**BASE["task"], "split": ALL}
    assert "base.task.split.train_on" in problems_of(comparison(["none", "l2"], task=task))
    one = {"learning_rate": {"type": "values", "values": [0.1]}}
    data = comparison({"none": {}, "wide": {"task": {"hidden": [64]}}}, task=task, space=one)
    data["base"].pop("pruner")
    assert list(problems_of(data)) == ["base.task.split.train_on"]
    assert list(problems_of({**data, "train_on": "test"})) == ["train_on"]


def test_a_task_without_a_split_cannot_train_on_more(monkeypatch: pytest.MonkeyPatch) -> None:
    data = comparison(["none", "l2"])
    monkeypatch.setattr("ridgeline.search.comparison._split", lambda study: None)
    parse_comparison(data)
    found = problems_of({**data, **ALL})
    assert found == {"train_on": "must be train: the task mlp has no split"}


def test_other_fields_are_checked() -> None:
    assert list(problems_of({**comparison(["none", "l2"]), "replicates": 2})) == ["replicates"]
    assert list(problems_of({**comparison(["none", "l2"]), "arm": 1})) == ["arm"]
    external = {"task": {"name": "external"}, "objective": {"metric": "m", "direction": "minimize"}}
    space = {"x": {"type": "float", "low": 0.0, "high": 1.0}}
    data = comparison({"none": {}, "a": {"task": {}}}, space=space, **external)
    assert "base.task.name" in problems_of(data)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_can_be_run(path: Path) -> None:
    parse_comparison(yaml.safe_load(path.read_text()))


def test_a_spec_is_plain_data() -> None:
    spec = parse_comparison(comparison({"none": {}, "l2": {}}))
    again = parse_comparison(yaml.safe_load(yaml.safe_dump(spec.model_dump(mode="json"))))
    assert again == spec
