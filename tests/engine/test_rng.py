"""The counted random numbers: uniform, independent, and the same everywhere."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ridgeline.search.engine import rng
from ridgeline.search.engine.config import MAX_SEED
from ridgeline.search.engine.rng import Stream
from tests.engine.sets import CPU

NUM_DRAWS = 1 << 17
SEEDS = [0, 1, 2, 12345, 2**32, 2**53, MAX_SEED]
WORD = 2**64 - 1


def draws(seed: int, stream: Stream, step: int, num_draws: int = NUM_DRAWS) -> torch.Tensor:
    return rng.uniform([seed], stream, step, num_draws, device=CPU, dtype=torch.float64)[0]


def chi_square(counts: torch.Tensor) -> float:
    """How many standard deviations the statistic lies from its mean, for even expectations."""
    expected = counts.sum() / counts.numel()
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = counts.numel() - 1
    return float((statistic - freedom) / (2 * freedom) ** 0.5)


def splitmix(word: int) -> int:
    """The published finaliser, on Python's integers, its last step left out."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    return ((word ^ (word >> 27)) * 0x94D049BB133111EB) & WORD


def test_draws_are_the_published_hash() -> None:
    key = rng.stream_key(99, Stream.DROPOUT)
    counters = rng.counters(50, CPU)
    got = rng.draw(torch.tensor([key]), counters)[0].tolist()
    gamma = 0x9E3779B97F4A7C15
    expected = [splitmix((key + (i + 1) * gamma) & WORD) for i in range(50)]
    assert [value & WORD for value in got] == expected


def test_splitmix_matches_its_reference_output() -> None:
    # The first outputs of SplitMix64 seeded with 1234567, as published with the algorithm.
    words = [splitmix((1234567 + (i + 1) * 0x9E3779B97F4A7C15) & WORD) for i in range(3)]
    assert [word ^ (word >> 31) for word in words] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_step_keys_are_full_hashes() -> None:
    key = rng.stream_key(5, Stream.ORDER)
    got = rng.step_keys([key], [3], 4, CPU)[0].tolist()
    words = [splitmix((key + (step + 1) * 0x9E3779B97F4A7C15) & WORD) for step in range(3, 7)]
    assert [value & WORD for value in got] == [word ^ (word >> 31) for word in words]


@pytest.mark.parametrize("seed", SEEDS)
def test_uniform_in_fine_bins(seed: int) -> None:
    values = draws(seed, Stream.DROPOUT, step=3)
    assert values.min() >= 0
    assert values.max() < 1
    counts = torch.histc(values, bins=1024, min=0, max=1)
    assert abs(chi_square(counts)) < 5


@pytest.mark.parametrize("seed", SEEDS)
def test_each_of_the_24_bits_is_fair(seed: int) -> None:
    whole = (draws(seed, Stream.WEIGHTS, step=0) * 2**24).long()
    shares = torch.stack([(whole >> bit & 1).double().mean() for bit in range(24)])
    deviations = (shares - 0.5).abs() * 2 * NUM_DRAWS**0.5
    assert deviations.max() < 5


@pytest.mark.parametrize("seed", SEEDS)
def test_neighbouring_draws_are_independent(seed: int) -> None:
    values = draws(seed, Stream.DROPOUT, step=0)
    for lag in (1, 2, 64, 512):
        pairs = (values[:-lag] * 16).long() * 16 + (values[lag:] * 16).long()
        assert abs(chi_square(torch.bincount(pairs, minlength=256).double())) < 5


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1, Stream.DROPOUT, 0), (1, Stream.DROPOUT, 1)),
        ((1, Stream.DROPOUT, 0), (2, Stream.DROPOUT, 0)),
        ((1, Stream.DROPOUT, 0), (1, Stream.ORDER, 0)),
        ((0, Stream.WEIGHTS, 0), (0, Stream.AUGMENTATION, 0)),
        ((1, Stream.DROPOUT, 2), (2, Stream.DROPOUT, 1)),
        ((5, Stream.DROPOUT, 0), (5 + 2**32, Stream.DROPOUT, 0)),
    ],
)
def test_streams_steps_and_seeds_are_independent(
    one: tuple[int, Stream, int], other: tuple[int, Stream, int]
) -> None:
    first, second = draws(*one), draws(*other)
    pairs = (first * 16).long() * 16 + (second * 16).long()
    assert abs(chi_square(torch.bincount(pairs, minlength=256).double())) < 5


def test_keys_never_collide() -> None:
    keys = {
        key
        for seed in [*range(200), *SEEDS]
        for stream in Stream
        for key in rng.step_keys([rng.stream_key(seed, stream)], [0], 20, CPU)[0].tolist()
    }
    num_seeds = len({*range(200), *SEEDS})
    assert len(keys) == num_seeds * len(Stream) * 20


def test_the_same_draw_in_float32_and_float64() -> None:
    single = rng.uniform([3], Stream.WEIGHTS, 0, NUM_DRAWS, device=CPU, dtype=torch.float32)
    assert torch.equal(single[0].double(), draws(3, Stream.WEIGHTS, 0))


def test_a_draw_does_not_depend_on_how_many_are_made() -> None:
    few, many = draws(3, Stream.WEIGHTS, 0, 17), draws(3, Stream.WEIGHTS, 0, 1000)
    assert torch.equal(few, many[:17])


@given(
    probability=st.floats(0, 1 - 2**-24, exclude_max=False),
    seed=st.integers(0, MAX_SEED),
    step=st.integers(0, 10**9),
)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_threshold_says_what_uniform_says(probability: float, seed: int, step: int) -> None:
    key = rng.step_keys([rng.stream_key(seed, Stream.DROPOUT)], [step], 1, CPU)[0]
    raw = rng.draw(key, rng.counters(500, CPU))
    kept = raw >= rng.threshold(probability)
    assert torch.equal(kept, rng.as_uniform(raw, torch.float64) >= probability)


def test_thresholds_at_the_ends() -> None:
    raw = torch.tensor([-(2**63), -(2**63) + 1, 0, 2**63 - 1])
    assert (raw >= rng.threshold(0.0)).all()
    assert (raw >= rng.threshold(1 - 1e-12)).tolist() == [False, False, False, True]


@given(num_samples=st.integers(1, 300), seed=st.integers(0, MAX_SEED), epoch=st.integers(0, 10**6))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_an_order_is_a_permutation(num_samples: int, seed: int, epoch: int) -> None:
    order = rng.permutations([(seed, epoch)], rng.counters(num_samples, CPU))[0]
    assert sorted(order.tolist()) == list(range(num_samples))


def test_orders_are_evenly_distributed() -> None:
    counters = rng.counters(4, CPU)
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(24 * 200):
        order = tuple(rng.permutations([(1, epoch)], counters)[0].tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert abs(chi_square(torch.tensor(list(counts.values())).double())) < 5
