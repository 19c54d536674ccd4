"""JSON as the standard means it (RFC 8259, RFC 7493), and nothing that only Python reads.

`json.loads` takes NaN, duplicate keys, NUL and lone surrogates; databases, other languages and
other JSON readers do not, so what has them is refused here, with the field it is in.

JSON has one kind of number: 5.0 is the whole number 5, as JSON Schema has it.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from typing import Any

from ridgeline.search.fields import MAX_INT
from ridgeline.service.bodies import MAX_DEPTH
from ridgeline.service.errors import InvalidInput

MAX_NAMES = 10_000
"""Names in one object; the largest of ours has a worker's pruning rules, by study."""

_MAX_FLOAT = sys.float_info.max
_MAX_PROBLEMS = 20
_TOO_DEEP = f"is nested deeper than {MAX_DEPTH} levels"


class NotJson(ValueError):
    """The text is not JSON; the message gives the position."""


def loads(raw: bytes, *, max_values: int) -> Any:
    """The value of a JSON text.

    Args:
        max_values: values, arrays and objects in all; each comma, `[` and `{` counts as one, those
            in texts too.  Each may cost a hundred bytes of memory, and several microseconds here
            and in what follows, so they are counted before anything is read.

    Raises:
        NotJson: it is not UTF-8 or breaks the grammar.
        InvalidInput: it breaks the rules above; names each field.
    """
    if sum(map(raw.count, (b",", b"[", b"{"))) > max_values:
        raise InvalidInput([("", f"must have at most {max_values} values in all")])
    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=_object)
    except UnicodeDecodeError as exc:
        raise NotJson(f"byte {exc.start} is not UTF-8") from exc
    except json.JSONDecodeError as exc:
        raise NotJson(f"line {exc.lineno}, column {exc.colno}: {exc.msg}") from exc
    except ValueError as exc:  # Python refuses to read integers of thousands of digits
        raise NotJson("a number has too many digits") from exc
    except RecursionError as exc:
        raise InvalidInput([("", _TOO_DEEP)]) from exc
    found: list[tuple[str, str]] = []
    _check(value, [], found)
    if found:
        raise InvalidInput(found)
    return value


class _Duplicate:
    """Stands for an object that has a key twice."""

    def __init__(self, key: str) -> None:
        self.key = key


def _object(pairs: list[tuple[str, Any]]) -> Any:
    if len(pairs) > MAX_NAMES:
        raise InvalidInput([("", f"must have at most {MAX_NAMES} names in one object")])
    result = dict(pairs)
    if len(result) == len(pairs):
        return result
    counts = Counter(key for key, _ in pairs)
    return _Duplicate(counts.most_common(1)[0][0])


def _check(value: Any, path: list[str | int], found: list[tuple[str, str]]) -> None:
    """Append the problems of a value and all that is in it; the first few are enough."""
    reason = None
    if isinstance(value, str):
        reason = _text_problem(value)
    elif isinstance(value, float):
        reason = None if math.isfinite(value) else "must be a finite number"
    elif isinstance(value, int):
        reason = None if abs(value) <= MAX_INT else f"must lie within ±{MAX_INT}"
    elif isinstance(value, _Duplicate):
        path = [*path, value.key]
        reason = _text_problem(value.key) or "is given twice"
    elif isinstance(value, dict | list):
        if len(path) >= MAX_DEPTH:
            reason = _TOO_DEEP
        else:
            _check_items(value, path, found)
    if reason is not None and len(found) < _MAX_PROBLEMS:
        found.append((_dotted(path), reason))


def _check_items(
    value: dict[str, Any] | list[Any], path: list[str | int], found: list[tuple[str, str]]
) -> None:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    path.append(0)
    for key, item in items:
        if type(key) is str and not _is_plain(key) and (reason := _text_problem(key)) is not None:
            path[-1] = key
            found.append((_dotted(path), f"the name {reason}"))
        if type(item) is float and item.is_integer() and -MAX_INT <= item <= MAX_INT:
            value[key] = int(item)  # type: ignore[index]  # of a list the key is the index
        elif not _is_plain(item):
            path[-1] = key
            _check(item, path, found)
        if len(found) >= _MAX_PROBLEMS:
            break
    path.pop()


def _is_plain(value: Any) -> bool:
    """Whether a value is clearly one without problems, as nearly all are; quick to tell."""
    if isinstance(value, float):
        return -_MAX_FLOAT <= value <= _MAX_FLOAT
    if isinstance(value, int):
        return -MAX_INT <= value <= MAX_INT
    return isinstance(value, str) and value.isascii() and value.isprintable()


def _text_problem(text: str) -> str | None:
    if "\x00" in text:
        return "must not contain the character NUL"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "must not contain half of a surrogate pair"
    return None


def _dotted(path: list[str | int]) -> str:
    return ".".join(str(part) for part in path)
