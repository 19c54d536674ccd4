"""Grid search: each cell of the grid once, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

import numpy as np

from ridgeline.search.fields import Direction
from ridgeline.search.history import History
from ridgeline.search.samplers.base import Given, Sampler, Suggestion
from ridgeline.search.seeds import derive
from ridgeline.search.space import Space


class GridSampler(Sampler):
    """Trial n gets cell n, less the trials below n that a person enqueued.

    So cells follow from numbers alone, and a trial that failed keeps its own.
    """

    identity = "grid/1"

    def _suggestions(
        self,
        space: Space,
        history: History,
        first: int,
        seed: int,
        direction: Direction,
        given: Given,
        sources: Sequence[History],
    ) -> Iterator[Suggestion]:
        assert not given, "a grid's cells are whole"
        num_enqueued = int(np.count_nonzero(history.enqueued[:first]))
        for number in count(first):
            cell = number - num_enqueued
            # Nothing is drawn; the seed is there because every suggestion has one.
            yield Suggestion(number, space.cell(cell), derive(seed, "grid", number), cell)
