"""What is told of the runs on a device; said by the engine, and passed on where there is no torch.

Importing this module imports neither torch nor anything else that has to be installed.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol


class Epoch(Protocol):
    """The metrics of one epoch, counted from 1; the engine's `EpochReport`."""

    @property
    def epoch(self) -> int: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...


class Outcome(Protocol):
    """What has become of a run; the engine's `Outcome` says more."""

    @property
    def state(self) -> Literal["complete", "diverged", "pruned", "stopped"]: ...
    @property
    def value(self) -> float | None: ...
    @property
    def kept_epoch(self) -> int | None: ...
    @property
    def diverged_epoch(self) -> int | None: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...
    @property
    def measures(self) -> object | None: ...
    @property
    def rule_version(self) -> int | None: ...


class NeverTrains(ValueError):
    """Why no run of a study can be trained, here or elsewhere; the text tells a person.

    It follows from what all of them have in common, and would come again at every try.
    """


@dataclass(frozen=True)
class Began:
    """The run trains from now on, by this program for life; nothing was touched before."""

    key: Hashable
    program: str


@dataclass(frozen=True)
class Reported:
    """An epoch of a run has ended."""

    key: Hashable
    report: Epoch


@dataclass(frozen=True)
class Saved:
    """The state of a run after an epoch that was reported, for a trainer of the same program."""

    key: Hashable
    epoch: int
    content: bytes


@dataclass(frozen=True)
class Over:
    """A run has ended: complete, diverged or pruned."""

    key: Hashable
    outcome: Outcome


@dataclass(frozen=True)
class Failed:
    """A run failed by itself, and is to blame; a MemoryError: it does not fit even alone."""

    key: Hashable
    error: Exception


@dataclass(frozen=True)
class HandedBack:
    """A run failed together with others, and nobody is to blame.

    `limit` is how many may train at once when it is tried again, itself counted, so that in the end
    the guilty one is alone; None after memory has run out: the next pack is narrower.
    """

    key: Hashable
    error: Exception
    limit: int | None


Event = Began | Reported | Saved | Over | Failed | HandedBack
