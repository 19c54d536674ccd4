"""All configurations of a finite space, one after the other.

# m configurations that are listed, n of any number, d parameters in the order of the space
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ridgeline.search.constraints import Constraint

Levels = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

INACTIVE = -1
"""In place of the level of a parameter that a configuration lacks."""

MAX_LISTED = 2**17
"""Above the number of trials that a study may have, so that none can use up a larger space."""

_CHUNK = 2**15
_MAX_WORK = 2**22
"""Rows that are looked at, at most, for those that keep the rules."""
_ODD = 0x9E3779B97F4A7C15


@dataclass(frozen=True, eq=False)
class Digit:
    """One parameter as a digit of the number of a configuration.

    Attributes:
        size: how many levels there are.
        parents: (digit, whether each of its levels lets this parameter be there).
        number_k: the value of each level, up to `MAX_LISTED` + 1 of them, where it is a number that
            a rule needs.
    """

    size: int
    parents: Sequence[tuple[int, Flags]] = ()
    number_k: Numbers | None = None


@dataclass(frozen=True, eq=False)
class Rule:
    """A constraint, and the digits of its terms."""

    constraint: Constraint
    digits: Sequence[int]


@dataclass(frozen=True, eq=False)
class Listing:
    """The first configurations of a space.

    Attributes:
        levels_md: the level of each parameter, or `INACTIVE`.
        is_whole: whether these are all.
        is_cut: whether others were not looked for, since too few of many keep the rules.
    """

    levels_md: Levels
    is_whole: bool
    is_cut: bool = False

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


def listing(
    digits: Sequence[Digit], order: Sequence[int], limit: int, rules: Sequence[Rule] = ()
) -> Listing:
    """At most `limit` configurations that keep the rules, the last digit of `order` fastest.

    Args:
        order: every digit, each after its parents.
        limit: at most `MAX_LISTED`.
    """
    assert limit <= MAX_LISTED
    found = [np.empty((0, len(digits)), np.int64)]
    count = 0
    is_cut = bool(rules) and any(digit.size > MAX_LISTED + 1 for digit in digits)
    for chunk_md in _chunks(digits, order, rules):
        if chunk_md is None:
            is_cut = True
            break
        found.append(chunk_md[: limit - count])
        count += len(chunk_md)
        if count > limit:
            break
    return Listing(np.concatenate(found), count <= limit and not is_cut, is_cut)


def _chunks(
    digits: Sequence[Digit], order: Sequence[int], rules: Sequence[Rule]
) -> Iterator[Levels | None]:
    """Configurations in order, many at a time; None, at last, where they are too hard to find."""
    waiting = [(0, np.full((1, len(digits)), INACTIVE, np.int64))]
    work = 0
    while waiting:
        depth, levels_md = waiting.pop()
        if rules and work > _MAX_WORK:
            yield None
            return
        if depth == len(order):
            yield levels_md
        elif len(levels_md) > 1 and len(levels_md) * digits[order[depth]].size > _CHUNK:
            half = len(levels_md) // 2
            waiting += [(depth, levels_md[half:]), (depth, levels_md[:half])]
        else:
            levels_md = _expanded(digits, order[depth], levels_md)
            work += len(levels_md)
            for rule in rules:
                if order[depth] in rule.digits:
                    levels_md = levels_md[
                        _may_hold(rule, digits, set(order[: depth + 1]), levels_md)
                    ]
            waiting.append((depth + 1, levels_md))


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


def _may_hold(rule: Rule, digits: Sequence[Digit], known: set[int], levels_md: Levels) -> Flags:
    """Whether each row may become a configuration that keeps a rule, as far as digits are known."""
    values: list[Any] = []
    is_void_m = np.zeros(len(levels_md), np.bool_)
    for index, (_, coefficient) in zip(rule.digits, rule.constraint.terms, strict=True):
        number_k = digits[index].number_k
        assert number_k is not None
        if index in known:
            is_void_m |= levels_md[:, index] == INACTIVE
            values.append(number_k[levels_md[:, index]])
        elif digits[index].parents:
            return np.ones(len(levels_md), np.bool_)
        else:  # at its best
            values.append(number_k.min() if coefficient > 0 else number_k.max())
    holds: Flags = is_void_m | rule.constraint.holds(values)
    return holds


def hashed(columns: Iterable[Levels]) -> Levels:
    """A hash of each row of numbers, given by columns; that of no other row but by chance."""
    hash_n = np.zeros(1, np.uint64)
    for column_n in columns:
        hash_n = (hash_n ^ np.ascontiguousarray(column_n).view(np.uint64)) * np.uint64(_ODD)
        hash_n = hash_n ^ (hash_n >> np.uint64(32))
    return hash_n.view(np.int64)
