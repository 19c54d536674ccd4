"""Samplers by the name that a spec gives them."""

from __future__ import annotations

from typing import Literal

from search.samplers.base import Sampler
from search.samplers.grid import GridSampler
from search.samplers.random import RandomSampler
from search.samplers.tpe import TpeSampler


def sampler_for(name: Literal["grid", "random", "tpe"]) -> Sampler:
    """The sampler of that name."""
    match name:
        case "grid":
            return GridSampler()
        case "random":
            return RandomSampler()
        case "tpe":
            return TpeSampler()
