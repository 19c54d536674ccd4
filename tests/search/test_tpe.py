"""The Parzen estimator's densities."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from ridgeline.search.history import History, TrialStatus
from ridgeline.search.samplers.axes import Axes, Floats
from ridgeline.search.samplers.evidence import Evidence
from ridgeline.search.samplers.outcomes import Outcomes
from ridgeline.search.samplers.tpe import TpeSampler, _Ratio
from ridgeline.search.space import Space


def _evidence(space: Space) -> Evidence:
    """Twenty trials spread evenly, the first ones the better."""
    axes, history = Axes(space), History(space)
    for number, place_d in zip(range(20), axes.spread(0, 1), strict=False):
        config = axes.config(place_d)
        state = TrialStatus.COMPLETE
        history.put(number, config, enqueued=False, state=state, value=float(number))
    return Evidence(axes, axes.places(history.columns), Outcomes.of(history, 20, "minimize"))


def _densities(space: Space, candidates_cd: Floats) -> tuple[Floats, Floats]:
    """Of the 3 good trials and of the 17 others, with a kernel that is 1 everywhere."""
    ratio = TpeSampler().fitted(_evidence(space))(candidates_cd)
    assert isinstance(ratio, _Ratio)
    return np.exp(ratio._log_good_c) / 4, ratio._others_c / 18


def test_the_densities_of_levels_and_categories_are_1_in_the_mean() -> None:
    space = Space.model_validate(
        {
            "units": {"type": "int", "low": 8, "high": 19, "log": True},
            "decay": {"type": "float", "low": 0.1, "high": 0.5, "step": 0.1, "zero": True},
            "kind": {"type": "values", "values": ["a", "b", "c"]},
        }
    )
    axes = Axes(space)
    assert axes.num_cells is not None
    cells_cd = axes.points_of(np.arange(axes.num_cells))
    for density_c in _densities(space, cells_cd):
        assert density_c.mean() == pytest.approx(1, abs=1e-6)
        assert (density_c > 0).all()


def test_the_densities_of_a_range_integrate_to_1() -> None:
    space = Space.model_validate({"x": {"type": "float", "low": 1e-3, "high": 1, "log": True}})
    for which in (0, 1):

        def density(place: float, which: int = which) -> float:
            return float(_densities(space, np.array([[place]]))[which][0])

        total, _ = quad(density, 0, 1, limit=50, epsabs=1e-4)
        assert total == pytest.approx(1, abs=1e-3)


def test_a_point_under_way_makes_its_neighbours_less_promising() -> None:
    space = Space.model_validate({"x": {"type": "float", "low": 0, "high": 1}})
    candidates_cd = np.array([[0.5], [0.05]])
    scores = TpeSampler().fitted(_evidence(space))(candidates_cd)
    near, far = scores.of_candidates()
    scores.take_in(np.array([0.5]))
    near_after, far_after = scores.of_candidates()
    assert near_after < near
    assert far_after > far, "the density is a mean over one more"


@pytest.mark.parametrize("count", [3, 100])
def test_no_category_is_nearer_to_one_than_another(count: int) -> None:
    space = Space.model_validate(
        {"kind": {"type": "values", "values": [f"kind {number}" for number in range(count)]}}
    )
    axes, history = Axes(space), History(space)
    for number in range(20):
        kind = "kind 1" if number < 3 else "kind 0"
        state, value = TrialStatus.COMPLETE, float(number)
        history.put(number, {"kind": kind}, enqueued=False, state=state, value=value)
    outcomes = Outcomes.of(history, 20, "minimize")
    evidence = Evidence(axes, axes.places(history.columns), outcomes)
    score_c = TpeSampler().fitted(evidence)(axes.points_of(np.arange(count))).of_candidates()
    assert np.argmax(score_c) == 1
    assert score_c[2:] == pytest.approx(score_c[2])
