"""What samplers make of the trials of other studies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from ridgeline.search.fields import SamplerName
from ridgeline.search.history import History, TrialStatus
from ridgeline.search.samplers import sampler_for
from ridgeline.search.samplers.base import Suggestion
from ridgeline.search.samplers.gaussian_process import Kernel
from ridgeline.search.samplers.trend import Trend
from ridgeline.search.space import Config, Space
from ridgeline.search.warm_start import SourceTrial, fingerprint, history_of, most_telling

RATE = {"type": "float", "low": 1e-5, "high": 1, "log": True}
SPACE = Space.model_validate(
    {
        "rate": RATE,
        "optimizer": {"type": "values", "values": ["sgd", "adam"]},
        "momentum": {"type": "float", "low": 0, "high": 0.9, "when": {"optimizer": ["sgd"]}},
    }
)
BEST_RATE = 10**-3.5

each_sampler = pytest.mark.parametrize("name", ["auto", "tpe"])


def _loss(config: Config) -> float:
    """Least at `BEST_RATE`."""
    return (math.log10(float(config["rate"])) + 3.5) ** 2


def _past(space: Space, value: Callable[[Config], float] = _loss, count: int = 40) -> History:
    history = History(space)
    drawn = sampler_for("random").suggest(space, history, range(count), 9, "minimize")
    for one in drawn:
        state = TrialStatus.COMPLETE
        history.put(one.number, one.config, enqueued=False, state=state, value=value(one.config))
    return history


def _source(value: Callable[[Config], float] = _loss, count: int = 40) -> History:
    """A study of a rate and of whatever this one does not search."""
    space = Space.model_validate({"rate": RATE, "old": {"type": "int", "low": 1, "high": 9}})
    trials = [
        SourceTrial(config={"rate": config["rate"]}, state="COMPLETE", value=value(config))
        for config in map(_past(space, value, count).config, range(count))
    ]
    return history_of(SPACE, ["rate"], trials)


def _suggest(
    name: SamplerName, history: History, numbers: Sequence[int], sources: Sequence[History]
) -> list[Suggestion]:
    return sampler_for(name).suggest(SPACE, history, numbers, 3, "minimize", sources=sources)


@each_sampler
def test_the_first_trial_is_where_a_source_was_good(name: SamplerName) -> None:
    (first,) = _suggest(name, History(SPACE), [0], [_source()])
    assert BEST_RATE / 2 < float(first.config["rate"]) < BEST_RATE * 2
    assert SPACE.problems(first.config) == []
    assert _suggest(name, History(SPACE), [0], []) != [first]


@each_sampler
@pytest.mark.parametrize("first", [0, 2, 20])
def test_asking_for_many_is_asking_for_one_after_the_other(name: SamplerName, first: int) -> None:
    history, sources = _past(SPACE, count=first), [_source(), _source(lambda c: -_loss(c))]
    together = _suggest(name, history, range(first, first + 6), sources)
    one_by_one: list[Suggestion] = []
    for number in range(first, first + 6):
        one_by_one += _suggest(name, history, [number], sources)
        config, state = one_by_one[-1].config, TrialStatus.RUNNING
        history.put(number, config, enqueued=False, state=state, value=None)
    assert together == one_by_one


@each_sampler
def test_a_source_that_misleads_is_overruled(name: SamplerName) -> None:
    """By twenty trials that say the opposite."""
    misleading = _source(lambda config: -_loss(config))
    chosen = _suggest(name, _past(SPACE, count=20), range(20, 24), [misleading])
    rates = [math.log10(float(one.config["rate"])) for one in chosen]
    assert np.median(np.abs(np.array(rates) + 3.5)) < 0.6


@each_sampler
@pytest.mark.parametrize("state", ["FAIL", "PRUNED"])
def test_a_source_may_have_few_trials_and_lack_values_of_some(
    name: SamplerName, state: str
) -> None:
    trials = [
        SourceTrial.model_validate({"config": {"rate": 0.1, **more}, "state": state, "value": None})
        for more in ({}, {"momentum": 0.5}, {"optimizer": "adam"})
    ]
    complete = SourceTrial(config={"rate": BEST_RATE}, state="COMPLETE", value=1.0)
    for count in range(len(trials) + 1):
        source = history_of(SPACE, SPACE.names, [complete, *trials[:count]])
        for suggestion in _suggest(name, History(SPACE), range(5), [source]):
            assert SPACE.problems(suggestion.config) == []


def test_the_weight_of_a_source_follows_from_how_right_it_was() -> None:
    generator = np.random.default_rng(0)
    kernel = Kernel(np.array([0.3]), np.zeros(1, np.bool_), 0.3, 0.05)
    x_nf = generator.random((20, 1))
    right_n = np.sin(7 * x_nf[:, 0])
    target_n = (right_n - right_n.mean()) / right_n.std()
    random_n = generator.standard_normal(20)
    expected_ns = np.stack([5 * right_n, random_n, -right_n], axis=1)
    weights = [
        Trend.after(kernel, x_nf, target_n, expected_ns[:, [i]]).weight_s[0] for i in range(3)
    ]
    assert weights[0] > 0.8
    assert weights[1] < 0.2
    assert weights[2] == 0
    together = Trend.after(kernel, x_nf, target_n, expected_ns).weight_s
    assert together[0] > 3 * together[1:].sum()


def test_no_weight_is_known_before_any_trial() -> None:
    trend = Trend.before(np.zeros((0, 4)))
    assert trend.weight_s.tolist() == [0.2] * 4
    assert trend.scaled(np.ones((2, 4))).tolist() == np.ones((2, 4)).tolist()


def test_the_trials_that_tell_most() -> None:
    states = ["COMPLETE", "FAIL", "PRUNED", "COMPLETE", "COMPLETE", "COMPLETE"]
    values = [0.5, None, 0.9, 0.7, 0.8, 0.6]
    assert most_telling(states, values, "maximize", 4).tolist() == [1, 3, 4, 5]
    assert most_telling(states, values, "minimize", 4).tolist() == [0, 1, 3, 5]
    assert most_telling(states, values, "minimize", 6).tolist() == list(range(6))


def test_a_fingerprint_tells_what_was_taken_over() -> None:
    trial = SourceTrial(config={"rate": 0.1}, state="COMPLETE", value=1.0)
    other = trial.model_copy(update={"value": 2.0})
    told = {
        fingerprint(*args)
        for args in (
            ("a", 3, ["rate"], [trial]),
            ("b", 3, ["rate"], [trial]),
            ("a", 4, ["rate"], [trial]),
            ("a", 3, ["rate"], [other]),
            ("a", 3, ["rate"], [trial, trial]),
        )
    }
    assert len(told) == 5
