"""Checks of settings: a ValueError names the field and tells what it must be.  Free of torch."""

from __future__ import annotations

import math
from typing import Any, get_args


def check_int(name: str, value: object, *, low: int, high: int | None = None) -> None:
    """Raise where it is no whole number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number, not {value!r}")
    if value < low:
        raise ValueError(f"{name} must be at least {low}, not {value}")
    if high is not None and value > high:
        raise ValueError(f"{name} must be at most {high}, not {value}")


def check_float(
    name: str,
    value: object,
    *,
    low: float,
    open_low: bool = False,
    below: float = math.inf,
    high: float = math.inf,
) -> None:
    """Raise where it is no finite number from `low`, or above it, to `high`, or below `below`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, not {value!r}")
    if value < low or (open_low and value == low):
        raise ValueError(f"{name} must be {'above' if open_low else 'at least'} {low}, not {value}")
    if value >= below:
        raise ValueError(f"{name} must be below {below}, not {value}")
    if value > high:
        raise ValueError(f"{name} must be at most {high}, not {value}")


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raise where it is none of a Literal's choices."""
    if value not in get_args(choices):
        known = ", ".join(get_args(choices))
        raise ValueError(f"{name} must be one of {known}, not {value!r}")


def check_bool(name: str, value: object) -> None:
    """Raise where it is neither True nor False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, not {value!r}")
