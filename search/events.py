"""What is told of the runs on a device."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from search.engine.progress import EpochReport, Outcome


@dataclass(frozen=True)
class Began:
    """The run trains from now on, by this program for life; nothing was touched before."""

    key: Hashable
    program: str


@dataclass(frozen=True)
class Reported:
    """An epoch of a run has ended."""

    key: Hashable
    report: EpochReport


@dataclass(frozen=True)
class Over:
    """A run has ended: complete, diverged or pruned."""

    key: Hashable
    outcome: Outcome


@dataclass(frozen=True)
class Failed:
    """A run failed alone in its pack, so it is to blame; a MemoryError: it does not fit alone."""

    key: Hashable
    error: Exception


@dataclass(frozen=True)
class HandedBack:
    """A run's pack failed with others in it, and nobody is to blame.

    `limit` is beside how few others, itself counted, to try it again, so that in the end the guilty
    one is alone; None after memory has run out: the next pack is narrower.
    """

    key: Hashable
    error: Exception
    limit: int | None


Event = Began | Reported | Over | Failed | HandedBack
