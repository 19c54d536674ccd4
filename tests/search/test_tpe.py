"""TPE: what it sees of the past, what it may propose, and that it searches."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from ridgeline.search.fields import Direction
from ridgeline.search.history import History, TrialStatus
from ridgeline.search.ranges import ZERO_SHARE
from ridgeline.search.samplers import sampler_for
from ridgeline.search.seeds import derive
from ridgeline.search.space import Config, Space
from tests.search import strategies

TPE = sampler_for("tpe")
SPACE = Space.model_validate(
    {
        "rate": {"type": "float", "low": 1e-5, "high": 1, "log": True},
        "l2": {"type": "float", "low": 1e-6, "high": 1e-1, "log": True, "zero": True},
        "size": {"type": "values", "values": [16, 32, 500]},
    }
)


def _quadratic(config: Config) -> float:
    """Least at a rate of 10^-2.5, no penalty and size 32; a penalty of 0 counts as one of 1e-7."""
    rate = math.log10(float(config["rate"])) + 2.5
    penalty = math.log10(float(config["l2"]) or 1e-7) + 7
    size = math.log2(float(config["size"])) - 5
    return rate**2 + 0.1 * penalty**2 + size**2


def _put(
    history: History,
    config: Config,
    value: float | None,
    state: TrialStatus = TrialStatus.COMPLETE,
) -> None:
    history.put(len(history), config, enqueued=False, state=state, value=value)


def _search(name: Any, seed: int, num_trials: int, batch: int = 5) -> History:
    history = History(SPACE)
    while len(history) < num_trials:
        numbers = range(len(history), len(history) + batch)
        for suggestion in sampler_for(name).suggest(SPACE, history, numbers, seed, "minimize"):
            _put(history, suggestion.config, _quadratic(suggestion.config))
    return history


def _past(num_trials: int = 20) -> History:
    history = History(SPACE)
    for suggestion in sampler_for("random").suggest(
        SPACE, history, range(num_trials), 1, "minimize"
    ):
        _put(history, suggestion.config, _quadratic(suggestion.config))
    return history


def _next(history: History, seed: int = 0, direction: Direction = "minimize") -> Config:
    (suggestion,) = TPE.suggest(history.space, history, [len(history)], seed, direction)
    return suggestion.config


def test_it_finds_better_trials_than_random() -> None:
    best = {
        name: np.median([_search(name, seed, 40).values.min() for seed in range(7)])
        for name in ("tpe", "random")
    }
    assert best["tpe"] < best["random"] / 2


def test_it_comes_to_prefer_a_lambda_of_exactly_zero() -> None:
    zeros = [_search("tpe", seed, 50).columns[25:, 1] == 0 for seed in range(3)]
    assert np.mean(zeros) > 3 * ZERO_SHARE


def test_it_suggests_what_random_would_until_ten_trials_have_a_value() -> None:
    history = _past(9)
    _put(history, history.config(0), None, TrialStatus.PRUNED)
    _put(history, history.config(0), None, TrialStatus.FAIL)
    _put(history, history.config(0), None, TrialStatus.RUNNING)
    drawn = sampler_for("random").suggest(SPACE, history, range(12, 15), 4, "minimize")
    assert TPE.suggest(SPACE, history, range(12, 15), 4, "minimize") == drawn
    _put(history, history.config(1), 1.0, TrialStatus.PRUNED)
    drawn = sampler_for("random").suggest(SPACE, history, [13], 4, "minimize")
    assert TPE.suggest(SPACE, history, [13], 4, "minimize") != drawn


def test_the_direction_turns_values_around() -> None:
    history, mirrored = _past(), History(SPACE)
    for number in range(len(history)):
        _put(mirrored, history.config(number), -float(history.values[number]))
    assert _next(history) == _next(mirrored, direction="maximize")
    assert _next(history) != _next(mirrored)


@pytest.mark.parametrize("state", [TrialStatus.FAIL, TrialStatus.PRUNED])
def test_trials_that_came_to_nothing_are_left_out(state: TrialStatus) -> None:
    history = _past()
    left_out = history.copy()
    _put(left_out, history.config(0), None, state)
    # The number is the same, so that only the past can make a difference.
    _put(history, history.config(0), None, TrialStatus.FAIL)
    assert _next(history) == _next(left_out)


def test_pruned_trials_count_less_than_complete_ones() -> None:
    space = Space.model_validate({"kind": {"type": "values", "values": ["a", "b"]}})
    num_b = {}
    for state in (TrialStatus.COMPLETE, TrialStatus.PRUNED):
        history = History(space)
        for number in range(20):
            _put(history, {"kind": "a"}, float(number))
            _put(history, {"kind": "b"}, -1.0, state)  # better than any other
        num_b[state] = [_next(history, seed)["kind"] for seed in range(20)].count("b")
    assert num_b[TrialStatus.COMPLETE] > 15
    assert num_b[TrialStatus.PRUNED] < 5


def test_pruned_trials_count_by_their_value() -> None:
    space = Space.model_validate({"x": {"type": "float", "low": 0, "high": 1}})
    history = History(space)
    for number in range(40):
        x = number / 40
        _put(history, {"x": x}, abs(x - 0.3), TrialStatus.PRUNED)
    suggested = [float(_next(history, seed)["x"]) for seed in range(10)]
    assert float(np.median(suggested)) == pytest.approx(0.3, abs=0.1)


def test_trials_that_wait_are_avoided_like_those_that_run() -> None:
    best = {"rate": 10**-2.5, "l2": 0.0, "size": 32}
    suggested: dict[TrialStatus, list[Config]] = {}
    for state in (TrialStatus.WAITING, TrialStatus.RUNNING, TrialStatus.FAIL):
        history = _past()
        for _ in range(10):
            _put(history, dict(best), None, state)
        suggested[state] = [_next(history, seed) for seed in range(10)]
    assert suggested[TrialStatus.WAITING] == suggested[TrialStatus.RUNNING]

    def distance(configs: list[Config]) -> float:
        return float(np.mean([abs(math.log10(float(c["rate"])) + 2.5) for c in configs]))

    assert distance(suggested[TrialStatus.RUNNING]) > distance(suggested[TrialStatus.FAIL])


@settings(max_examples=40)
@given(strategies.spaces(), st.integers(0, 2**53), st.data())
def test_it_serves_every_space_and_proposes_only_its_values(
    space: Space, seed: int, data: st.DataObject
) -> None:
    history = History(space)
    for number in range(12):
        config = data.draw(strategies.configs(space))
        state = TrialStatus.COMPLETE if number < 10 else TrialStatus.RUNNING
        _put(history, config, float(number % 4), state)
    suggestions = TPE.suggest(space, history, [12, 13], seed, "maximize")
    for suggestion in suggestions:
        assert space.problems(suggestion.config) == []
        assert repr(space.ordered(suggestion.config)) == repr(suggestion.config)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_it_is_optunas_tpe(direction: Direction) -> None:
    """An ordinary Optuna study, filled in the ordinary way, asks for the same."""
    space = Space.model_validate(
        {
            "a": {"type": "int", "low": -5, "high": 20},
            "b": {"type": "values", "values": ["x", "y", "z"]},
            "c": {"type": "int", "low": 1, "high": 1000, "log": True},
        }
    )
    axes = {
        "a": IntDistribution(-5, 20),
        "b": CategoricalDistribution(["x", "y", "z"]),
        "c": IntDistribution(1, 1000, log=True),
    }
    history = History(space)
    study = optuna.create_study(direction=direction)
    drawn = sampler_for("random").suggest(space, history, range(30), 8, direction)
    for number, suggestion in enumerate(drawn):
        value = float(suggestion.seed % 10)
        if number % 7 == 3:
            _put(history, suggestion.config, None, TrialStatus.RUNNING)
            state: dict[str, Any] = {"state": TrialState.RUNNING}
        elif number % 7 == 5:
            _put(history, suggestion.config, value, TrialStatus.PRUNED)
            state = {"state": TrialState.PRUNED, "intermediate_values": {1: value}}
        else:
            _put(history, suggestion.config, value)
            state = {"value": value}
        study.add_trial(create_trial(params=suggestion.config, distributions=axes, **state))
    study.sampler = optuna.samplers.TPESampler(
        seed=derive(6, "tpe", 30) % 2**32, multivariate=True, constant_liar=True
    )
    assert _next(history, 6, direction) == study.ask(axes).params


def test_it_says_nothing(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    optuna.logging.enable_propagation()
    verbosity = optuna.logging.get_verbosity()
    try:
        with caplog.at_level(logging.DEBUG):
            _next(_past())
        assert caplog.records == []
    finally:
        optuna.logging.disable_propagation()
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == verbosity
