"""Studies that begin with what others have found."""

from __future__ import annotations

from typing import Any

import pytest

from ridgeline.search.space import Config
from ridgeline.search.spec import StudySpec
from ridgeline.service import sampling, studies, trials, warm_start
from ridgeline.service.errors import InvalidInput
from ridgeline.service.external_protocol import CompleteRequest, SuggestRequest
from ridgeline.service.reporting import complete
from ridgeline.service.resources import Study
from ridgeline.service.store.session import Store
from tests.service.factory import external, post, spec, study_of

RATE = {"type": "float", "low": 1e-4, "high": 1.0, "log": True}
SPACE: dict[str, Any] = {"rate": RATE, "width": {"type": "int", "low": 1, "high": 64}}
BEST = 0.01


def study(name: str, **changes: Any) -> StudySpec:
    defaults = {"space": SPACE, "sampler": {"name": "auto"}, "budget": {"trials": 300}}
    return external(name, **{**defaults, **changes})


def searched(store: Store, name: str, count: int, *, at_once: int = 1) -> list[Config]:
    """The configurations of trials that are tried so many at once; one of them fails."""
    configs: list[Config] = []
    while len(configs) < count:
        found = trials.suggest(store, name, SuggestRequest(count=at_once)).trials
        with store.transaction() as tx:
            for trial in found:
                value = abs(float(trial.config.get("rate", BEST)) / BEST - 1)
                request = CompleteRequest(attempt=1, value=value)
                if trial.number == 3:
                    request = CompleteRequest(attempt=1, state="FAIL", error="diverged")
                complete(tx, name, trial.number, request, max_charges=1)
        configs += [dict(trial.config) for trial in found]
    return configs


def with_source(store: Store) -> None:
    """A study `old` of forty trials."""
    post(store, study("old", sampler={"name": "random"}))
    searched(store, "old", 40, at_once=40)


def refused(store: Store, spec: StudySpec) -> list[tuple[str, str]]:
    with pytest.raises(InvalidInput) as caught:
        post(store, spec)
    return caught.value.problems


@pytest.mark.parametrize("sampler", ["auto", "tpe"])
def test_suggestions_are_derived_again_when_the_source_is_gone(store: Store, sampler: str) -> None:
    with_source(store)
    warm = study("new", sampler={"name": sampler, "seed": 2}, warm_start=["old"])
    post(store, warm)
    post(store, study("cold", sampler={"name": sampler, "seed": 2}))
    searched(store, "old", 5)  # which nobody takes over any more
    chosen = searched(store, "new", 4)
    with store.transaction() as tx:
        studies.apply_verb(tx, "old", "cancel")
        studies.delete(tx, "old")
    store.sources = type(store.sources)()
    chosen += searched(store, "new", 8, at_once=4)
    assert chosen[:4] != searched(store, "cold", 4)
    assert BEST / 3 < float(chosen[0]["rate"]) < BEST * 3
    with store.reading() as tx:
        study_id = studies.find(tx, "new").id
        for number, config in enumerate(chosen):
            assert sampling.rederive(tx, study_id, number).config == config
    (source,) = study_of(store, "new").sources
    assert (source.study, source.num_trials, source.parameters) == ("old", 40, ("rate", "width"))
    with store.transaction() as tx:
        again = studies.changed_spec(tx, "new", {"name": "again"})
        cloned = clone(tx, again, "new")
    assert cloned.sources == (source,)
    assert searched(store, "again", 3) == chosen[:3]


def clone(tx: Any, spec: StudySpec, like: str) -> Study:
    return studies.create(tx, spec, owner=None, local_datasets=(), max_open=100, like=like)


def test_what_does_not_fit_is_left_out(store: Store) -> None:
    with_source(store)
    narrow = {"rate": {**RATE, "high": 0.01}, "depth": {"type": "int", "low": 1, "high": 3}}
    (source,) = post(store, study("new", space=narrow, warm_start=["old"])).sources
    assert source.parameters == ("rate",)
    assert 10 < source.num_trials < 30
    for config in searched(store, "new", 3):
        assert config.keys() == {"rate", "depth"}


def test_many_trials_are_taken_over_as_the_best_and_some_of_every_rank(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_start, "MAX_TRIALS", 10)
    monkeypatch.setattr(warm_start, "_MAX_READ", 20)
    with_source(store)
    post(store, study("new", warm_start=["old"]))
    with store.reading() as tx:
        ((row, taken),) = tx.sources.trials_of(studies.find(tx, "new").id)
        of_old = tx.trials.page(studies.find(tx, "old").id)
    values = [trial.value for trial in taken]
    assert row.num_trials == len(values) == 10
    found = sorted(trial.value for trial in of_old if trial.value is not None)
    assert sorted(value for value in values if value is not None)[:5] == found[:5]
    assert values.count(None) == 1  # the failure, which ranks last


def test_trials_that_were_cancelled_tell_nothing(store: Store) -> None:
    with_source(store)
    trials.suggest(store, "old", SuggestRequest(count=5))
    with store.transaction() as tx:
        studies.apply_verb(tx, "old", "cancel")
    (source,) = post(store, study("new", warm_start=["old"])).sources
    assert source.num_trials == 40


def test_what_tells_nothing_is_refused_by_its_place(store: Store) -> None:
    with_source(store)
    post(store, study("empty"))
    post(store, study("other", space={"x": RATE}))
    searched(store, "other", 1)
    post(store, spec("digits"))
    post(store, study("rising", objective={"metric": "score", "direction": "maximize"}))
    names = ["old", "gone", "empty", "other", "digits"]
    assert refused(store, study("new", warm_start=names)) == [
        ("warm_start.1", "there is no study named gone"),
        ("warm_start.2", "empty has no trial with a value yet"),
        ("warm_start.3", "other has no parameter of this study's space"),
        ("warm_start.4", "digits is of the task mlp, not of external"),
    ]
    assert refused(store, study("new", warm_start=["rising"])) == [
        ("warm_start.0", "rising is to maximize score, not to minimize score")
    ]
    space = {"rate": {"type": "float", "low": 2, "high": 3}}
    assert refused(store, study("new", space=space, warm_start=["old"])) == [
        (
            "warm_start.0",
            "no trial of old is in this study's ranges: rate must be between 2 and 3",
        )
    ]
