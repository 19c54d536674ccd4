"""Specs to start from, and what is wrong with the ones made of them."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ridgeline.search.spec import InvalidSpec, parse_spec

BASE: dict[str, Any] = {
    "name": "digits",
    "task": {"name": "mlp", "dataset": "digits"},
    "space": {
        "learning_rate": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
        "batch_size": {"type": "values", "values": [32, 64]},
    },
    "sampler": {"name": "random"},
    "budget": {"trials": 10},
}
EXTERNAL: dict[str, Any] = {
    **BASE,
    "task": {"name": "external"},
    "objective": {"metric": "drag", "direction": "minimize"},
}
GRID: dict[str, Any] = {
    **BASE,
    "sampler": {"name": "grid"},
    "space": {"batch_size": {"type": "values", "values": [16, 32, 64]}},
    "budget": {},
}
ABSENT = object()


def changed(base: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    data = copy.deepcopy(base)
    *parents, last = path.split(".")
    place = data
    for parent in parents:
        place = place.setdefault(parent, {})
    if value is ABSENT:
        del place[last]
    else:
        place[last] = value
    return data


def problems_of(data: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(data)
    return caught.value.problems


FULL = changed(
    changed(BASE, "early_stopping", {"patience": 3}),
    "space.epochs",
    {"type": "int", "low": 1, "high": 50},
)
