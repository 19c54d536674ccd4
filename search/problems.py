"""What pydantic finds wrong with data, in words for people, by the field as its author wrote it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

_MAX_ERRORS = 10_000
"""More of them are not listed: as plain data each takes about a kilobyte."""


def told(problems: Iterable[tuple[str, str]]) -> str:
    """(field, reason) pairs as one text; a reason without a field is about the whole."""
    return "; ".join(
        f"{field}: {reason}" if field else f"the body {reason}" for field, reason in problems
    )


def validation_problems(exc: ValidationError) -> Iterable[tuple[str, str]]:
    """pydantic's errors as (field path, reason) pairs, in words for people."""
    if exc.error_count() > _MAX_ERRORS:
        return [("", f"has {exc.error_count()} errors; check its overall form")]
    return error_problems(exc.errors(include_url=False, include_context=True))


def error_problems(errors: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """The same for errors that are plain data already, as FastAPI hands them on."""
    scalar: list[int | str] | None = None
    last: list[int | str] = []
    for error in errors:
        path = list(error["loc"])
        reason = error["msg"].removeprefix("Value error, ")
        context = error.get("ctx", {})
        if path[:-1] == scalar:
            continue  # the other members of a union of scalars say no in their own words
        if error["type"] == "bool_type" and path[-1:] == ["bool"]:
            path = scalar = path[:-1]
            reason = "must be a number, a text, true or false"
        elif error["type"] in ("union_tag_invalid", "union_tag_not_found"):
            path.append(str(context["discriminator"]).strip("'"))
            if "tag" in context:
                reason = f"{context['tag'][:100]!r} is not one of {context['expected_tags']}"
            else:
                reason = "is missing"
        elif error["type"] == "extra_forbidden":
            reason = "is not a field here"
        elif error["type"] == "invalid_key":
            reason = "the name must be a text"
        elif error["type"] == "float_type" and _DECIMAL_COMMA.fullmatch(str(error.get("input"))):
            reason = "must be a number; write its comma as a point"
        elif error["type"] == "missing":
            reason = "is missing"
        elif error["type"] == "string_pattern_mismatch":
            reason = f"must match {context['pattern']}"
        elif error["type"] in ("model_type", "model_attributes_type", "dict_type"):
            reason = "must be an object"
        elif error["type"] == "tuple_type":
            reason = "must be a list"
        elif error["type"] == "string_unicode":
            reason = "must be text that UTF-8 can hold"
        elif error["type"] == "too_short":
            if last[: len(path)] == path and len(last) > len(path):
                continue  # its items are bad, and said so
            reason = f"must have a length of at least {context['min_length']}"
        last = path
        reason = _SUBJECT.sub("must ", reason)
        if path[-1:] == ["[key]"]:
            path, reason = path[:-1], f"the name {reason}"
        yield ".".join(str(part) for part in _without_tags(path)), reason


_DECIMAL_COMMA = re.compile(r"[-+]?[0-9]+,[0-9]+")
_SUBJECT = re.compile("^(Input|String|List|Tuple|Dictionary) should ")
_TAGS = {
    "float",
    "int",
    "values",
    "median",
    "halving",
    "hyperband",
    "curve",
    "bool",
    "str",
    "word",
    "list",
}


def _without_tags(path: list[int | str]) -> Iterator[int | str]:
    """The path as the author wrote it: pydantic puts the tag chosen in a union into it."""
    for depth, part in enumerate(path):
        is_union_tag = (
            (depth == 2 and path[0] == "space")
            or (depth == 1 and path[0] == "pruner")
            or path[:depth] == ["task", "class_weights"]
        )
        if not (is_union_tag and part in _TAGS):
            yield part
