"""Optuna's picture of a space: every configuration fits into it, and comes back out of it."""

from __future__ import annotations

import math

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.trial import create_trial

from ridgeline.search.optuna_space import distributions, from_optuna, to_optuna
from ridgeline.search.ranges import FloatParameter
from ridgeline.search.space import Config, Space
from tests.search import strategies


def _space(**parameters: dict[str, object]) -> Space:
    return Space.model_validate(parameters)


SPACE = _space(
    learning_rate={"type": "float", "low": 1e-5, "high": 1, "log": True},
    batch_size={"type": "values", "values": [16, 48, 64]},
    l2={"type": "float", "low": 1e-6, "high": 1e-2, "log": True, "zero": True},
    dropout={"type": "float", "low": 0, "high": 0.75, "step": 0.1},
    layers={"type": "int", "low": 1, "high": 4},
    width={"type": "int", "low": 8, "high": 512, "log": True},
    shares={"type": "values", "values": [0.0, 0.25, 1]},
    optimizer={"type": "values", "values": ["sgd", "adam"]},
)


def test_each_kind_has_its_distribution() -> None:
    assert distributions(SPACE) == {
        "learning_rate": FloatDistribution(1e-5, 1, log=True),
        "batch_size": IntDistribution(16, 64, log=True),
        "l2_zero": CategoricalDistribution((False, True)),
        "l2": FloatDistribution(1e-6, 1e-2, log=True),
        "dropout": FloatDistribution(0, 0.7, step=0.1),
        "layers": IntDistribution(1, 4),
        "width": IntDistribution(8, 512, log=True),
        "shares": CategoricalDistribution((0.0, 0.25, 1)),
        "optimizer": CategoricalDistribution(("sgd", "adam")),
    }


@pytest.mark.parametrize("values", [[0, 1], [-1, 2], [1, 2.5], [1.0, 2.0], [True, 2], ["1"]])
def test_only_positive_whole_numbers_become_a_log_range(values: list[object]) -> None:
    space = _space(p={"type": "values", "values": values})
    assert isinstance(distributions(space)["p"], CategoricalDistribution)


def test_a_lambda_of_zero_leaves_its_float_out() -> None:
    config: Config = {
        "learning_rate": 0.1,
        "batch_size": 48,
        "l2": 0.0,
        "dropout": 0.3,
        "layers": 2,
        "width": 100,
        "shares": 0.25,
        "optimizer": "adam",
    }
    params = to_optuna(SPACE, config)
    assert params["l2_zero"] is True
    assert "l2" not in params
    assert from_optuna(SPACE, params) == config
    params = to_optuna(SPACE, {**config, "l2": 1e-3})
    assert (params["l2_zero"], params["l2"]) == (False, 1e-3)
    assert from_optuna(SPACE, params) == {**config, "l2": 1e-3}


def test_a_name_like_that_of_a_zero_is_a_parameter_like_any_other() -> None:
    space = _space(
        l2={"type": "float", "low": 1, "high": 2}, l2_zero={"type": "values", "values": [True]}
    )
    config: Config = {"l2": 1.5, "l2_zero": True}
    assert from_optuna(space, to_optuna(space, config)) == config


_spaces = strategies.spaces().filter(strategies.zeros_have_names)


@given(_spaces, st.data())
def test_every_configuration_goes_to_optuna_and_back(space: Space, data: st.DataObject) -> None:
    config = data.draw(strategies.configs(space))
    params = to_optuna(space, config)
    assert repr(from_optuna(space, params)) == repr(config)
    _check_in_optuna(space, params)


@given(_spaces, st.data())
def test_so_does_every_cell_of_a_grid(space: Space, data: st.DataObject) -> None:
    if space.num_cells is not None:
        config = space.cell(data.draw(st.integers(0, space.num_cells - 1)))
        params = to_optuna(space, config)
        assert repr(from_optuna(space, params)) == repr(config)
        _check_in_optuna(space, params)


@given(strategies.floats, st.integers(0, 60))
def test_so_does_a_product_of_steps_given_by_a_person(
    parameter: FloatParameter, index: int
) -> None:
    value = parameter.low + index * (parameter.step or 0.0)
    if parameter.problem(value) is None:
        space = Space({"p": parameter})
        _check_in_optuna(space, to_optuna(space, {"p": value}))


def _check_in_optuna(space: Space, params: Config) -> None:
    """Optuna takes the parameters, stores them as numbers and reads the same ones."""
    of_params = {name: distributions(space)[name] for name in params}
    create_trial(params=params, distributions=of_params, value=0.0)
    for name, value in params.items():
        distribution = json_to_distribution(distribution_to_json(of_params[name]))
        assert distribution == of_params[name]
        stored = distribution.to_internal_repr(value)
        assert math.isfinite(stored)
        assert distribution._contains(stored)
        read = distribution.to_external_repr(stored)
        assert read == value
        assert isinstance(read, bool) == isinstance(value, bool)


def test_a_notebook_can_go_on_from_our_trials() -> None:
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.TPESampler(seed=0))
    for number in range(15):
        units = {name: (number * 0.37 + 0.11 * i) % 1 for i, name in enumerate(SPACE.names)}
        params = to_optuna(SPACE, SPACE.decode(units))
        of_params = {name: distributions(SPACE)[name] for name in params}
        study.add_trial(create_trial(params=params, distributions=of_params, value=float(number)))
    for _ in range(5):
        study.tell(study.ask(distributions(SPACE)), 1.0)
    assert len(study.trials) == 20
