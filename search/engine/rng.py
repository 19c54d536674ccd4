"""Randomness that is counted, not consumed.

Every draw is a hash of (run seed, stream, step, index).  Nothing has a state, so a draw is the same
in whatever slot, pack, process or order it is made, and the same bits on a CPU and a GPU.

The hash is the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014; variant 13 of D. Stafford's mixers), applied to a Weyl sequence whose
start, the *key*, is itself such a hash of (seed, stream, step).

# K keys (one a slot), N draws of one key, S steps
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum
from typing import Final

import torch
from torch import Tensor

_WORD = 2**64 - 1


def _signed(word: int) -> int:
    """The 64-bit word as torch's int64 holds it."""
    return word - 2**64 if word >= 2**63 else word


_GAMMA = 0x9E3779B97F4A7C15
MULTIPLIER_1 = 0xBF58476D1CE4E5B9
MULTIPLIER_2 = 0x94D049BB133111EB
_UNIFORM_BITS: Final = 24


class Stream(IntEnum):
    """What a draw is for.  The numbers are part of every result: never change or reuse one."""

    WEIGHTS = 1
    ORDER = 2
    DROPOUT = 3
    AUGMENTATION = 4
    INPUT_DROPOUT = 5
    GRADIENT_NOISE = 6


def stream_key(seed: int, stream: Stream) -> int:
    """The key of a run's stream, as a signed 64-bit integer.

    Args:
        seed: 0 up to 2**63 - 1.
    """
    return _signed(_mix_int(_mix_int(seed + _GAMMA) + stream * _GAMMA))


def step_keys(
    keys: Sequence[int], first_steps: Sequence[int], num_steps: int, device: torch.device
) -> Tensor:
    """The keys of steps first_step, first_step + 1, … of streams.

    Args:
        keys: of the streams, from `stream_key`.
        first_steps: one a stream.

    Returns:
        int64 [K, S] with S = num_steps, on the device.
    """
    starts_K = [
        _signed((key + (first + 1) * _GAMMA) & _WORD)
        for key, first in zip(keys, first_steps, strict=True)
    ]
    weyl_S = torch.arange(num_steps, device=device).mul_(_signed(_GAMMA))
    words_KS = torch.tensor(starts_K, device=device)[:, None] + weyl_S
    return _xorshift(_multiply_twice(words_KS), 31)


def counters(num_draws: int, device: torch.device) -> Tensor:
    """The Weyl sequence (index + 1)·γ, the part of a hash that every key and step shares.

    Returns:
        int64 [N] with N = num_draws, on the device.
    """
    return torch.arange(1, num_draws + 1, device=device).mul_(_signed(_GAMMA))


def draw(keys_K: Tensor, counters: Tensor) -> Tensor:
    """Hashes of which the top 33 bits, the sign among them, are random.

    The finaliser's last step only stirs the lower bits; neither a comparison with `threshold` nor
    `as_uniform` nor a sort looks at those, so it is left out.

    Returns:
        int64 [K, …] with … the counters' shape.  The draws of one key are all different.
    """
    return _multiply_twice(keys_K.view(-1, *(1,) * counters.dim()) + counters)


def as_uniform(draws: Tensor, dtype: torch.dtype) -> Tensor:
    """Draws as numbers in [0, 1): multiples of 2**-24, so exact in float32 and float64 alike."""
    # Read as signed numbers, from -2**23, so that draws and uniform numbers have the same order.
    whole = (draws >> (64 - _UNIFORM_BITS)).add_(2 ** (_UNIFORM_BITS - 1))
    return whole.to(dtype).mul_(2.0**-_UNIFORM_BITS)


def threshold(probability: float) -> int:
    """The integer t for which `draw >= t` says the same as `as_uniform(draw) >= probability`.

    A probability above 1 - 2**-24, the largest number that `as_uniform` gives, counts as that.
    """
    whole = min(math.ceil(probability * 2.0**_UNIFORM_BITS), (1 << _UNIFORM_BITS) - 1)
    return (whole - (1 << _UNIFORM_BITS - 1)) << 64 - _UNIFORM_BITS


def uniform(
    seeds: Sequence[int],
    stream: Stream,
    step: int,
    num_draws: int,
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """Uniform numbers in [0, 1): the draws 0 to num_draws - 1 of (seed, stream, step) a seed.

    Returns:
        [K, N] with N = num_draws, multiples of 2**-24.
    """
    keys = [stream_key(seed, stream) for seed in seeds]
    keys_K1 = step_keys(keys, [step] * len(keys), 1, device)
    return as_uniform(draw(keys_K1[:, 0], counters(num_draws, device)), dtype)


def permutations(orders: Sequence[tuple[int, int]], counters_N: Tensor) -> Tensor:
    """The order of the samples in epochs of runs: sorted by one hash a sample.

    Sorted once an epoch, so any batch of it can be had without the ones before.

    Args:
        orders: (seed, epoch) of each, the epoch counted from 0.
        counters_N: `counters(number of samples, device)`.

    Returns:
        int64 [K, N], each row a permutation of 0 … N - 1.
    """
    num_samples, device = len(counters_N), counters_N.device
    keys = [stream_key(seed, Stream.ORDER) for seed, _ in orders]
    keys_K1 = step_keys(keys, [epoch for _, epoch in orders], 1, device)
    # The sample's number takes the place of the lowest bits, which are hardly random: sorting
    # whole numbers that are all different is faster than finding the order of others.
    index_bits = (1 << max(num_samples - 1, 1).bit_length()) - 1
    words_KN = draw(keys_K1[:, 0], counters_N).bitwise_and_(~index_bits)
    words_KN.bitwise_or_(torch.arange(num_samples, device=device))
    if device.type == "cpu":
        words_KN.numpy().sort(axis=1)  # vectorised: up to 8 times as fast as torch's
    else:
        words_KN = words_KN.sort(dim=1).values
    return words_KN.bitwise_and_(index_bits)


def _mix_int(word: int) -> int:
    word &= _WORD
    word = ((word ^ (word >> 30)) * MULTIPLIER_1) & _WORD
    word = ((word ^ (word >> 27)) * MULTIPLIER_2) & _WORD
    return word ^ (word >> 31)


def _multiply_twice(words: Tensor) -> Tensor:
    """The finaliser without its last xorshift, in place (int64 products wrap around)."""
    words = _xorshift(words, 30).mul_(_signed(MULTIPLIER_1))
    return _xorshift(words, 27).mul_(_signed(MULTIPLIER_2))


def _xorshift(words: Tensor, shift: int) -> Tensor:
    """words ^ (words >>> shift), in place.

    torch's >> on signed integers copies the sign in; the mask takes it out again.  Without it the
    map is no bijection, and the top bits are far from uniform.
    """
    return words.bitwise_xor_((words >> shift).bitwise_and_(2 ** (64 - shift) - 1))
