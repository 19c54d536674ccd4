"""The sampler for Optuna's own studies, by Optuna's own suite for samplers and our own."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np
import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)

from ridgeline.search.fields import SamplerName
from ridgeline.search.optuna import RidgelineSampler

NAMES: tuple[SamplerName, ...] = ("auto", "gp", "tpe", "random")


class TestBasic(BasicSamplerTestCase):
    @pytest.fixture(params=NAMES)
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return lambda: RidgelineSampler(request.param, seed=3)


class TestRelative(RelativeSamplerTestCase):
    @pytest.fixture(params=NAMES)
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return lambda: RidgelineSampler(request.param, seed=3)


class TestSingleOnly(SingleOnlySamplerTestCase):
    @pytest.fixture(params=NAMES)
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return lambda: RidgelineSampler(request.param, seed=3)


def _objective(trial: optuna.Trial) -> float:
    rate = trial.suggest_float("rate", 1e-5, 1.0, log=True)
    kind = trial.suggest_categorical("kind", ["sgd", "adam", None])
    value = (math.log10(rate) + 2.5) ** 2 + (kind != "adam")
    if kind == "sgd":
        value += (trial.suggest_float("momentum", 0, 1) - 0.9) ** 2
    return value


def _searched(sampler: BaseSampler, num_trials: int = 40) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=sampler)
    study.optimize(_objective, n_trials=num_trials)
    return study


@pytest.mark.parametrize("name", ["auto", "gp", "tpe"])
def test_it_finds_better_trials_than_random(name: SamplerName) -> None:
    best = {
        searched: np.median([_searched(RidgelineSampler(searched, s)).best_value for s in range(3)])
        for searched in (name, "random")
    }
    assert best[name] < best["random"] / 2


def test_the_same_seed_finds_the_same() -> None:
    params = [
        [trial.params for trial in _searched(RidgelineSampler(seed=seed), 15).trials]
        for seed in (1, 1, 2)
    ]
    assert params[0] == params[1] != params[2]


def test_trials_asked_for_together_differ() -> None:
    study = _searched(RidgelineSampler(seed=1), 12)
    distributions = study.trials[0].distributions
    asked = [study.ask(distributions) for _ in range(8)]
    assert len({repr(trial.params) for trial in asked}) == 8


def test_pruned_and_failed_trials_are_learned_from() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        if x > 0.7:
            raise RuntimeError("out of memory")
        trial.report(x, 1)
        if x > 0.4:
            raise optuna.TrialPruned
        return x

    study = optuna.create_study(sampler=RidgelineSampler(seed=4))
    study.optimize(objective, n_trials=30, catch=RuntimeError)
    later = [trial.params["x"] for trial in study.trials[15:]]
    assert np.median(later) < 0.2


def test_ranges_that_no_space_has_are_drawn_at_random() -> None:
    study = optuna.create_study(sampler=RidgelineSampler(seed=4))
    for _ in range(3):
        trial = study.ask()
        tiny = trial.suggest_float("x", 0, 1, step=1e-9)
        many = trial.suggest_categorical("y", range(2_000))
        study.tell(trial, tiny + many)
    assert len(study.trials) == 3


@pytest.mark.parametrize(
    ("name", "seed", "reason"), [("grid", 1, "name must be"), ("gp", -1, "seed must be")]
)
def test_what_it_cannot_be(name: SamplerName, seed: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason), warnings.catch_warnings():
        RidgelineSampler(name, seed)


def test_more_parameters_than_a_space_may_have_are_searched_still() -> None:
    study = optuna.create_study(sampler=RidgelineSampler(seed=4))
    study.optimize(lambda t: sum(t.suggest_float(f"x{n}", 0, 1) for n in range(102)), n_trials=3)
    assert len(study.trials) == 3


def test_parameters_may_have_any_name() -> None:
    study = optuna.create_study(sampler=RidgelineSampler(seed=4))
    study.optimize(lambda t: t.suggest_float("a\x1fb", 0, 1) + t.suggest_int("\ud800", 0, 1), 10)
    assert len(study.trials) == 10


def test_no_configuration_counts_as_tried_because_a_trial_lacks_the_parameter() -> None:
    first = set()
    for seed in range(60):
        study = optuna.create_study(sampler=RidgelineSampler(seed=seed))
        for _ in range(3):
            study.tell(study.ask(), 1.0)
        trial = study.ask()
        study.tell(trial, float(trial.suggest_int("x", 0, 2)))
        study.tell(study.ask(), 1.0)
        first.add(study.ask().suggest_int("x", 0, 2))
    assert first == {0, 1, 2}


@pytest.mark.parametrize("name", ["auto", "tpe"])
def test_infinite_values_are_borne(name: SamplerName) -> None:
    values = [math.inf, -math.inf, 1e308, -1e308, 0.0]
    study = optuna.create_study(sampler=RidgelineSampler(name, seed=4))
    study.optimize(lambda t: values[t.number % 5] + 0 * t.suggest_float("x", 0, 1), n_trials=20)
    assert len(study.trials) == 20
