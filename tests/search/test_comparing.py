"""Intervals cover what they say, and equal arms seldom seem to differ."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
import scipy.stats

from ridgeline.search.bounds import Bounds
from ridgeline.search.comparing import (
    Difference,
    Interval,
    differences,
    mean_of,
    sentence,
    shown,
)

NUM_SIMULATIONS = 2_000


def test_the_interval_of_a_mean_is_students() -> None:
    scores = [0.91, 0.93, 0.9, 0.95]
    mean = mean_of("none", [*scores, None])
    expected = scipy.stats.t.interval(0.95, 3, np.mean(scores), scipy.stats.sem(scores))
    assert mean.interval is not None
    assert (mean.interval.low, mean.interval.high) == pytest.approx(expected, rel=1e-12)
    assert mean.value == pytest.approx(0.9225)
    assert (mean.num_runs, mean.num_without) == (4, 1)


def test_an_interval_is_shown_within_what_the_metric_can_be() -> None:
    mean = mean_of("none", [1.0, 0.99, 1.0])
    assert mean.interval is not None
    assert mean.interval.high > 1, "verdicts rest on its width"
    low = mean.interval.low
    assert shown(mean.interval, Bounds(0, 1)) == Interval(low, 1.0)
    assert shown(mean.interval, Bounds()) == mean.interval
    assert shown(Interval(-0.5, 0.5), Bounds(low=0)) == Interval(0, 0.5)
    assert shown(None, Bounds(0, 1)) is None
    assert Bounds(0, 1).of_differences == Bounds(-1, 1)
    assert Bounds(high=1).of_differences == Bounds()


@pytest.mark.parametrize(("scores", "value"), [([], None), ([None, None], None), ([0.5], 0.5)])
def test_too_few_scores_have_no_interval(scores: list[float | None], value: float | None) -> None:
    mean = mean_of("none", scores)
    assert (mean.value, mean.interval) == (value, None)


def test_a_difference_is_of_common_seeds() -> None:
    first, second = [0.9, 0.8, None, 0.95, 0.7], [0.85, 0.78, 0.9, None, 0.66]
    (found,) = differences({"a": first, "b": second}, "maximize")
    expected = scipy.stats.ttest_rel([0.9, 0.8, 0.7], [0.85, 0.78, 0.66])
    assert found.num_pairs == 3
    assert found.value == pytest.approx((0.05 + 0.02 + 0.04) / 3)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.interval is not None
    theirs = expected.confidence_interval(0.95)
    assert (found.interval.low, found.interval.high) == pytest.approx((theirs.low, theirs.high))


def test_what_a_seed_does_to_both_arms_falls_out() -> None:
    seeds = np.random.default_rng(0).normal(0, 1, 6)
    arms = {"none": [*seeds], "dropout": [*np.add(seeds, [0.1, 0.11, 0.09, 0.1, 0.12, 0.1])]}
    (found,) = differences(arms, "maximize")
    assert found.verdict == "worse"  # of none against dropout
    (found,) = differences(arms, "minimize")
    assert found.verdict == "better"


def test_verdicts_are_adjusted_for_the_number_of_pairs() -> None:
    """One pair of p = 0.03 alone differs; beside five others it does not."""
    generator = np.random.default_rng(3)
    arms = {"a": [*generator.normal(0, 1, 8)]}
    gains = np.array([1.2, -0.3, 0.9, 0.5, 1.6, -0.4, 0.8, 1.1])
    arms["b"] = [*(np.array(arms["a"]) + gains)]
    (alone,) = differences(arms, "maximize")
    assert alone.p_value is not None
    assert alone.p_value < 0.05
    assert alone.verdict == "worse"
    several = differences(arms | {n: [*generator.normal(0, 9, 8)] for n in "cd"}, "maximize")
    assert several[0].interval == alone.interval
    assert several[0].p_value == pytest.approx(min(1, 6 * alone.p_value))
    assert several[0].verdict == "open"
    assert "by chance" in sentence(several[0], "accuracy", Bounds(0, 1))


@pytest.mark.parametrize(
    ("gain", "num_runs", "verdict"),
    [(0.0, 6, "open"), (0.25, 3, "open"), (0.25, 5, "open"), (0.25, 6, "better")],
)
def test_equal_differences_tell_their_sign_alone(gain: float, num_runs: int, verdict: str) -> None:
    scores = [0.5, 0.25, 0.75] * 2
    arms = {"a": [s + gain for s in scores[:num_runs]], "b": scores[:num_runs]}
    (found,) = differences(arms, "maximize")
    assert found.interval == Interval(gain, gain)
    assert found.verdict == verdict
    assert found.p_value == (2 ** (1 - num_runs) if gain else 1)
    (two,) = differences({"a": [0.75, 0.5], "b": [0.5, 0.25]}, "maximize")
    assert two.verdict == "open"
    assert "too few seeds" in sentence(two, "accuracy", Bounds(0, 1))


def test_arms_need_the_same_seeds() -> None:
    with pytest.raises(ValueError, match="same number of runs"):
        differences({"a": [1.0], "b": [1.0, 2.0]}, "maximize")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"value": 0.012, "interval": Interval(0.004, 0.02), "verdict": "better"},
            "l1 is better than l2: accuracy differs by +0.012, 95 % interval +0.004 to +0.02, "
            "5 seeds.",
        ),
        (
            {"value": 0.012, "interval": Interval(-0.004, 0.028), "verdict": "open"},
            "l1 and l2 cannot be told apart: accuracy differs by +0.012, 95 % interval -0.004 to "
            "+0.028, 5 seeds; the interval holds 0.",
        ),
        (
            {"value": 0.9, "interval": Interval(-0.3, 2.1), "verdict": "open"},
            "l1 and l2 cannot be told apart: accuracy differs by +0.9, 95 % interval -0.3 to +1, "
            "5 seeds; the interval holds 0.",
        ),
        (
            {"value": None, "interval": None, "verdict": "open", "num_pairs": 1},
            "l1 and l2 have 1 seed in common, too few to compare.",
        ),
    ],
)
def test_a_sentence_says_what_the_data_support(values: dict[str, Any], expected: str) -> None:
    given: dict[str, Any] = {"p_value": 0.01, "num_pairs": 5, **values}
    assert sentence(Difference("l1", "l2", **given), "accuracy", Bounds(0, 1)) == expected


@pytest.mark.parametrize("num_runs", [5, 10])
def test_intervals_cover_the_truth(num_runs: int) -> None:
    """Scores as real ones: accuracies of 1,000 test rows, with what a seed does to every arm."""
    generator = np.random.default_rng(num_runs)
    truth, covered = {"a": 0.9, "b": 0.92}, 0
    means_covered = 0
    for _ in range(NUM_SIMULATIONS):
        scores = _simulated(generator, truth, num_runs)
        (found,) = differences(scores, "maximize")
        assert found.interval is not None
        covered += found.interval.holds(truth["a"] - truth["b"])
        mean = mean_of("a", scores["a"])
        assert mean.interval is not None
        means_covered += mean.interval.holds(truth["a"])
    assert covered >= 0.93 * NUM_SIMULATIONS
    assert means_covered >= 0.93 * NUM_SIMULATIONS


@pytest.mark.parametrize(("num_arms", "num_runs"), [(2, 5), (3, 5), (6, 5), (4, 10)])
def test_equal_arms_seldom_seem_to_differ(num_arms: int, num_runs: int) -> None:
    generator = np.random.default_rng(num_arms)
    truth = {f"arm-{i}": 0.9 for i in range(num_arms)}
    num_wrong = sum(
        any(
            found.verdict != "open"
            for found in differences(_simulated(generator, truth, num_runs), "maximize")
        )
        for _ in range(NUM_SIMULATIONS)
    )
    assert num_wrong <= 0.07 * NUM_SIMULATIONS


def _simulated(
    generator: np.random.Generator, truth: dict[str, float], num_runs: int
) -> dict[str, list[float | None]]:
    seeds = generator.normal(0, 0.01, num_runs)
    return {
        arm: [
            round(float(score), 3) for score in mean + seeds + generator.normal(0, 0.006, num_runs)
        ]
        for arm, mean in truth.items()
    }


@pytest.mark.parametrize("size", [1e150, 1e200, sys.float_info.max])
def test_scores_of_any_size(size: float) -> None:
    scores = {"a": [size, size * 0.75, size * 0.5], "b": [-size, -size * 0.5, -size * 0.75]}
    told = mean_of("a", scores["a"])
    assert told.value == pytest.approx(0.75 * size)
    (difference,) = differences(scores, "maximize")
    as_small = {arm: [score / size for score in its if score] for arm, its in scores.items()}
    (small,) = differences(as_small, "maximize")
    assert difference.p_value == pytest.approx(small.p_value)
    assert difference.verdict == small.verdict == "better"
    for interval in (told.interval, difference.interval):
        assert interval is not None
        assert -math.inf < interval.low < interval.high < math.inf
