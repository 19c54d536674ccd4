"""Numbers, times, specs and other people's texts as a report has them, in either format."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import yaml

from ridgeline.service.texts import printable

_FIRST_STRONG_ISOLATE, _POP_ISOLATE = "\u2068", "\u2069"
_RIGHT_TO_LEFT = {"R", "AL", "AN"}


def number(value: float) -> str:
    """With four significant digits, whole numbers with all of theirs: 0.9812, 1200, 1e-05."""
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e6):
        return str(int(value))
    return f"{value:.4g}"


def user_text(text: str, most: int = 300) -> str:
    """A text of somebody else on one line; what is read from the right leaves its neighbours be."""
    line = printable(text)
    line = line if len(line) <= most else line[: most - 1] + "…"
    if _RIGHT_TO_LEFT.isdisjoint(map(unicodedata.bidirectional, line)):
        return line
    return f"{_FIRST_STRONG_ISOLATE}{line}{_POP_ISOLATE}"


def count(number_of: int, thing: str) -> str:
    """`1 trial`, `2 trials`, `10,000 trials`."""
    return f"{number_of:,} {thing}{'' if number_of == 1 else 's'}"


def listed(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def moment(seconds: float) -> str:
    """Seconds since 1970-01-01 as a date and a time."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def duration(seconds: float) -> str:
    """`12.3 s`, `5 min 20 s`, `3 h 5 min`."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6_000:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // 3_600)} h {int(seconds % 3_600 // 60)} min"


def as_yaml(spec: Mapping[str, Any]) -> str:
    """A spec to copy; where a text has what would not be seen, other alphabets are escaped too."""
    text = yaml.safe_dump(spec, sort_keys=False, allow_unicode=True, width=72)
    if all(line.isprintable() for line in text.splitlines()):
        return str(text)
    return str(yaml.safe_dump(spec, sort_keys=False, width=72))
