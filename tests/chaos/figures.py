"""The figures of docs/reliability.md, from the results of the long run.

`python -m tests.chaos.figures` prints them; a test compares them with the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.chaos.campaign import Tally

RESULTS = Path(__file__).parent / "results"

HEAD = (
    "| campaign | database | faults | lost | twice | wrong | rate below | noticed after, s |",
    "| --- | --- | --: | --: | --: | --: | --: | --: |",
)


def table(lines: Iterable[str]) -> Iterator[str]:
    """A table of Markdown from lines of JSON, each of a part of a campaign."""
    totals: dict[tuple[str, str], Tally] = {}
    for line in lines:
        part = json.loads(line)
        key = (part["fault"], part["database"])
        totals.setdefault(key, Tally()).add(Tally(**part["tally"]))
    yield from HEAD
    for (fault, database), total in sorted(totals.items()):
        summary = total.summary()
        bound = summary["rate_bound"]
        seconds = ""
        if total.noticed_seconds:
            median, worst = summary["noticed_median_seconds"], summary["noticed_worst_seconds"]
            seconds = f"{median:.1f}, at worst {worst:.1f}"
        cells = (
            *(f"`{fault}`", database, total.injected, total.lost, total.twice),
            *(total.wrong_values, "" if bound is None else f"{100 * bound:.2g} %", seconds),
        )
        yield f"| {' | '.join(map(str, cells))} |"


def published() -> list[str]:
    """The lines of the results that the page is about."""
    files = sorted(RESULTS.glob("*.jsonl"))
    return [line for file in files for line in file.read_text().splitlines()]


if __name__ == "__main__":
    print("\n".join(table(published())))
