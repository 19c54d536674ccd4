"""Bodies of requests, made of what people's programs hand over.

Numbers and arrays of numpy, torch and the like are taken as numbers and lists.  What the service
would refuse is refused before it is sent, by an `ApiError` that names the field.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ridgeline.search.fields import MAX_INT
from ridgeline.search.problems import told, validation_problems
from ridgeline.service.connection import ApiError

MAX_DEPTH = 64
"""Arrays and objects nested in one another, here and in the service; a study needs 5."""

_DIVERGED = '; if the trial has diverged, end it with state="FAIL" and reason="diverged"'

_NOT_UTF_8 = "must be text that UTF-8 can hold"

_Model = TypeVar("_Model", bound=BaseModel)


def message(model: type[_Model], **fields: Any) -> _Model:
    """A message to the service; as in JSON, 5.0 is the whole number 5.

    Raises:
        ApiError: a field is not what the service takes.
    """
    given = {name: _as_whole(value) for name, value in plain(fields).items()}
    try:
        return model.model_validate(given)
    except ValidationError as exc:
        raise refused(*validation_problems(exc)) from exc


def items_of(given: Any) -> Any:
    """The items of whatever can be gone through, as a list; anything else as it is, to be refused.

    A text and an object are not lists, though Python goes through them too.
    """
    if isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping):
        return list(given)
    return given


def plain(data: Any) -> Any:
    """`data` as JSON has it: objects, lists, texts, finite numbers, true, false and null.

    Raises:
        ApiError: it holds something else; the first such field is named.
    """
    return _plain(data, ())


def _plain(value: Any, path: tuple[object, ...]) -> Any:
    tolist = getattr(value, "tolist", None)  # of numpy's and torch's numbers and arrays
    if callable(tolist):
        value = tolist()
    if len(path) > MAX_DEPTH:
        raise refused((_field(path[:3]), f"has more than {MAX_DEPTH} levels"))
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise refused((_field(path), f"the name {key!r} must be a text"))
            if not _is_utf_8(key):
                raise refused((_field(path), f"the name {key!r} {_NOT_UTF_8}"))
        return {key: _plain(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, (*path, index)) for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        hint = _DIVERGED if path[:1] in (("metrics",), ("value",)) else ""
        raise refused((_field(path), f"must be a finite number, not {value}{hint}"))
    if isinstance(value, str) and not _is_utf_8(value):
        raise refused((_field(path), _NOT_UTF_8))
    if value is None or isinstance(value, str | int | float | BaseModel):
        return value
    raise refused((_field(path), f"is a {type(value).__name__}, which JSON does not have"))


def _as_whole(value: Any) -> Any:
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) <= MAX_INT
    return int(value) if is_whole else value


def _is_utf_8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: a byte of an argument, say
        return False
    return True


def _field(path: tuple[object, ...]) -> str:
    return ".".join(map(str, path))


def refused(*problems: tuple[str, str]) -> ApiError:
    """What the service would answer to these (field, reason) pairs."""
    return ApiError(422, "Invalid input", told(problems), problems)
