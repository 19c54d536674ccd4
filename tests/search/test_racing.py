"""Racing: who gets more seeds follows from the values alone, and the winner has all of them."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline.search.comparing import mean_of
from ridgeline.search.fields import Direction
from ridgeline.search.racing import Contender, Racing, next_round, num_more, pooled, ranked

RACINGS = st.builds(Racing, seeds=st.integers(2, 20), leaders=st.integers(1, 5))
DIRECTIONS: st.SearchStrategy[Direction] = st.sampled_from(["maximize", "minimize"])
CONTENDERS = st.lists(
    st.tuples(st.none() | st.sampled_from([0.0, 0.5, 1.0]) | st.floats(-1, 1), st.integers(1, 9))
).map(lambda found: [Contender(number, *one) for number, one in enumerate(found)])


@given(CONTENDERS, RACINGS, DIRECTIONS, st.randoms())
def test_a_round_is_of_leaders_that_lack_seeds(
    contenders: list[Contender], racing: Racing, direction: Direction, shuffle: random.Random
) -> None:
    todo = next_round(contenders, racing, direction)
    leaders = ranked(contenders, direction)[: racing.leaders]
    assert all(one in leaders for one, _ in todo)
    for one in leaders:
        more = dict(todo).get(one, 0)
        assert one.num_seeds + more <= max(racing.seeds, one.num_seeds)
        assert (more > 0) == (one.num_seeds < racing.seeds)
    shuffled = shuffle.sample(contenders, len(contenders))
    assert next_round(shuffled, racing, direction) == todo, "whoever was faster"


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=30), RACINGS, DIRECTIONS, st.integers(0, 2**32)
)
def test_a_race_ends_and_its_winner_has_all_seeds(
    values: list[float], racing: Racing, direction: Direction, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    standing = {number: Contender(number, value, 1) for number, value in enumerate(values)}
    for _ in range(20 * len(values)):
        todo = next_round(standing.values(), racing, direction)
        if not todo:
            break
        for one, more in todo:
            value = None if generator.random() < 0.1 else generator.random()
            mean = pooled([(one.value, one.num_seeds), (value, more)])
            standing[one.number] = Contender(one.number, mean, one.num_seeds + more)
    assert next_round(standing.values(), racing, direction) == []
    for one in ranked(standing.values(), direction)[: racing.leaders]:
        assert one.num_seeds >= racing.seeds


def test_leaders_double_their_seeds_up_to_the_most() -> None:
    racing = Racing(seeds=7, leaders=1)
    assert [num_more(num, racing) for num in (1, 2, 4, 7, 9)] == [1, 2, 3, 0, 0]
    best, other = Contender(0, 0.9, 1), Contender(1, 0.8, 1)
    assert next_round([other, best], racing, "maximize") == [(best, 1)]
    fallen = replace(best, value=0.7, num_seeds=2)
    assert next_round([other, fallen], racing, "maximize") == [(other, 1)]
    out = replace(best, value=None)
    assert next_round([other, out], racing, "minimize") == [(other, 1)]
    assert ranked([out], "minimize") == []


def test_ties_go_to_the_smaller_number() -> None:
    tied = [Contender(number, 0.5, 1) for number in (3, 1, 2)]
    assert [one.number for one in ranked(tied, "maximize")] == [1, 2, 3]


def test_the_value_is_the_mean_over_all_seeds() -> None:
    assert pooled([(0.1, 3)]) == 0.1
    assert pooled([(0.5, 1), (0.8, 2)]) == pytest.approx(0.7)
    assert pooled([(0.5, 1), (None, 2)]) is None
    assert pooled([(1.7e308, 1), (1.7e308, 1)]) == 1.7e308


def test_racing_chooses_better_than_one_seed_and_the_fresh_ones_tell_the_truth() -> None:
    """In small: seeds differ as much as configurations do, and 300 of these are all there are.

    `benchmarks.search.racing` has the same on tables.
    """
    num_trials, num_fresh, racing = 100, 5, Racing()
    raced, one_seed, covered = [], [], []
    for study in range(200):
        generator = np.random.default_rng(study)
        truth = generator.standard_normal(300)
        seen = truth + generator.standard_normal(len(truth))
        standing = {n: Contender(n, float(seen[n]), 1) for n in range(num_trials)}
        num_runs = num_trials + num_fresh
        while todo := next_round(standing.values(), racing, "minimize"):
            for one, more in todo:
                value = float(np.mean(truth[one.number] + generator.standard_normal(more)))
                mean = pooled([(one.value, one.num_seeds), (value, more)])
                standing[one.number] = Contender(one.number, mean, one.num_seeds + more)
                num_runs += more
        winner = ranked(standing.values(), "minimize")[0]
        raced.append(truth[winner.number] - truth.min())
        one_seed.append(truth[np.argmin(seen[:num_runs])] - truth.min())
        fresh = truth[winner.number] + generator.standard_normal(num_fresh)
        interval = mean_of("", fresh.tolist()).interval
        assert interval is not None
        covered.append(interval.holds(truth[winner.number]))
    assert np.mean(covered) >= 0.93
    assert np.mean(raced) <= 0.7 * np.mean(one_seed)
