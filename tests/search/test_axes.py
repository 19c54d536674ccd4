"""The axes of a space say the same as its parameters do one by one."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline.search.history import History, TrialStatus
from ridgeline.search.samplers.axes import Axes
from ridgeline.search.space import Config, Space
from tests.search import strategies


def _columns(space: Space, configs: list[Config]) -> np.ndarray:
    history = History(space)
    for number, config in enumerate(configs):
        history.put(number, config, enqueued=False, state=TrialStatus.COMPLETE, value=0.0)
    return history.columns


@given(strategies.spaces(), st.data())
def test_places_are_those_of_encode(space: Space, data: st.DataObject) -> None:
    configs = [data.draw(strategies.configs(space)) for _ in range(4)]
    places_nd = Axes(space).places(_columns(space, configs))
    for place_d, config in zip(places_nd, configs, strict=True):
        expected = [parameter.encode(config[name]) for name, parameter in space.items()]
        assert place_d == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(strategies.spaces(), st.data())
def test_points_are_snapped_to_what_decode_makes_of_them(space: Space, data: st.DataObject) -> None:
    units = st.floats(0, 1, exclude_max=True)
    unit_d = np.array([data.draw(units) for _ in space.names])
    axes = Axes(space)
    (place_d,) = axes.snapped(unit_d[None])
    config = axes.config(place_d)
    assert space.problems(config) == []
    assert axes.places(_columns(space, [config]))[0] == pytest.approx(place_d, abs=1e-9)
    for value, unit, (_, parameter) in zip(config.values(), unit_d, space.items(), strict=True):
        # But for a unit that lies on the edge between two levels, up to rounding.
        near = {parameter.decode(min(max(unit + off, 0.0), 1.0)) for off in (-1e-12, 0, 1e-12)}
        assert value in near or float(value) == pytest.approx(
            float(parameter.decode(unit)), rel=1e-9, abs=1e-300
        )


@given(strategies.spaces(), st.data())
def test_cells_number_the_configurations_of_a_finite_space(
    space: Space, data: st.DataObject
) -> None:
    axes = Axes(space)
    if not axes.are_numbered or axes.num_cells is None:
        return
    cells = data.draw(st.lists(st.integers(0, axes.num_cells - 1), min_size=1, max_size=5))
    points_nd = axes.points_of(np.array(cells))
    configs = [axes.config(place_d) for place_d in points_nd]
    assert all(space.problems(config) == [] for config in configs)
    assert axes.cells(axes.places(_columns(space, configs))).tolist() == cells
    assert len({repr(config) for config in configs}) == len(set(cells))


def test_cells_tell_configurations_of_a_space_apart_that_has_more_than_64_bits() -> None:
    axes = Axes(
        Space.model_validate({f"p{n}": {"type": "int", "low": 0, "high": 63} for n in range(40)})
    )
    points_nd = axes.snapped(np.random.default_rng(1).random((1_000, 40)))
    points_nd[1:41] = points_nd[0]
    points_nd[1:41][np.eye(40) == 1] = axes.axes[0].places_of(
        (axes.axes[0].levels_of(points_nd[0]) + 1) % 64
    )
    cells_n = axes.cells(points_nd)
    assert len(set(cells_n.tolist())) == 1_000
    assert axes.cells(points_nd[::-1]).tolist() == cells_n[::-1].tolist()


def test_levels_of_large_numbers_are_levels() -> None:
    low, high = 2**53 - 40, 2**53
    (axis,) = Axes(
        Space.model_validate({"x": {"type": "int", "low": low, "high": high, "log": True}})
    ).axes
    level_n = axis.levels_of(np.linspace(0, 1, 1_000))
    assert level_n.min() >= 0
    assert level_n.max() < 41


def test_the_first_points_are_spread_evenly() -> None:
    space = Space.model_validate(
        {
            "rate": {"type": "float", "low": 0, "high": 1},
            "size": {"type": "values", "values": [16, 32, 64, 128]},
        }
    )
    axes = Axes(space)
    points = np.array(list(islice(axes.spread(0, 3), 16)))
    assert np.histogram(points[:, 0], 8, (0, 1))[0].tolist() == [2] * 8
    assert np.histogram(points[:, 1], 4, (0, 1))[0].tolist() == [4] * 4
    assert next(axes.spread(5, 3)).tolist() == points[5].tolist()
    assert next(axes.spread(5, 4)).tolist() != points[5].tolist()
