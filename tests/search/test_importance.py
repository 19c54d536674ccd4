"""Which parameters set the best trials apart."""

from __future__ import annotations

import numpy as np
import pytest

from ridgeline.search.importance import MIN_TRIALS, importances
from ridgeline.search.space import Config, Space

SPACE = Space.model_validate(
    {
        "rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
        "l2": {"type": "float", "low": 1e-6, "high": 1e-2, "log": True, "zero": True},
        "size": {"type": "values", "values": [16, 32, 64]},
        "kind": {"type": "values", "values": ["a", "b", True]},
        "depth": {"type": "int", "low": 1, "high": 4},
        "fixed": {"type": "values", "values": [7]},
    }
)


def drawn(count: int) -> list[Config]:
    rng = np.random.default_rng(0)
    return [SPACE.decode({name: rng.random() for name in SPACE.names}) for _ in range(count)]


@pytest.mark.parametrize("name", ["rate", "l2", "size", "kind", "depth"])
@pytest.mark.parametrize("count", [100, 400])
def test_what_decides_is_the_most_important(name: str, count: int) -> None:
    configs = sorted(drawn(count), key=lambda config: SPACE[name].encode(config[name]))
    found = importances(SPACE, configs)
    assert found is not None
    assert found.keys() == set(SPACE.names)
    assert next(iter(found)) == name
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert sum(found.values()) == pytest.approx(1)
    assert found["fixed"] == 0
    assert found == importances(SPACE, configs)


def test_where_nothing_can_be_told() -> None:
    assert importances(SPACE, drawn(MIN_TRIALS - 1)) is None
    one = Space.model_validate({"fixed": {"type": "values", "values": [7]}})
    assert importances(one, [{"fixed": 7}] * 50) is None
