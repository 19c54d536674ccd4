"""Watching studies until they end."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.live import Live

from ridgeline.service.cli import tables
from ridgeline.service.client import Client, Unreachable
from ridgeline.service.comparison_resources import Comparison
from ridgeline.service.lifecycle import OPEN_STUDY, StudyState
from ridgeline.service.resources import Study

POLL_SECONDS = 0.5
PLAIN_LINE_SECONDS = 5.0
"""Where nobody sees a live table, a line this often is enough."""

PATIENCE_SECONDS = 60.0
"""How long a service that does not answer is waited for; an api that restarts needs less."""


def follow(
    client: Client,
    names: Sequence[str],
    console: Console,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Study]:
    """Show the progress of studies until all have ended, and return them.

    Raises:
        ApiError: one of them cannot be read.
        Unreachable: the service has not answered for a minute.
    """
    studies: dict[str, Study] = {}

    def look() -> tuple[list[Study], bool]:
        for name in names:
            if name not in studies or studies[name].state in OPEN_STUDY:
                studies[name] = client.study(name)
        is_over = all(study.state not in OPEN_STUDY for study in studies.values())
        return [studies[name] for name in names], is_over

    _watch(look, console, sleep, clock)
    return studies


def follow_comparison(client: Client, name: str, console: Console) -> Comparison:
    """Show the progress of a comparison's studies until it has ended, and return it.

    Raises:
        ApiError, Unreachable: as of `follow`.
    """
    found: list[Comparison] = []

    def look() -> tuple[list[Study], bool]:
        was_paused = bool(found) and found[0].state is StudyState.PAUSED
        found[:] = [client.comparison(name)]
        (comparison,) = found
        if comparison.state is StudyState.PAUSED and not was_paused:
            console.print(
                f"{name} is PAUSED; `ridgeline comparison resume {name}` has it go on",
                soft_wrap=True,
            )
        studies = [
            study
            for of_kind in ("search", "fresh")
            for arm in comparison.arms
            if (study := getattr(arm, of_kind)) is not None
        ]
        return studies, comparison.state not in OPEN_STUDY

    _watch(look, console, time.sleep, time.monotonic)
    return found[0]


def _watch(
    look: Callable[[], tuple[list[Study], bool]],
    console: Console,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> None:
    """Show the studies that `look` gives until it says that all is over."""
    paces: dict[str, tables.Pace] = defaultdict(tables.Pace)
    with _Display(console) as display:
        answered_at = clock()
        while True:
            try:
                studies, is_over = look()
            except Unreachable:
                if clock() - answered_at > PATIENCE_SECONDS:
                    raise
            else:
                answered_at = clock()
                for study in studies:
                    paces[study.name].see(tables.num_done(study), answered_at)
                display.show([(study, paces[study.name]) for study in studies], answered_at)
                if is_over:
                    return
            sleep(POLL_SECONDS)


class _Display:
    """A live table on a terminal; elsewhere a line now and then, and at each change of state."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._printed: dict[str, tuple[str, int, float]] = {}

    def __enter__(self) -> _Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, rows: list[tuple[Study, tables.Pace]], now_seconds: float) -> None:
        if self._live is not None:
            self._live.update(tables.progress_table(rows), refresh=True)
            return
        for study, pace in rows:
            state = f"{study.state} {tables.waits_for(study)}"
            done = tables.num_done(study)
            last_state, last_done, printed_at = self._printed.get(study.name, ("", -1, 0.0))
            due = done != last_done and now_seconds - printed_at >= PLAIN_LINE_SECONDS
            if state != last_state or due:
                self._console.print(tables.progress_line(study, pace), soft_wrap=True)
                self._printed[study.name] = (state, done, now_seconds)
