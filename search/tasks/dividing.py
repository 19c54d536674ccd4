"""Which rows train, which validate and which test, in each division of a split.

A split has `repeats` times `folds` divisions; run r of a trial has division r modulo their number.
All of them have the same test rows: so no row that has a say in a choice is ever tested on.

# N rows, S strata, B blocks: rows that stay together, by their numbers 0 … B - 1
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ridgeline.search.seeds import derive
from ridgeline.search.tasks.settings import Split

Whole_N = npt.NDArray[np.int64]
Part_N = npt.NDArray[np.int8]

TRAIN, VALIDATION, TEST, UNUSED = range(4)
"""Parts of a division.  UNUSED are rows that come later than those of a fold of a split by time."""


class TooFew(ValueError):
    """There are too few rows to fill the parts."""

    def __init__(self, there: int, needed: int, what: str, stratum: int | None = None) -> None:
        super().__init__(
            f"has {there} of the {needed} {what} needed to stand in every part of the split"
        )
        self.stratum = stratum


def num_needed(split: Split, *, has_test_part: bool) -> int:
    """How many it takes of what is dealt out: rows of a class, rows, groups, or times."""
    num_test = 0 if has_test_part else 1
    if split.folds == 1:
        return num_test + 2
    return num_test + split.folds + (1 if split.kind == "time" else 0)


def by_chance(
    split: Split, division: int, stratum_N: Whole_N, num_strata: int, *, has_test_part: bool
) -> Part_N:
    """Deal the rows of each stratum out to the parts.

    A stratum of n rows gives round(n · share) of them, but at least one to every part.
    `split.test` is a share of all rows and not read where there is a test part; `split.validation`
    is one of the rows that are not test.  Test rows do not depend on the share of validation.  Of
    folds, each has equally many rows of each stratum, and of all together, but for one.

    The order within a stratum is that of one random 64-bit number a row, see `_keys`.

    Raises:
        TooFew: a stratum has fewer rows than there are parts to fill.
    """
    num_rows = len(stratum_N)
    needed = num_needed(split, has_test_part=has_test_part)
    repeat, fold = divmod(division, split.folds)
    part_N = np.full(num_rows, TRAIN, np.int8)
    everyone = np.arange(num_rows)
    for stratum, rows in enumerate(_ordered(split, 0, everyone, stratum_N, num_strata)):
        if len(rows) < needed:
            raise TooFew(len(rows), needed, "rows", stratum)
        if not has_test_part:
            most = len(rows) - (needed - 1)
            part_N[rows[: _share_of(len(rows), split.test, most=most)]] = TEST
    rest = np.flatnonzero(part_N != TEST)
    ordered = _ordered(split, repeat, rest, stratum_N, num_strata)
    if split.folds > 1:
        # Dealt on from stratum to stratum, or the first folds would have a row more of each.
        part_N[np.concatenate(ordered)[fold :: split.folds]] = VALIDATION
        return part_N
    for rows in ordered:
        part_N[rows[: _share_of(len(rows), split.validation, most=len(rows) - 1)]] = VALIDATION
    return part_N


def by_group(split: Split, division: int, group_N: Whole_N, *, has_test_part: bool) -> Part_N:
    """Put all rows of a group, a block, in one part.

    Groups come in a random order.  The first of them are test: so many that their rows are as near
    as can be to the share, and at least one; likewise validation.  Folds take groups from the
    largest down, each the fold with the fewest rows.

    Raises:
        TooFew: there are fewer groups than parts to fill.
    """
    size_B = np.bincount(group_N)
    needed = num_needed(split, has_test_part=has_test_part)
    if len(size_B) < needed:
        raise TooFew(len(size_B), needed, "groups")
    repeat, fold = divmod(division, split.folds)
    part_B = np.full(len(size_B), TRAIN, np.int8)
    if not has_test_part:
        order = np.argsort(_keys(split, 0, len(size_B)), kind="stable")
        most = len(order) - (needed - 1)
        part_B[order[: _prefix(size_B[order], split.test, most=most)]] = TEST
    keys_B = _keys(split, repeat, len(size_B))
    order = np.argsort(keys_B, kind="stable")
    order = order[part_B[order] != TEST]
    if split.folds > 1:
        num_rows_of = [0] * split.folds
        for group in order[np.argsort(-size_B[order], kind="stable")]:
            smallest = num_rows_of.index(min(num_rows_of))
            num_rows_of[smallest] += int(size_B[group])
            part_B[group] = VALIDATION if smallest == fold else TRAIN
    else:
        most = len(order) - 1
        part_B[order[: _prefix(size_B[order], split.validation, most=most)]] = VALIDATION
    return part_B[group_N]


def by_time(split: Split, division: int, time_N: Whole_N, *, has_test_part: bool) -> Part_N:
    """Let training rows come before validation rows, and these before test rows.

    Rows of the same time, a block, are in one part.  Shares are met as nearly as can be.  For k
    folds the rows that are not test are k + 1 stretches, of equally many rows as nearly as can be:
    fold f trains on the first f + 1 of them and validates on the next.

    Raises:
        TooFew: there are fewer times than parts to fill.
    """
    size_B = np.bincount(time_N)
    needed = num_needed(split, has_test_part=has_test_part)
    if len(size_B) < needed:
        raise TooFew(len(size_B), needed, "times")
    part_B = np.full(len(size_B), TRAIN, np.int8)
    num_rest = len(size_B)
    if not has_test_part:
        num_rest -= _prefix(size_B[::-1], split.test, most=len(size_B) - (needed - 1))
        part_B[num_rest:] = TEST
    if split.folds == 1:
        num_validation = _prefix(size_B[:num_rest][::-1], split.validation, most=num_rest - 1)
        part_B[num_rest - num_validation : num_rest] = VALIDATION
        return part_B[time_N]
    ends = [0]
    for stretch in range(1, split.folds + 1):
        begin, following = ends[-1], split.folds + 1 - stretch
        reached_B = np.cumsum(size_B[:num_rest])[begin : num_rest - following]
        wanted = int(size_B[:num_rest].sum()) * stretch / (split.folds + 1)
        ends.append(begin + 1 + int(np.argmin(np.abs(reached_B - wanted))))
    ends.append(num_rest)
    part_B[ends[division + 1] : ends[division + 2]] = VALIDATION
    part_B[ends[division + 2] : num_rest] = UNUSED
    return part_B[time_N]


def _keys(split: Split, repeat: int, num: int) -> npt.NDArray[np.uint64]:
    """Random 64-bit numbers that follow from the split's seed alone.

    These are the raw output of PCG64, which NumPy promises never to change, unlike what
    `Generator.permutation` makes of it (NEP 19): an upgrade must not move rows between the parts.
    """
    which = ("repeat", repeat) if repeat else ()
    return np.random.PCG64(derive("split", split.seed, *which)).random_raw(num)


def _ordered(
    split: Split, repeat: int, rows: Whole_N, stratum_N: Whole_N, num_strata: int
) -> list[Whole_N]:
    """Those rows in a random order, by stratum."""
    keys_N = _keys(split, repeat, len(stratum_N))
    order = rows[np.lexsort((keys_N[rows], stratum_N[rows]))]
    starts = np.searchsorted(stratum_N[order], np.arange(num_strata + 1))
    return np.split(order, starts[1:-1])


def _share_of(num_rows: int, share: float, *, most: int) -> int:
    """`share` of the rows to the nearest whole number, halves up, within 1 and `most`."""
    return min(max(math.floor(num_rows * share + 0.5), 1), most)


def _prefix(size_B: Whole_N, share: float, *, most: int) -> int:
    """How many of the first blocks have that share of all rows as nearly as can be; 1 to `most`."""
    reached_B = np.cumsum(size_B[:most])
    return 1 + int(np.argmin(np.abs(reached_B - int(size_B.sum()) * share)))
