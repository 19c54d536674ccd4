"""What samplers learn from: ranks and warped values of what came of trials."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from ridgeline.search.history import History, TrialStatus
from ridgeline.search.samplers.axes import Floats
from ridgeline.search.samplers.outcomes import Outcomes, informative, spread, warped
from ridgeline.search.space import Space

SPACE = Space.model_validate({"x": {"type": "int", "low": 0, "high": 1000}})
Trial = tuple[TrialStatus, float | None]

COMPLETE, PRUNED, FAIL = TrialStatus.COMPLETE, TrialStatus.PRUNED, TrialStatus.FAIL


def _history(trials: list[Trial]) -> History:
    history = History(SPACE)
    for number, (state, value) in enumerate(trials):
        history.put(number, {"x": number}, enqueued=False, state=state, value=value)
    return history


def _outcomes(trials: list[Trial]) -> Outcomes:
    return Outcomes.of(_history(trials), len(trials), "minimize")


def _warped(outcomes: Outcomes) -> Floats:
    return warped(outcomes.rank_n, outcomes.value_n)


def test_complete_trials_rank_before_pruned_ones_and_those_before_failures() -> None:
    outcomes = _outcomes(
        [
            (COMPLETE, 3.0),
            (FAIL, None),
            (PRUNED, -5.0),
            (TrialStatus.RUNNING, None),
            (COMPLETE, 1.0),
            (PRUNED, None),
            (FAIL, 0.0),
            (COMPLETE, 3.0),
            (TrialStatus.WAITING, None),
        ]
    )
    assert outcomes.numbers_n.tolist() == [0, 1, 2, 4, 6, 7]
    assert outcomes.rank_n.tolist() == [2.5, 5.5, 4, 1, 5.5, 2.5]
    assert outcomes.pending.tolist() == [3, 8]
    assert outcomes.num_values == 4


def test_a_failure_is_not_taken_for_another_configuration_that_has_a_value() -> None:
    """Neither beside a number of 2**53 nor where sums of some columns are equal."""
    names = [f"p{number}" for number in range(8)]
    for failed, valued in (
        ({"p0": 2**53, "p1": 1}, {"p0": 2**53, "p1": 2}),
        ({"p2": 3, "p7": 0}, {"p2": 0, "p7": 2}),
    ):
        history = History(
            Space.model_validate({name: {"type": "int", "low": 0, "high": 2**53} for name in names})
        )
        for number, (config, state) in enumerate([(failed, FAIL), (valued, COMPLETE)]):
            value = 1.0 if state is COMPLETE else None
            whole = dict.fromkeys(names, 0) | config
            history.put(number, whole, enqueued=False, state=state, value=value)
        assert Outcomes.of(history, 2, "minimize").numbers_n.tolist() == [0, 1]
        history.put(2, dict.fromkeys(names, 0) | failed, enqueued=False, state=COMPLETE, value=1.0)
        assert Outcomes.of(history, 3, "minimize").numbers_n.tolist() == [1, 2]


def test_numbers_of_any_size_are_told_apart() -> None:
    history = History(
        Space.model_validate(
            {name: {"type": "float", "low": -1e308, "high": 7e307} for name in ("x", "y", "z")}
        )
    )
    for number, state in enumerate([FAIL, COMPLETE]):
        config = {"x": -1e308, "y": -1e308, "z": 1.0 + number}
        history.put(number, config, enqueued=False, state=state, value=None if not number else 1.0)
    assert Outcomes.of(history, 2, "minimize").numbers_n.tolist() == [0, 1]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_ranks_are_those_of_scipy(values: list[float]) -> None:
    outcomes = _outcomes([(COMPLETE, value) for value in values])
    assert outcomes.rank_n.tolist() == rankdata(values).tolist()
    turned = Outcomes.of(_history([(COMPLETE, -v) for v in values]), len(values), "maximize")
    assert turned.rank_n.tolist() == outcomes.rank_n.tolist()


@given(st.lists(st.floats(allow_nan=False) | st.none(), min_size=2, max_size=40))
def test_warped_values_keep_the_order(values: list[float | None]) -> None:
    trials = [(COMPLETE if value is not None else FAIL, value) for value in values]
    outcomes = _outcomes(trials)
    warped_n = _warped(outcomes)
    assert np.isfinite(warped_n).all()
    order = np.argsort(outcomes.rank_n, kind="stable")
    assert (np.diff(warped_n[order]) >= -1e-12).all()
    if len(set(outcomes.rank_n)) > 1:
        assert warped_n.mean() == pytest.approx(0, abs=1e-9)
        assert warped_n.std() == pytest.approx(1)


def test_the_better_half_keeps_its_distances_and_no_outlier_sets_the_scale() -> None:
    values = [0.0, 1.0, 3.0, 4.0, 10.0, 20.0, 30.0]
    warped_n = _warped(_outcomes([(COMPLETE, value) for value in values]))
    low, middle, high = np.diff(warped_n[:4])
    assert [middle / low, high / low] == pytest.approx([2, 1])
    worse = _warped(_outcomes([(COMPLETE, value) for value in [*values[:-1], 1e12]]))
    assert worse == pytest.approx(warped_n)


def test_those_that_tell_most_are_the_best_and_some_of_every_rank() -> None:
    rank_n = np.random.default_rng(0).permutation(1_000) + 1.0
    kept = sorted(rank_n[informative(rank_n, 100)].tolist())
    assert kept[:50] == list(range(1, 51))
    assert len(kept) == 100
    assert max(np.diff(kept)) < 25
    assert kept[-1] == 1_000
    assert informative(rank_n[:30], 100).tolist() == list(range(30))
    assert spread(np.arange(5), 3).tolist() == [0, 2, 4]
