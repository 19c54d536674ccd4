"""What a check has found wrong: the things concerned, what is the matter, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

BY_HAND = (
    "The service never writes this. Go back to a backup, or cancel the study and clone it; where "
    "nobody changed the database by hand, report it as a fault of the service."
)
"""What to do where no constraint of the database and no command mends it."""

MAX_NAMED = 10
"""Things that a finding names; the others are counted."""


class Check(NamedTuple):
    """Something that must hold of the database or of a folder.

    Attributes:
        name: of the check, for people and programs.
        wrong: the matter, in a clause with {} for the things that are wrong.
        todo: what to do about it, in a sentence.
    """

    name: str
    wrong: str
    todo: str

    def found(self, things: Iterable[Any], *, study: str | None = None) -> Finding:
        """The finding that `things` are wrong; at least one."""
        names = [str(thing) for thing in things]
        named = ", ".join(names[:MAX_NAMED])
        if len(names) > MAX_NAMED:
            named += f" and {len(names) - MAX_NAMED} more"
        where = "" if study is None else f"study {study}: "
        return Finding(self.name, f"{where}{self.wrong.format(named)}", self.todo)


@dataclass(frozen=True)
class Finding:
    """One thing to put right; the same texts as in `Check`, with names filled in."""

    check: str
    wrong: str
    todo: str
