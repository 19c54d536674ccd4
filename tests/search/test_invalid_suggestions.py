"""No sampler suggests what is no configuration, or one of a finite space twice.

A few thousand are checked here; `python -m tests.search.test_invalid_suggestions` checks 100,000.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections import Counter

import pytest

from ridgeline.search.fields import SamplerName
from ridgeline.search.history import History, TrialStatus
from ridgeline.search.samplers import sampler_for
from ridgeline.search.seeds import derive
from ridgeline.search.space import Space
from tests.search.test_conditional import ENDLESS, SPACE
from tests.search.test_constraints import CASES
from tests.search.test_constraints import spec as constrained

BATCH = 64
SPACES = {
    "conditional": SPACE,
    "conditional, endless": ENDLESS,
    **{case: constrained(space, *rules).space for case, (space, rules) in CASES.items()},
}
GRIDS = {name: space for name, space in SPACES.items() if space.num_cells is not None}
NAMES: tuple[SamplerName, ...] = ("random", "gp", "tpe")


def check(name: SamplerName, space: Space, num_suggestions: int, seed: int) -> int:
    """Search with values that follow from configurations; how many suggestions were no good."""
    sampler, history = sampler_for(name), History(space)
    seen: Counter[str] = Counter()
    num_bad = 0
    num_cells = space.num_cells if name == "grid" else _size(space)
    while len(history) < num_suggestions:
        numbers = range(len(history), min(len(history) + BATCH, num_suggestions))
        for one in sampler.suggest(space, history, numbers, seed, "minimize"):
            is_new = not seen[repr(one.config)]
            is_used_up = num_cells is not None and len(seen) >= num_cells
            if space.problems(one.config) or (num_cells is not None and not is_new | is_used_up):
                num_bad += 1
            seen[repr(one.config)] += 1
            value = float(derive(repr(sorted(one.config.items()))) % 1_000)
            state = TrialStatus.FAIL if value < 50 else TrialStatus.COMPLETE
            told = None if state is TrialStatus.FAIL else value
            history.put(one.number, one.config, enqueued=False, state=state, value=told)
    return num_bad


def _size(space: Space) -> int | None:
    sizes = [parameter.num_values for _, parameter in space.items()]
    if None in sizes or not space.configurations.is_whole:
        return None
    return len(space.configurations.levels_md)


@pytest.mark.parametrize("space", ["conditional", "conditional, endless", "finite", "endless"])
@pytest.mark.parametrize("name", NAMES)
def test_suggestions_are_configurations(name: SamplerName, space: str) -> None:
    assert check(name, SPACES[space], 192, 1) == 0


@pytest.mark.parametrize("space", GRIDS)
def test_grids_are_exact(space: str) -> None:
    size = GRIDS[space].num_cells
    assert size is not None
    assert check("grid", GRIDS[space], size, 0) == 0
    with pytest.raises(IndexError):
        check("grid", GRIDS[space], size + 1, 0)


def main() -> None:
    """100,000 suggestions of all samplers and spaces; grids whole."""
    total = num_bad = 0
    many = -(-100_000 // (10 * len(NAMES) * (len(SPACES) - 1)))
    for name, space in itertools.product(NAMES, SPACES):
        start = time.perf_counter()
        num = 64 if space == "line" else many  # where nothing but a line is left, draws take long
        num_bad += sum(check(name, SPACES[space], num, seed) for seed in range(10))
        total += 10 * num
        print(f"{name}, {space}: {10 * num} in {time.perf_counter() - start:.0f} s", flush=True)
    for space, its in GRIDS.items():
        size = its.num_cells or 0
        num_bad += check("grid", its, size, 0)
        total += size
        print(f"grid, {space}: {size}")
    print(f"{num_bad} of {total} suggestions are no good")
    sys.exit(num_bad > 0)


if __name__ == "__main__":
    main()
