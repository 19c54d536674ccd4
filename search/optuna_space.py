"""A space as Optuna writes it: distributions, and configurations as its parameters.

A trial has no parameter that its configuration lacks.

A λ that may be 0 becomes a categorical `l2_zero` and, only where that is false, a float `l2`: a
raw 0 in a log distribution makes Optuna's samplers raise.  A list of positive whole numbers, such
as batch sizes, becomes the log range from its smallest to its largest, so that plots order it.
"""

from __future__ import annotations

from collections.abc import Mapping

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from ridgeline.search.ranges import ZERO_SUFFIX, FloatParameter, IntParameter, Value
from ridgeline.search.space import Config, Parameter, Space


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Optuna's distribution of every name that `to_optuna` may give."""
    found: dict[str, BaseDistribution] = {}
    for name, parameter in space.items():
        if _may_be_zero(parameter):
            found[name + ZERO_SUFFIX] = CategoricalDistribution((False, True))
        found[name] = _distribution(parameter)
    return found


def to_optuna(space: Space, config: Mapping[str, Value]) -> dict[str, Value]:
    """A configuration of the space as Optuna's parameters."""
    params: dict[str, Value] = {}
    for name, parameter in space.items():
        if name not in config:
            continue
        value = config[name]
        if _may_be_zero(parameter):
            params[name + ZERO_SUFFIX] = value == 0
            if value == 0:
                continue
        params[name] = value
    return params


def from_optuna(space: Space, params: Mapping[str, Value]) -> Config:
    """The inverse of `to_optuna`."""
    config: Config = {}
    for name, parameter in space.items():
        if _may_be_zero(parameter) and params.get(name + ZERO_SUFFIX):
            config[name] = 0.0
        elif name in params:
            config[name] = params[name]
    return config


def _may_be_zero(parameter: Parameter) -> bool:
    return isinstance(parameter, FloatParameter) and parameter.zero


def _distribution(parameter: Parameter) -> BaseDistribution:
    if isinstance(parameter, FloatParameter):
        return FloatDistribution(parameter.low, parameter.top, parameter.log, parameter.step)
    if isinstance(parameter, IntParameter):
        return IntDistribution(parameter.low, parameter.top, parameter.log, parameter.step or 1)
    whole = [value for value in parameter.values if type(value) is int and value > 0]
    if len(whole) == len(parameter.values):
        return IntDistribution(whole[0], whole[-1], log=True)
    return CategoricalDistribution(parameter.values)
