"""The line along which good trials lie."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from ridgeline.search.history import History, TrialStatus
from ridgeline.search.ridges import MIN_TRIALS, Ridge, ridge
from ridgeline.search.samplers import sampler_for
from ridgeline.search.space import Config, Space

SPACE = Space.model_validate(
    {
        "rate": {"type": "float", "low": 1e-4, "high": 1.0, "log": True},
        "size": {"type": "values", "values": [16, 32, 64, 128, 256]},
        "l2": {"type": "float", "low": 1e-6, "high": 1e-1, "log": True, "zero": True},
        "dropout": {"type": "float", "low": 0.0, "high": 0.8},
        "kind": {"type": "values", "values": ["a", "b"]},
    }
)
Value = Callable[[Config], float]


def drawn(count: int, seed: int = 0) -> list[Config]:
    rng = np.random.default_rng(seed)
    return [SPACE.decode({name: rng.random() for name in SPACE.names}) for _ in range(count)]


def along(slope: float, up: str, noise: float = 0.0, seed: int = 0) -> Value:
    """Least where log rate is a line of log `up`, through rate 0.01 in the middle."""
    middle = {"size": 64.0, "l2": 3e-4}[up]
    rng = np.random.default_rng(seed)

    def value(config: Config) -> float:
        at = float(config[up]) or 1e-7
        off = math.log(float(config["rate"]) / 0.01) - slope * math.log(at / middle)
        rest = 0.3 * (float(config["dropout"]) - 0.4) ** 2
        return math.exp(off**2 / 8 + rest + noise * rng.standard_normal())

    return value


def found(configs: list[Config], value: Value, up: str) -> Ridge | None:
    known = [(config, value(config)) for config in configs]
    return ridge(SPACE, sorted(known, key=lambda one: one[1]), "rate", up)


@pytest.mark.parametrize("up", ["size", "l2"])
@pytest.mark.parametrize("slope", [1.0, 0.5, 0.0, -0.5])
def test_the_slope_is_found(slope: float, up: str) -> None:
    line = found(drawn(300), along(slope, up, noise=0.1), up)
    assert line is not None
    assert line.low <= line.slope <= line.high
    assert line.slope == pytest.approx(slope, abs=0.15)
    middle = {"size": 64.0, "l2": 3e-4}[up]
    assert line.across_at(middle) == pytest.approx(0.01, rel=0.5)
    assert line.across_at(4 * middle) == pytest.approx(line.across_at(middle) * 4**line.slope)
    assert 1e-6 <= line.span[0] < line.span[1] <= 256


def test_a_line_ends_where_trials_do() -> None:
    line = found(drawn(300), along(0.5, "size"), "size")
    assert line is not None
    assert line.span == pytest.approx((16, 256))


def test_the_interval_has_the_slope_as_often_as_it_says() -> None:
    lines = [found(drawn(80, seed), along(0.5, "size", 0.5, seed), "size") for seed in range(100)]
    told = [line for line in lines if line is not None]
    assert len(told) >= 50
    covered = sum(line.low <= 0.5 <= line.high for line in told)
    assert covered / len(told) >= 0.88  # two standard errors below 95 %


def test_a_sampler_that_learns_shows_it_too() -> None:
    value = along(0.7, "size")
    history = History(SPACE)
    for number in range(120):
        (new,) = sampler_for("gp").suggest(SPACE, history, [number], 3, "minimize")
        state, of_it = TrialStatus.COMPLETE, value(new.config)
        history.put(number, new.config, enqueued=False, state=state, value=of_it)
    line = found([history.config(number) for number in range(120)], value, "size")
    assert line is not None
    assert line.slope == pytest.approx(0.7, abs=0.25)


def test_it_is_the_same_each_time() -> None:
    one, other = (found(drawn(60), along(0.5, "size"), "size") for _ in range(2))
    assert one is not None
    assert one == other


def test_where_nothing_is_told() -> None:
    slope = along(0.5, "size")
    assert found(drawn(MIN_TRIALS - 1), slope, "size") is None
    rng = np.random.default_rng(1)
    assert found(drawn(200), lambda _: rng.random(), "size") is None, "chance"
    assert found(drawn(200), lambda config: float(config["rate"]), "size") is None, "at an end"
    for up in ("dropout", "kind"):
        assert ridge(SPACE, [(config, slope(config)) for config in drawn(100)], "rate", up) is None
    alike: list[Config] = [{"rate": 0.1}, {"rate": 0.1, "size": 16}]
    for config in alike:
        assert ridge(SPACE, [(config, 1.0)] * 50, "rate", "size") is None


def test_trials_that_leave_the_slope_open_tell_none() -> None:
    sizes = [16, 32, 64, 128, 256]
    diagonal: list[Config] = [
        {"rate": 1e-4 * size, "size": size, "dropout": 0.1 * n} for size in sizes for n in range(8)
    ]
    assert found(diagonal, along(0.5, "size", 0.1), "size") is None
    lonely: list[Config] = [{**config, "size": 32} for config in drawn(30)]
    for few in (1, 2):
        apart = [{**config, "size": 64} for config in lonely[:few]] + lonely[few:]
        assert found(apart, along(1.0, "size", 0.1), "size") is None


def test_values_that_tie_have_no_order() -> None:
    """In a grid the number of a trial is its cell, which orders those that tie."""
    rates = np.geomspace(1e-4, 1.0, 9)
    grid: list[Config] = [
        {"size": size, "l2": l2, "rate": float(rate), "dropout": 0.1, "kind": "a"}
        for size in (16, 32, 64, 128, 256)
        for l2 in np.geomspace(1e-6, 1e-1, 5).tolist()
        for rate in rates
    ]

    def value(config: Config) -> float:
        rate = float(config["rate"])
        return 0.0 if 2e-3 < rate < 0.2 else abs(math.log(rate / 0.01))

    for cells in (grid, grid[::-1]):
        for up in ("size", "l2"):
            line = found(cells, value, up)
            assert line is None or line.low <= 0 <= line.high


def test_a_line_that_is_short_or_little_known_is_none() -> None:
    narrow = Space.model_validate(
        {"rate": SPACE["rate"].model_dump(), "size": {"type": "values", "values": [100, 101, 102]}}
    )
    rng = np.random.default_rng(0)
    configs = [narrow.decode({"rate": rng.random(), "size": rng.random()}) for _ in range(100)]
    known = sorted(((c, abs(math.log(float(c["rate"]) / 0.01))) for c in configs), key=_value)
    assert ridge(narrow, known, "rate", "size") is None


def test_a_history_of_any_length_takes_a_moment() -> None:
    """Of many trials some are fitted to, spread over the ranks."""
    line = found(drawn(20_000), along(0.5, "size", 0.3), "size")
    assert line is not None
    assert line.low <= 0.5 <= line.high


def _value(known: tuple[Config, float]) -> float:
    return known[1]
