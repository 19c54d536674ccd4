"""Samplers by the name that a spec gives them."""

from __future__ import annotations

from typing import Literal

from ridgeline.search.samplers.base import Sampler
from ridgeline.search.samplers.grid import GridSampler
from ridgeline.search.samplers.random import RandomSampler
from ridgeline.search.samplers.tpe import TpeSampler


def sampler_for(name: Literal["grid", "random", "tpe"]) -> Sampler:
    """The sampler of that name."""
    match name:
        case "grid":
            return GridSampler()
        case "random":
            return RandomSampler()
        case "tpe":
            return TpeSampler()
