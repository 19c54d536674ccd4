"""Samplers with a model: what they see of the past, what they may propose, and that they search."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.search.fields import Direction, SamplerName
from ridgeline.search.history import History, TrialStatus
from ridgeline.search.ranges import ZERO_SHARE
from ridgeline.search.samplers import sampler_for
from ridgeline.search.samplers.axes import Axes
from ridgeline.search.samplers.candidates import candidates
from ridgeline.search.samplers.outcomes import MAX_TRIALS
from ridgeline.search.space import Config, Space
from tests.search import strategies

NAMES: tuple[SamplerName, ...] = ("auto", "gp", "tpe")

each_sampler = pytest.mark.parametrize("name", NAMES)
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


def _search(name: SamplerName, seed: int, num_trials: int, batch: int = 5) -> History:
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


def _next(
    name: SamplerName, history: History, seed: int = 0, direction: Direction = "minimize"
) -> Config:
    numbers = [len(history)]
    (suggestion,) = sampler_for(name).suggest(history.space, history, numbers, seed, direction)
    return suggestion.config


@each_sampler
def test_it_finds_better_trials_than_random(name: SamplerName) -> None:
    best = {
        searched: np.median([_search(searched, seed, 40).values.min() for seed in range(7)])
        for searched in (name, "random")
    }
    assert best[name] < best["random"] / 2


@each_sampler
def test_it_comes_to_prefer_a_lambda_of_exactly_zero(name: SamplerName) -> None:
    zeros = [_search(name, seed, 50).columns[25:, 1] == 0 for seed in range(3)]
    assert np.mean(zeros) > 3 * ZERO_SHARE


@each_sampler
def test_it_does_not_look_at_results_until_eight_trials_have_a_value(name: SamplerName) -> None:
    history = _past(7)
    _put(history, history.config(0), None, TrialStatus.PRUNED)
    _put(history, history.config(0), None, TrialStatus.FAIL)
    _put(history, history.config(0), None, TrialStatus.RUNNING)
    sampler = sampler_for(name)
    without = History(SPACE)
    for number in range(10):
        _put(without, history.config(number), None, TrialStatus.RUNNING)
    spread = sampler.suggest(SPACE, without, range(10, 13), 4, "minimize")
    assert sampler.suggest(SPACE, history, range(10, 13), 4, "minimize") == spread
    _put(history, history.config(1), 1.0, TrialStatus.PRUNED)
    assert sampler.suggest(SPACE, history, [11], 4, "minimize") != [spread[1]]


@each_sampler
def test_the_direction_turns_values_around(name: SamplerName) -> None:
    history, mirrored = _past(), History(SPACE)
    for number in range(len(history)):
        _put(mirrored, history.config(number), -float(history.values[number]))
    assert _next(name, history) == _next(name, mirrored, direction="maximize")
    assert _next(name, history) != _next(name, mirrored)


@each_sampler
def test_a_pruned_trial_without_a_value_is_left_out(name: SamplerName) -> None:
    left_out, failed = _past(), _past()
    _put(left_out, left_out.config(0), None, TrialStatus.PRUNED)
    # A failure of what has a value elsewhere, too; the number of trials is the same.
    _put(failed, left_out.config(0), None, TrialStatus.FAIL)
    assert _next(name, left_out) == _next(name, failed)


@each_sampler
def test_what_fails_is_avoided(name: SamplerName) -> None:
    space = Space.model_validate({"x": {"type": "float", "low": 0, "high": 1}})
    suggested: dict[TrialStatus, list[float]] = {}
    for state in (TrialStatus.FAIL, TrialStatus.PRUNED):
        history = History(space)
        for number in range(30):
            x = number / 30
            if x > 0.5:  # where the values would go on falling
                _put(history, {"x": x}, None, state)
            else:
                _put(history, {"x": x}, 1 - x)
        suggested[state] = [float(_next(name, history, seed)["x"]) for seed in range(10)]
    assert np.median(suggested[TrialStatus.FAIL]) < 0.55
    assert np.median(suggested[TrialStatus.PRUNED]) > np.median(suggested[TrialStatus.FAIL])


@each_sampler
def test_pruned_trials_count_less_than_complete_ones(name: SamplerName) -> None:
    space = Space.model_validate({"x": {"type": "float", "low": 0, "high": 1}})
    num_high = {}
    for state in (TrialStatus.COMPLETE, TrialStatus.PRUNED):
        history = History(space)
        for number in range(20):
            _put(history, {"x": number / 40}, 1.0 + number / 20)
            _put(history, {"x": 0.75 + number / 80}, -1.0, state)  # better than any other
        suggested = [float(_next(name, history, seed)["x"]) for seed in range(20)]
        num_high[state] = sum(x > 0.6 for x in suggested)
    assert num_high[TrialStatus.COMPLETE] > 15
    assert num_high[TrialStatus.PRUNED] < 5


@each_sampler
def test_pruned_trials_count_by_their_value(name: SamplerName) -> None:
    space = Space.model_validate({"x": {"type": "float", "low": 0, "high": 1}})
    history = History(space)
    for number in range(40):
        x = number / 40
        _put(history, {"x": x}, abs(x - 0.3), TrialStatus.PRUNED)
    suggested = [float(_next(name, history, seed)["x"]) for seed in range(10)]
    assert float(np.median(suggested)) == pytest.approx(0.3, abs=0.1)


@each_sampler
def test_trials_that_wait_are_avoided_like_those_that_run(name: SamplerName) -> None:
    best = {"rate": 10**-2.5, "l2": 0.0, "size": 32}
    suggested: dict[TrialStatus, list[Config]] = {}
    for state in (TrialStatus.WAITING, TrialStatus.RUNNING, TrialStatus.PRUNED):
        history = _past()
        for _ in range(10):
            _put(history, dict(best), None, state)
        suggested[state] = [_next(name, history, seed) for seed in range(10)]
    assert suggested[TrialStatus.WAITING] == suggested[TrialStatus.RUNNING]

    def distance(configs: list[Config]) -> float:
        return float(np.mean([abs(math.log10(float(c["rate"])) + 2.5) for c in configs]))

    assert distance(suggested[TrialStatus.RUNNING]) > distance(suggested[TrialStatus.PRUNED])


@each_sampler
def test_nothing_is_suggested_twice_before_all_has_been_tried(name: SamplerName) -> None:
    space = Space.model_validate(
        {
            "a": {"type": "int", "low": 0, "high": 4},
            "b": {"type": "values", "values": ["x", "y", "z"]},
            "c": {"type": "float", "low": 0, "high": 1, "step": 0.5},
        }
    )
    history, sampler = History(space), sampler_for(name)
    seen: set[str] = set()
    for batch in (3, 5, 1, 1, 10, 25):
        numbers = range(len(history), len(history) + batch)
        for number, chosen in zip(
            numbers, sampler.suggest(space, history, numbers, 5, "minimize"), strict=True
        ):
            state = TrialStatus.FAIL if number % 7 == 3 else TrialStatus.COMPLETE
            value = None if state is TrialStatus.FAIL else float(number % 5)
            seen.add(repr(chosen.config))
            _put(history, chosen.config, value, state)
    assert len(seen) == len(history) == 45
    again = sampler.suggest(space, history, range(45, 50), 5, "minimize")
    assert all(repr(chosen.config) in seen for chosen in again)


@settings(max_examples=40)
@each_sampler
@given(space=strategies.spaces(), seed=st.integers(0, 2**53), data=st.data())
def test_it_serves_every_space_and_proposes_only_its_values(
    name: SamplerName, space: Space, seed: int, data: st.DataObject
) -> None:
    history = History(space)
    for number in range(12):
        config = data.draw(strategies.configs(space))
        state = TrialStatus.COMPLETE if number < 10 else TrialStatus.RUNNING
        _put(history, config, float(number % 4), state)
    suggestions = sampler_for(name).suggest(space, history, [12, 13], seed, "maximize")
    for suggestion in suggestions:
        assert space.problems(suggestion.config) == []
        assert repr(space.ordered(suggestion.config)) == repr(suggestion.config)


@each_sampler
@pytest.mark.parametrize(
    "values",
    [
        [0.0] * 9,
        [1.7e308, -1.7e308] * 5,
        [1e-320] * 9,
        [7.0] * 8 + [1e9],
        [math.inf] * 9,
        [-math.inf, 0.0, math.inf] * 3,
    ],
)
def test_values_of_any_size_are_borne(name: SamplerName, values: list[float]) -> None:
    history = _past(0)
    drawn = sampler_for("random").suggest(SPACE, history, range(len(values)), 1, "minimize")
    for suggestion, value in zip(drawn, values, strict=True):
        _put(history, suggestion.config, value)
    assert SPACE.problems(_next(name, history)) == []


@each_sampler
def test_a_long_queue_of_trials_under_way_is_as_if_asked_at_once(name: SamplerName) -> None:
    sampler, history = sampler_for(name), _past(12)
    together = sampler.suggest(SPACE, history, range(12, 312), 5, "minimize")
    for suggestion in together[:290]:
        _put(history, suggestion.config, None, TrialStatus.RUNNING)
    assert sampler.suggest(SPACE, history, range(302, 312), 5, "minimize") == together[290:]


@each_sampler
def test_no_suggestion_comes_again_because_nothing_is_known_of_the_last_one(
    name: SamplerName,
) -> None:
    history = _past()
    for _ in range(5):
        _put(history, _next(name, history), None, TrialStatus.PRUNED)
    assert len({repr(history.config(number)) for number in range(20, 25)}) == 5


@each_sampler
def test_no_suggestion_comes_again_after_more_trials_than_are_looked_at(name: SamplerName) -> None:
    history = _past(MAX_TRIALS + 50)
    for number in range(10):
        _put(history, _next(name, history), 10.0 + number)
    configs = [repr(history.config(number)) for number in range(MAX_TRIALS + 50, len(history))]
    assert len(set(configs)) == 10


LARGE = {
    "categories": {"type": "values", "values": ["a", "b", "c", "d", "e"]},
    "numbers": {"type": "int", "low": -(2**53), "high": 2**53},
    "exponents": {"type": "int", "low": 1, "high": 2**53, "log": True},
    "steps": {"type": "float", "low": 0, "high": 1, "step": 0.125},
}


@each_sampler
@pytest.mark.parametrize("kind", LARGE)
@pytest.mark.parametrize("num_parameters", [30, 100])
def test_a_finite_space_may_be_as_large_as_it_likes(
    name: SamplerName, kind: str, num_parameters: int
) -> None:
    space = Space.model_validate({f"p{number}": LARGE[kind] for number in range(num_parameters)})
    history = History(space)
    drawn = sampler_for("random").suggest(space, history, range(12), 1, "minimize")
    for suggestion in drawn:
        _put(history, suggestion.config, float(len(history)))
    suggestions = sampler_for(name).suggest(space, history, range(12, 42), 1, "minimize")
    configs = [suggestion.config for suggestion in suggestions]
    assert all(space.problems(config) == [] for config in configs)
    assert len({repr(config) for config in configs}) == 30
    for parameter in space.names:
        assert len({config[parameter] for config in configs}) > 1, "each one is searched"


def test_many_candidates_are_new_until_few_configurations_are() -> None:
    axes = Axes(
        Space.model_validate({name: {"type": "int", "low": 0, "high": 99} for name in ("a", "b")})
    )
    parents_nd = axes.points_of(np.arange(10))
    for num_tried in (100, 5_000, 9_800, 9_990, 10_000):
        tried = np.sort(np.random.default_rng(1).permutation(10_000)[:num_tried])
        found = candidates(axes, tried, parents_nd, 1)
        cells = axes.cells(found.points_cd)
        assert len(set(cells.tolist())) == len(cells) >= min(128, 10_000 - num_tried)
        assert found.are_new == (num_tried < 10_000)
        assert np.isin(cells, tried).any() == (num_tried == 10_000)


def test_candidates_of_a_large_space_are_near_good_ones_too() -> None:
    axes = Axes(Space.model_validate({f"p{number}": LARGE["steps"] for number in range(60)}))
    parents_nd = axes.snapped(np.random.default_rng(1).random((1, 60)))
    found = candidates(axes, axes.cells(parents_nd), parents_nd, 1)
    num_same_c = (np.abs(found.points_cd - parents_nd) < 1e-9).sum(axis=1)
    assert np.count_nonzero(num_same_c > 25) > 500
    assert found.are_new
    assert num_same_c.max() < 60
