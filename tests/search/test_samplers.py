"""The contract of every sampler: a pure function of space, history, number and seed."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline.search.fields import SamplerName
from ridgeline.search.history import History, TrialStatus
from ridgeline.search.samplers import sampler_for
from ridgeline.search.samplers.base import Sampler, Suggestion
from ridgeline.search.space import Config, Space
from tests.search import strategies

SPACE = Space.model_validate(
    {
        "learning_rate": {"type": "float", "low": 1e-5, "high": 1, "log": True, "points": 6},
        "batch_size": {"type": "values", "values": [16, 32, 64, 200]},
        "l2": {"type": "float", "low": 1e-6, "high": 0.1, "log": True, "zero": True, "points": 6},
        "dropout": {"type": "float", "low": 0, "high": 0.5, "step": 0.1},
        "decay": {"type": "float", "low": 0.1, "high": 0.5, "step": 0.2, "zero": True},
        "layers": {"type": "int", "low": 1, "high": 4},
        "only": {"type": "values", "values": [7]},
        "optimizer": {"type": "values", "values": ["sgd", "adam", True]},
    }
)

NAMES: tuple[SamplerName, ...] = get_args(SamplerName)
DRAWING = tuple(name for name in NAMES if name != "grid")

samplers = pytest.mark.parametrize(
    "sampler",
    [sampler_for(name) for name in NAMES],
    ids=NAMES,
)


def _value_of(config: Config) -> float:
    rate, penalty = float(config["learning_rate"]), float(config["l2"])
    return (math.log10(rate) + 2) ** 2 + penalty + float(config["dropout"])


def _history(num_trials: int, *, every_state: bool = True) -> History:
    """Trials in all states and of both origins, the first twelve of them complete."""
    history = History(SPACE)
    suggestions = sampler_for("random").suggest(SPACE, history, range(num_trials), 99, "minimize")
    for number, suggestion in enumerate(suggestions):
        state = TrialStatus.COMPLETE
        if every_state and number >= 12:
            state = TrialStatus(number % len(TrialStatus))
        ended = state in (TrialStatus.COMPLETE, TrialStatus.PRUNED)
        value = _value_of(suggestion.config) if ended else None
        history.put(number, suggestion.config, enqueued=number % 5 == 0, state=state, value=value)
    return history


def _suggest(
    sampler: Sampler, history: History, numbers: Sequence[int], seed: int = 3
) -> list[Suggestion]:
    return sampler.suggest(history.space, history, numbers, seed, "minimize")


def test_identities_name_what_was_run() -> None:
    identities = [sampler_for(name).identity for name in NAMES]
    assert identities == ["auto/1", "gp/1", "tpe/3", "random/2", "grid/1"]
    assert max(map(len, identities)) <= 32


@samplers
def test_suggestions_are_configurations_of_the_space(sampler: Sampler) -> None:
    suggestions = _suggest(sampler, _history(30), range(30, 50))
    assert [suggestion.number for suggestion in suggestions] == list(range(30, 50))
    for suggestion in suggestions:
        assert SPACE.problems(suggestion.config) == []
        assert repr(SPACE.ordered(suggestion.config)) == repr(suggestion.config)
        assert 0 <= suggestion.seed < 2**53
    assert len({suggestion.seed for suggestion in suggestions}) == 20


@samplers
def test_the_same_arguments_give_the_same_suggestions(sampler: Sampler) -> None:
    history = _history(30)
    before = history.copy()
    assert _suggest(sampler, history, [30, 31]) == _suggest(sampler, history, [30, 31])
    assert len(history) == 30
    assert history.columns.tolist() == before.columns.tolist()
    assert history.states.tolist() == before.states.tolist()


@samplers
def test_global_generators_have_no_say(sampler: Sampler) -> None:
    history = _history(30)
    first = _suggest(sampler, history, [30])
    random.seed(5)
    np.random.seed(5)
    state = repr(np.random.get_state())
    assert _suggest(sampler, history, [30]) == first
    assert repr(np.random.get_state()) == state


@samplers
@pytest.mark.parametrize("first", [0, 5, 11, 30])
def test_asking_for_two_is_asking_for_one_and_then_the_next(sampler: Sampler, first: int) -> None:
    history = _history(first)
    together = _suggest(sampler, history, [first, first + 1, first + 2])
    one_by_one: list[Suggestion] = []
    for number in range(first, first + 3):
        one_by_one += _suggest(sampler, history, [number])
        history.put(
            number,
            one_by_one[-1].config,
            enqueued=False,
            state=TrialStatus.RUNNING,
            value=None,
        )
    assert together == one_by_one


@samplers
def test_only_the_trials_below_are_read(sampler: Sampler) -> None:
    assert _suggest(sampler, _history(60), [20, 21]) == _suggest(sampler, _history(20), [20, 21])


@samplers
def test_asking_for_nothing(sampler: Sampler) -> None:
    assert _suggest(sampler, _history(3), []) == []


@pytest.mark.parametrize("name", DRAWING)
@pytest.mark.parametrize("num_trials", [0, 30])
def test_another_seed_gives_other_suggestions(name: SamplerName, num_trials: int) -> None:
    sampler, history = sampler_for(name), _history(num_trials)
    suggested = {repr(_suggest(sampler, history, [num_trials], s)[0].config) for s in range(10)}
    assert len(suggested) == 10


@pytest.mark.parametrize("name", DRAWING)
@pytest.mark.parametrize("num_trials", [0, 30])
def test_trials_at_once_are_different_ones(name: SamplerName, num_trials: int) -> None:
    history = _history(num_trials)
    suggestions = _suggest(sampler_for(name), history, range(num_trials, num_trials + 10))
    assert len({repr(suggestion.config) for suggestion in suggestions}) == 10


def _told() -> str:
    suggested = [
        [suggestion.number, suggestion.config, suggestion.seed, suggestion.grid_cell]
        for name in NAMES
        for suggestion in _suggest(sampler_for(name), _history(30), [30, 31])
    ]
    return json.dumps(suggested)


def test_other_processes_suggest_the_same() -> None:
    script = "import tests.search.test_samplers as module; print(module._told(), end='')"
    for hash_seed in ("1", "2"):
        told = subprocess.run(
            [sys.executable, "-c", script],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        assert told == _told()


# Grid


@given(st.lists(st.booleans(), max_size=30))
def test_a_grid_visits_each_cell_once_whatever_was_enqueued(enqueued: list[bool]) -> None:
    space = Space.model_validate(
        {
            "a": {"type": "int", "low": 0, "high": 2},
            "b": {"type": "values", "values": ["x", "y"]},
        }
    )
    sampler, history = sampler_for("grid"), History(space)
    cells: list[int | None] = []
    while len(cells) < 6:
        number = len(history)
        by_hand = number < len(enqueued) and enqueued[number]
        config: Config = {"a": 1, "b": "y"}
        if not by_hand:
            (suggestion,) = _suggest(sampler, history, [number])
            assert suggestion.grid_cell is not None
            assert suggestion.config == space.cell(suggestion.grid_cell)
            cells.append(suggestion.grid_cell)
            config = suggestion.config
        failed = TrialStatus.FAIL
        history.put(number, config, enqueued=by_hand, state=failed, value=None)
    assert cells == list(range(6))
    with pytest.raises(IndexError):
        _suggest(sampler, history, [len(history)])


def test_an_absurd_grid_is_not_materialised() -> None:
    axis = {"type": "values", "values": list(range(1_000))}
    space = Space.model_validate({f"p{i}": axis for i in range(100)})
    history = History(space)
    (suggestion,) = _suggest(sampler_for("grid"), history, [0])
    assert set(suggestion.config.values()) == {0}


# Random


def test_one_more_parameter_changes_no_others_draws() -> None:
    fewer = Space({name: SPACE[name] for name in SPACE.names if name not in ("l2", "only")})
    for number in range(20):
        (small,) = _suggest(sampler_for("random"), _empty(fewer, number), [number])
        (large,) = _suggest(sampler_for("random"), _history(number), [number])
        assert small.config == {name: large.config[name] for name in fewer.names}


def test_random_does_not_look_at_the_past() -> None:
    past = _history(20)
    other = _empty(SPACE, 20)
    sampler = sampler_for("random")
    assert _suggest(sampler, past, [20]) == _suggest(sampler, other, [20])


def test_random_draws_fill_the_space_evenly() -> None:
    suggestions = _suggest(sampler_for("random"), History(SPACE), range(4_000))
    configs = [suggestion.config for suggestion in suggestions]

    def share(condition: Callable[[Config], bool]) -> float:
        return sum(map(condition, configs)) / len(configs)

    # Binomial: standard deviation at most 0.008.
    assert share(lambda c: float(c["learning_rate"]) < 10**-2.5) == pytest.approx(0.5, abs=0.04)
    assert share(lambda c: c["l2"] == 0) == pytest.approx(1 / 8, abs=0.04)
    assert share(lambda c: c["batch_size"] == 64) == pytest.approx(1 / 4, abs=0.04)
    assert share(lambda c: c["optimizer"] is True) == pytest.approx(1 / 3, abs=0.04)
    # Independent of each other, too.
    both = share(lambda c: c["batch_size"] == 64 and c["optimizer"] is True)
    assert both == pytest.approx(1 / 12, abs=0.03)


@given(strategies.spaces(), st.integers(0, 2**53), st.integers(0, 3))
def test_random_serves_every_space(space: Space, seed: int, number: int) -> None:
    (suggestion,) = _suggest(sampler_for("random"), _empty(space, number), [number], seed)
    assert space.problems(suggestion.config) == []


def _empty(space: Space, num_trials: int) -> History:
    """Trials that all are alike."""
    history = History(space)
    config = space.decode(dict.fromkeys(space.names, 0.5))
    for number in range(num_trials):
        history.put(number, config, enqueued=False, state=TrialStatus.FAIL, value=None)
    return history


def test_after_preparing_a_suggestion_imports_no_more_of_scipy() -> None:
    code = """
import sys
from ridgeline.search import samplers
from ridgeline.search.history import History, TrialStatus
from ridgeline.search.space import Space

space = Space.model_validate({"x": {"type": "float", "low": 0, "high": 1}})
is_lazy = "scipy.stats" not in sys.modules
samplers.prepare()
before = {*sys.modules}
history = History(space)
for number in range(12):
    (one,) = samplers.sampler_for("auto").suggest(space, history, [number], 1, "minimize")
    told = {"enqueued": False, "state": TrialStatus.COMPLETE, "value": one.config["x"]}
    history.put(number, one.config, **told)
print(is_lazy, [name for name in {*sys.modules} - before if name.startswith("scipy")])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "True []\n"
