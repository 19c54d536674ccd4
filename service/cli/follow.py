"""Watching studies until they end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.live import Live

from ridgeline.service.cli import tables
from ridgeline.service.client import Client, Unreachable
from ridgeline.service.lifecycle import OPEN_STUDY
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
    paces = {name: tables.Pace() for name in names}
    studies: dict[str, Study] = {}
    with _Display(console) as display:
        answered_at = clock()
        while True:
            try:
                for name in names:
                    if name not in studies or studies[name].state in OPEN_STUDY:
                        studies[name] = client.study(name)
                        paces[name].see(tables.num_done(studies[name]), clock())
            except Unreachable:
                if clock() - answered_at > PATIENCE_SECONDS:
                    raise
            else:
                answered_at = clock()
                display.show([(studies[name], paces[name]) for name in names], answered_at)
                if all(study.state not in OPEN_STUDY for study in studies.values()):
                    return studies
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
