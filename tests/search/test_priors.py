"""Best guesses: first trials lean to them, and results outweigh them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ridgeline.search.fields import SamplerName
from ridgeline.search.history import History, TrialStatus
from ridgeline.search.samplers import sampler_for
from ridgeline.search.samplers.axes import Axes
from ridgeline.search.space import Config, Space
from tests.search.specs import BASE, changed, problems_of


def _space(around: float | None, weight: float = 0.5) -> Space:
    rate: dict[str, Any] = {"type": "float", "low": 1e-6, "high": 1, "log": True}
    if around is not None:
        rate["prior"] = {"around": around, "weight": weight}
    return Space.model_validate({"rate": rate, "size": {"type": "int", "low": 1, "high": 99}})


def _value(config: Config) -> float:
    """Least at a rate of 0.01 and a size of 30."""
    return (math.log10(float(config["rate"])) + 2) ** 2 + (float(config["size"]) / 50 - 0.6) ** 2


def _searched(name: SamplerName, space: Space, num_trials: int, seed: int) -> History:
    history = History(space)
    while len(history) < num_trials:
        numbers = range(len(history), len(history) + 5)
        for one in sampler_for(name).suggest(space, history, numbers, seed, "minimize"):
            value = _value(one.config)
            history.put(
                one.number, one.config, enqueued=False, state=TrialStatus.COMPLETE, value=value
            )
    return history


def test_a_prior_is_a_density() -> None:
    axis = Axes(_space(1e-3)).axes[0]
    places = axis.leaned((np.arange(10_000) + 0.5) / 10_000)
    assert np.all(np.diff(places) >= 0)
    share = np.mean(np.abs(places - 0.5) < 0.1)
    assert share == pytest.approx(0.5 * 0.683 + 0.5 * 0.2, abs=0.01)
    density = np.exp(axis.log_prior((np.arange(10_000) + 0.5) / 10_000))
    assert density.mean() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", ["random", "gp", "tpe"])
def test_first_trials_lean_to_it(name: SamplerName) -> None:
    near = {}
    for around in (None, 1e-3):
        space, found = _space(around, 0.8), []
        for seed in range(8):
            first = sampler_for(name).suggest(space, History(space), range(8), seed, "minimize")
            found += [abs(math.log10(float(one.config["rate"])) + 3) < 0.6 for one in first]
        near[around] = np.mean(found)
    assert near[1e-3] > 2 * float(near[None])


@pytest.mark.parametrize("name", ["gp", "tpe"])
def test_results_outweigh_a_wrong_guess(name: SamplerName) -> None:
    assert max(_searched(name, _space(1e-5), 30, seed).values.min() for seed in range(2)) < 0.15


@pytest.mark.parametrize("name", ["gp", "tpe"])
def test_a_right_guess_helps_at_once(name: SamplerName) -> None:
    best = {
        around: np.median([_searched(name, _space(around), 10, s).values.min() for s in range(8)])
        for around in (None, 1e-2)
    }
    assert best[1e-2] < best[None]


def test_the_pull_falls_with_the_number_of_trials() -> None:
    """With results that tell nothing it is the prior that chooses, less and less."""
    far = []
    for num_trials in (10, 200):
        off = []
        for seed in range(3):
            space = _space(1e-5, 0.9)
            history = _searched("random", space, num_trials, seed)
            (one,) = sampler_for("gp").suggest(space, history, [num_trials], seed, "minimize")
            off.append(abs(math.log10(float(one.config["rate"])) + 5))
        far.append(np.median(off))
    assert far[0] < far[1]


def test_mistakes_are_told_by_their_field() -> None:
    def told(prior: object, **fields: object) -> list[tuple[str, str]]:
        rate = {"type": "float", "low": 0.001, "high": 1, "prior": prior, **fields}
        return problems_of(changed(BASE, "space.learning_rate", rate))

    assert told({"around": 2}) == [
        ("space.learning_rate", "prior.around must be between 0.001 and 1")
    ]
    assert told({"around": 0.5, "weight": 1})[0][0] == "space.learning_rate.prior.weight"
    assert told({"weight": 0.5}) == [("space.learning_rate.prior.around", "is missing")]
    assert told(5)[0][0] == "space.learning_rate.prior"
    Space.model_validate({"n": {"type": "int", "low": 1, "high": 9, "prior": {"around": 3}}})
