"""All configurations of a finite space, one after the other.

# m configurations that are listed, n of any number, d parameters in the order of the space
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Levels = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

INACTIVE = -1
"""In place of the level of a parameter that a configuration lacks."""

MAX_LISTED = 2**17
"""Above the number of trials that a study may have, so that none can use up a larger space."""

_CHUNK = 2**15
_ODD = 0x9E3779B97F4A7C15


@dataclass(frozen=True, eq=False)
class Digit:
    """One parameter as a digit of the number of a configuration.

    Attributes:
        size: how many levels there are.
        parents: (digit, whether each of its levels lets this parameter be there).
    """

    size: int
    parents: Sequence[tuple[int, Flags]] = ()


@dataclass(frozen=True, eq=False)
class Listing:
    """The first configurations of a space.

    Attributes:
        levels_md: the level of each parameter, or `INACTIVE`.
        is_whole: whether these are all.
    """

    levels_md: Levels
    is_whole: bool

    def rows_of(self, levels_nd: Levels) -> Levels:
        """Where configurations that are listed stand in the listing."""
        hash_m, row_m = self._sorted
        found_n = np.searchsorted(hash_m, hashed(levels_nd.T))
        rows_n: Levels = row_m[np.minimum(found_n, len(row_m) - 1)]
        return rows_n

    @cached_property
    def _sorted(self) -> tuple[Levels, Levels]:
        hash_m = hashed(self.levels_md.T)
        row_m = np.argsort(hash_m)
        return hash_m[row_m], row_m


def active(digits: Sequence[Digit], index: int, levels_md: Levels) -> Flags:
    """Where digit `index` is there, by its parents [m]."""
    is_there = np.ones(len(levels_md), np.bool_)
    for parent, allowed in digits[index].parents:
        level_m = levels_md[:, parent]
        is_there &= (level_m >= 0) & allowed[level_m]
    return is_there


def listing(digits: Sequence[Digit], order: Sequence[int], limit: int) -> Listing:
    """At most `limit` configurations, the last digit of `order` changing fastest.

    Args:
        order: every digit, each after its parents.
        limit: at most `MAX_LISTED`.
    """
    assert limit <= MAX_LISTED
    found = [np.empty((0, len(digits)), np.int64)]
    count = 0
    for chunk_md in _chunks(digits, order):
        found.append(chunk_md[: limit - count])
        count += len(chunk_md)
        if count > limit:
            break
    return Listing(np.concatenate(found), count <= limit)


def _chunks(digits: Sequence[Digit], order: Sequence[int]) -> Iterator[Levels]:
    """Configurations in order, many at a time."""
    waiting = [(0, np.full((1, len(digits)), INACTIVE, np.int64))]
    while waiting:
        depth, levels_md = waiting.pop()
        if depth == len(order):
            yield levels_md
        elif len(levels_md) > 1 and len(levels_md) * digits[order[depth]].size > _CHUNK:
            half = len(levels_md) // 2
            waiting += [(depth, levels_md[half:]), (depth, levels_md[:half])]
        else:
            waiting.append((depth + 1, _expanded(digits, order[depth], levels_md)))


def _expanded(digits: Sequence[Digit], index: int, levels_md: Levels) -> Levels:
    """The rows with each level of one digit."""
    # Of so many levels each is one configuration at least, so no more need be looked at.
    size = min(digits[index].size, MAX_LISTED + 1)
    is_there = active(digits, index, levels_md)
    repeats = np.where(is_there, size, 1)
    row_n = np.repeat(np.arange(len(levels_md)), repeats)
    level_n = np.arange(len(row_n)) - (np.cumsum(repeats) - repeats)[row_n]
    wider_nd: Levels = levels_md[row_n]
    wider_nd[:, index] = np.where(is_there[row_n], level_n, INACTIVE)
    return wider_nd


def hashed(columns: Iterable[Levels]) -> Levels:
    """A hash of each row of numbers, given by columns; that of no other row but by chance."""
    hash_n = np.zeros(1, np.uint64)
    for column_n in columns:
        hash_n = (hash_n ^ np.ascontiguousarray(column_n).view(np.uint64)) * np.uint64(_ODD)
        hash_n = hash_n ^ (hash_n >> np.uint64(32))
    return hash_n.view(np.int64)
