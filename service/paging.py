"""How much one page of a list holds: a number of items, and of bytes."""

from __future__ import annotations

from collections.abc import Sequence

MAX_PAGE_BYTES = 4 * 2**20
"""About what the items of a page come to as JSON; one item alone may be larger.

A study may have a spec of megabytes, and a trial a hundred runs with an error's text each: a
thousand of them would take the api's memory.
"""


def num_fitting(sizes: Sequence[int], room: int) -> int:
    """How many of the items, given by their bytes, fit into `room` bytes."""
    for index, size in enumerate(sizes):
        room -= size
        if room < 0:
            return index
    return len(sizes)
