"""Samplers by the name that a spec gives them."""

from __future__ import annotations

import importlib

from ridgeline.search.fields import SamplerName
from ridgeline.search.samplers.auto import AutoSampler
from ridgeline.search.samplers.base import Sampler
from ridgeline.search.samplers.gp import GpSampler
from ridgeline.search.samplers.grid import GridSampler
from ridgeline.search.samplers.random import RandomSampler
from ridgeline.search.samplers.tpe import TpeSampler


def prepare() -> None:
    """Import what suggestions need besides: parts of SciPy, which take half a second.

    For who serves others, so that the first study does not wait; nobody else should.
    """
    for part in ("linalg", "optimize", "stats"):
        importlib.import_module(f"scipy.{part}")


def sampler_for(name: SamplerName) -> Sampler:
    """The sampler of that name."""
    match name:
        case "auto":
            return AutoSampler()
        case "gp":
            return GpSampler()
        case "tpe":
            return TpeSampler()
        case "random":
            return RandomSampler()
        case "grid":
            return GridSampler()
