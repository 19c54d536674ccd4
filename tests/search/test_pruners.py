"""Pruners against their definition told naively, and against Optuna's decisions."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from ridgeline.search.engine.pruning import PruningRules
from ridgeline.search.fields import Direction
from ridgeline.search.predicting import Prediction, predicted
from ridgeline.search.pruners import (
    Curve,
    CurvePruner,
    HalvingPruner,
    HyperbandPruner,
    MedianPruner,
    requirements_of,
    standings,
)

# Sums and halves of these are exact, and many are equal.
VALUES = st.integers(-8, 8).map(float)
DIRECTIONS: st.SearchStrategy[Direction] = st.sampled_from(["maximize", "minimize"])
CURVES = st.lists(
    st.builds(
        lambda is_complete, values: Curve(is_complete, 1, dict(enumerate(values, start=1))),
        st.booleans(),
        st.lists(VALUES, max_size=10),
    ),
    max_size=12,
)


def median(startup: int = 1, warmup_epochs: int = 0) -> MedianPruner:
    return MedianPruner(name="median", startup=startup, warmup_epochs=warmup_epochs)


def halving(eta: int = 2, min_epochs: int = 1) -> HalvingPruner:
    return HalvingPruner(name="halving", eta=eta, min_epochs=min_epochs)


def rules(
    pruner: MedianPruner | HalvingPruner, curves: Sequence[Curve], direction: Direction
) -> PruningRules:
    thresholds = pruner.thresholds(pruner.basis(curves), direction)
    return PruningRules(1, "m", direction, thresholds)


def curves_of(values: Sequence[float], epoch: int = 1, *, is_complete: bool = True) -> list[Curve]:
    return [Curve(is_complete, 1, {epoch: value}) for value in values]


def sign(direction: Direction) -> int:
    return 1 if direction == "maximize" else -1


def test_rules_prune_what_is_strictly_worse() -> None:
    up = PruningRules(3, "accuracy", "maximize", {2: 0.5})
    assert [up.prunes(2, value) for value in (0.4, 0.5, 0.6)] == [True, False, False]
    down = PruningRules(3, "loss", "minimize", {2: 0.5})
    assert [down.prunes(2, value) for value in (0.4, 0.5, 0.6)] == [False, False, True]
    assert not up.prunes(1, 0.0)
    assert not up.prunes(3, 0.0)


def test_the_median_of_complete_runs() -> None:
    pruner = median(startup=3)
    assert pruner.thresholds(curves_of([1.0, 2.0]), "maximize") == {}
    assert pruner.thresholds(curves_of([3.0, 1.0, 2.0]), "maximize") == {1: 2.0}
    assert pruner.thresholds(curves_of([3.0, 1.0, 2.0, 5.0]), "minimize") == {1: 2.5}
    running = curves_of([9.0] * 5, is_complete=False)
    assert rules(pruner, [*running, *curves_of([1.0, 1.0])], "maximize").thresholds == {}


def test_the_median_of_huge_values_is_finite() -> None:
    assert median().thresholds(curves_of([1.7e308, 1.75e308]), "maximize")[1] < 1.8e308


def test_nobody_is_pruned_before_eta_have_reached_the_rung() -> None:
    """The run that is judged counts among them."""
    pruner = halving(eta=3)
    assert pruner.thresholds(curves_of([1.0]), "maximize") == {}
    assert pruner.thresholds(curves_of([1.0, 2.0]), "maximize") == {1: 2.0}
    assert pruner.thresholds(curves_of([1.0, 2.0, 3.0, 4.0]), "maximize") == {1: 4.0}
    assert pruner.thresholds(curves_of([1.0, 2.0, 3.0, 4.0, 5.0]), "maximize") == {1: 4.0}
    assert pruner.thresholds(curves_of([1.0, 2.0, 3.0, 4.0, 5.0]), "minimize") == {1: 2.0}


def test_rungs_are_powers_of_eta() -> None:
    curves = [Curve(False, 1, dict.fromkeys(range(1, 100), 0.5))] * 3
    assert list(halving(eta=3, min_epochs=2).thresholds(curves, "maximize")) == [2, 6, 18, 54]


def test_a_rung_that_was_not_reported_is_passed_over() -> None:
    curves = [Curve(False, 1, {4: 0.5})] * 3
    assert halving(eta=2).thresholds(curves, "maximize") == {4: 0.5}


def test_standings() -> None:
    values = {2: 0.5, 1: 0.25, 3: 0.125}
    assert standings(values, "maximize", keeps_best=False) == values
    assert standings(values, "maximize", keeps_best=True) == {1: 0.25, 2: 0.5, 3: 0.5}
    assert standings(values, "minimize", keeps_best=True) == {1: 0.25, 2: 0.25, 3: 0.125}


@given(CURVES, DIRECTIONS, st.integers(1, 4), st.integers(0, 4), VALUES)
def test_median_is_as_defined(
    curves: list[Curve], direction: Direction, startup: int, warmup_epochs: int, value: float
) -> None:
    found = rules(median(startup, warmup_epochs), curves, direction)
    for epoch in range(1, 12):
        others = [c.standings[epoch] for c in curves if c.is_complete and epoch in c.standings]
        expected = False
        if epoch > warmup_epochs and len(others) >= startup:
            expected = sign(direction) * value < sign(direction) * statistics.median(others)
        assert found.prunes(epoch, value) is expected


@given(CURVES, DIRECTIONS, st.integers(2, 4), st.integers(1, 3), VALUES)
def test_halving_is_as_defined(
    curves: list[Curve], direction: Direction, eta: int, min_epochs: int, value: float
) -> None:
    found = rules(halving(eta, min_epochs), curves, direction)
    rungs = {min_epochs * eta**k for k in range(5)}
    for epoch in range(1, 12):
        others = [curve.standings[epoch] for curve in curves if epoch in curve.standings]
        num_better = sum(sign(direction) * (other - value) > 0 for other in others)
        num_going_on = (len(others) + 1) // eta
        expected = bool(others) and epoch in rungs and 0 < num_going_on <= num_better
        assert found.prunes(epoch, value) is expected


@given(CURVES, DIRECTIONS, st.integers(2, 4), st.randoms())
def test_the_order_of_the_runs_does_not_matter(
    curves: list[Curve], direction: Direction, eta: int, random: object
) -> None:
    mixed = list(curves)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    for pruner in (halving(eta), median()):
        assert rules(pruner, mixed, direction) == rules(pruner, curves, direction)


@given(CURVES, DIRECTIONS, st.integers(2, 4))
def test_the_mirror_image_is_pruned_alike(
    curves: list[Curve], direction: Direction, eta: int
) -> None:
    opposite: Direction = "minimize" if direction == "maximize" else "maximize"
    mirrored = [
        Curve(curve.is_complete, 1, {epoch: -value for epoch, value in curve.standings.items()})
        for curve in curves
    ]
    for pruner in (halving(eta), median()):
        found = rules(pruner, curves, direction).thresholds
        assert rules(pruner, mirrored, opposite).thresholds == {e: -v for e, v in found.items()}


@given(st.dictionaries(st.integers(1, 20), VALUES), DIRECTIONS)
def test_standings_are_the_best_so_far(values: dict[int, float], direction: Direction) -> None:
    found = standings(values, direction, keeps_best=True)
    best = max if direction == "maximize" else min
    assert found == {epoch: best(v for e, v in values.items() if e <= epoch) for epoch in values}


# ---- against Optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("seed", range(5))
def test_median_decides_as_optunas(direction: Direction, seed: int) -> None:
    """Of runs that only improve: Optuna takes complete ones by their value at the epoch alone."""
    random = np.random.default_rng(seed)
    startup, warmup_epochs, num_epochs = 4, 2, 8
    study = optuna.create_study(
        direction=direction,
        pruner=optuna.pruners.MedianPruner(
            n_startup_trials=0, n_warmup_steps=warmup_epochs + 1, n_min_trials=startup
        ),
    )
    curves: list[Curve] = []
    num_pruned = 0
    for _ in range(30):
        found = rules(median(startup, warmup_epochs), curves, direction)
        drawn = {e: float(random.integers(0, 100)) for e in range(1, num_epochs + 1)}
        values = standings(drawn, direction, keeps_best=True)
        told: dict[int, float] = {}
        trial = study.ask()
        pruned = False
        for epoch, value in values.items():
            trial.report(value, epoch)
            told[epoch] = value
            pruned = found.prunes(epoch, value)
            assert bool(trial.should_prune()) is pruned
            if pruned:
                num_pruned += 1
                break
        study.tell(trial, None if pruned else 0.0, TrialState.PRUNED if pruned else None)
        curves.append(Curve(not pruned, 1, told))
    assert 5 < num_pruned < 25


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize(("eta", "min_epochs"), [(2, 1), (3, 1), (3, 2), (4, 1)])
def test_halving_decides_as_optunas(direction: Direction, eta: int, min_epochs: int) -> None:
    """From the eta-th run at a rung on; before, Optuna prunes all but the best, we nobody."""
    random = np.random.default_rng(eta)
    num_epochs = 20
    study = optuna.create_study(
        direction=direction,
        pruner=optuna.pruners.SuccessiveHalvingPruner(
            min_resource=min_epochs, reduction_factor=eta, min_early_stopping_rate=0
        ),
    )
    curves: list[Curve] = []
    num_pruned = num_agreed = 0
    rungs = [min_epochs * eta**k for k in range(5)]
    for number in range(60):
        found = rules(halving(eta, min_epochs), curves, direction)
        trial = study.ask()
        told: dict[int, float] = {}
        pruned = False
        for epoch in range(1, num_epochs + 1):
            value = float(random.integers(0, 1_000))
            trial.report(value, epoch)
            told[epoch] = value
            theirs = bool(trial.should_prune())
            num_there = sum(epoch in curve.standings for curve in curves) + 1
            if epoch not in rungs:
                assert not theirs
                assert not found.prunes(epoch, value)
            elif num_there >= eta:
                pruned = found.prunes(epoch, value)
                assert theirs is pruned, (number, epoch)
                num_agreed += 1
            else:
                assert not found.prunes(epoch, value)
                pruned = theirs  # go on as Optuna does, so that both see the same past
            if pruned:
                num_pruned += 1
                break
        study.tell(trial, None if pruned else 0.0, TrialState.PRUNED if pruned else None)
        curves.append(Curve(not pruned, 1, told))
    assert num_pruned > 20
    assert num_agreed > 20


def test_about_one_of_eta_goes_on() -> None:
    random = np.random.default_rng(0)
    curves: list[Curve] = []
    for _ in range(300):
        found = rules(halving(eta=3), curves, "maximize")
        told: dict[int, float] = {}
        for epoch in range(1, 10):
            told[epoch] = float(random.random())
            if found.prunes(epoch, told[epoch]):
                break
        curves.append(Curve(len(told) == 9, 1, told))
    assert 80 < sum(len(curve.standings) > 1 for curve in curves) < 125


# ---- hyperband


def hyperband(eta: int = 3, brackets: int = 3) -> HyperbandPruner:
    return HyperbandPruner(name="hyperband", eta=eta, brackets=brackets)


def test_hyperband_gives_each_bracket_its_share_of_the_trials() -> None:
    """Of 9, 4.5 and 3 trials, rounded up: about as many epochs for each bracket."""
    pruner = hyperband()
    brackets = [pruner.bracket_of(number) for number in range(34)]
    assert [brackets.count(bracket) for bracket in range(3)] == [18, 10, 6]
    assert brackets[:17] == brackets[17:]
    for number in range(17):  # evenly spread: nobody is more than one trial off
        for bracket, share in enumerate((9, 5, 3)):
            has = brackets[: number + 1].count(bracket)
            assert abs(has - share * (number + 1) / 17) < 1


@given(CURVES, DIRECTIONS)
def test_a_bracket_is_halving_of_its_own_trials(curves: list[Curve], direction: Direction) -> None:
    pruner = hyperband(eta=2, brackets=3)
    numbered = [Curve(c.is_complete, 1, c.standings, n) for n, c in enumerate(curves)]
    found = requirements_of(pruner, pruner.basis(numbered), direction, 10)
    for bracket, its in enumerate(found):
        mine = [curve for curve in numbered if pruner.bracket_of(curve.trial) == bracket]
        assert its.thresholds == halving(2, 2**bracket).thresholds(mine, direction)
        assert its.predictions == {}


# ---- predictions


def test_what_a_run_has_gained_goes_on_in_part() -> None:
    assert predicted(0.5, {1: 0.25}, Prediction(since=1, weight=0.75)) == 0.6875
    assert predicted(0.5, {2: 0.25}, Prediction(since=1, weight=0.75)) == 0.5
    assert predicted(0.5, {1: 0.25}, None) == 0.5
    assert predicted(1.7e308, {1: -1.7e308}, Prediction(since=1, weight=1.0)) == 1.7e308


def test_predictions_of_the_curve_pruner() -> None:
    """Each doubling brings half of the one before, and past half of the epochs nobody is pruned."""
    pruner = CurvePruner(name="curve", eta=2)
    curves = [Curve(False, 1, dict.fromkeys(range(1, 17), 0.5))] * 2
    (found,) = requirements_of(pruner, curves, "maximize", 16)
    expected = {2: Prediction(1, 0.875), 4: Prediction(2, 0.75), 8: Prediction(4, 0.5)}
    assert found.predictions == expected
    assert list(found.thresholds) == [2, 4, 8]


@given(CURVES, DIRECTIONS, st.integers(2, 4), VALUES, VALUES)
def test_the_curve_pruner_is_as_defined(
    curves: list[Curve], direction: Direction, eta: int, first: float, second: float
) -> None:
    pruner = CurvePruner(name="curve", eta=eta)
    (found,) = requirements_of(pruner, pruner.basis(curves), direction, 8)
    rules = PruningRules(1, "m", direction, found.thresholds, found.predictions)
    mine = second + 0.75 * (second - first)
    others = [
        c.standings[2] + 0.75 * (c.standings[2] - c.standings[1])
        for c in curves
        if 2 in c.standings
    ]
    num_better = sum(sign(direction) * other > sign(direction) * mine for other in others)
    num_going_on = (len(others) + 1) // eta
    is_pruned = bool(others) and num_going_on > 0 and num_better >= num_going_on
    assert rules.prunes(2, second, {1: first}) is is_pruned
