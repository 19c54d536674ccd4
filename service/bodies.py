"""Bodies of requests, made of what people's programs hand over.

Numbers and arrays of numpy, torch and the like are taken as numbers and lists.  What the service
would refuse is refused before it is sent, by an `ApiError` that names the field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ridgeline.search.problems import validation_problems
from ridgeline.service.connection import ApiError

MAX_DEPTH = 64
"""Arrays and objects nested in one another, here and in the service; a study needs 5."""

_DIVERGED = '; if the trial has diverged, end it with state="FAIL" and reason="diverged"'

_Model = TypeVar("_Model", bound=BaseModel)


def message(model: type[_Model], **fields: Any) -> _Model:
    """A message to the service.

    Raises:
        ApiError: a field is not what the service takes.
    """
    try:
        return model.model_validate(plain(fields))
    except ValidationError as exc:
        raise _refused(*validation_problems(exc)) from exc


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
        raise _refused((_field(path[:3]), f"has more than {MAX_DEPTH} levels"))
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise _refused((_field(path), f"the name {key!r} must be a text"))
        return {key: _plain(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, (*path, index)) for index, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        hint = _DIVERGED if path[:1] in (("metrics",), ("value",)) else ""
        raise _refused((_field(path), f"must be a finite number, not {value}{hint}"))
    if value is None or isinstance(value, str | int | float | BaseModel):
        return value
    raise _refused((_field(path), f"is a {type(value).__name__}, which JSON does not have"))


def _field(path: tuple[object, ...]) -> str:
    return ".".join(map(str, path))


def _refused(*problems: tuple[str, str]) -> ApiError:
    detail = "; ".join(f"{field}: {reason}" for field, reason in problems)
    return ApiError(422, "Invalid input", detail, problems)
