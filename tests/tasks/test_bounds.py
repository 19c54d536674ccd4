"""A parameter's choices and bounds stand in three places, which must say the same."""

from __future__ import annotations

import math
from typing import get_args

import pytest
from pydantic import ValidationError

from ridgeline.search.engine.config import RANGES, OptimizerName, ScheduleName
from ridgeline.search.engine.models.mlp import Activation
from ridgeline.search.tasks.settings import MlpDefaults, MlpSettings

CHOICES = {"optimizer": OptimizerName, "schedule": ScheduleName}
PARAMETERS = MlpSettings.parameters


@pytest.mark.parametrize("name", CHOICES)
def test_choices_are_the_engines(name: str) -> None:
    assert PARAMETERS[name].choices == get_args(CHOICES[name])
    assert get_args(MlpDefaults.model_fields[name].annotation) == get_args(CHOICES[name])


def test_activations_are_the_engines() -> None:
    assert get_args(MlpSettings.model_fields["activation"].annotation) == get_args(Activation)


def is_default(name: str, value: float) -> bool:
    try:
        MlpDefaults.model_validate({name: value})
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("name", [name for name in RANGES if name in PARAMETERS])
def test_bounds_are_within_the_engines(name: str) -> None:
    domain, allowed = PARAMETERS[name], RANGES[name]
    assert (domain.low, domain.open_low) == (allowed.low, allowed.open_low)
    if allowed.below < math.inf:
        assert (domain.high, domain.open_high) == (allowed.below, True)
    assert is_default(name, domain.low) is not domain.open_low
    assert not is_default(name, domain.low - 1e-9)
    assert is_default(name, domain.high) is not domain.open_high
    assert not is_default(name, domain.high * 1.001)


def test_every_number_is_bounded() -> None:
    of_numbers = {name for name, domain in PARAMETERS.items() if domain.kind == "float"}
    assert of_numbers <= RANGES.keys()
