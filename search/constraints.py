"""Linear constraints between parameters, such as `2*x + y < 10`.

A constraint is read as terms · values + constant <= 0, or < 0.  It says nothing of a configuration
that lacks one of its parameters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_LENGTH = 500
_MAX_DEPTH = 20

_ROUNDING = 1e-9
"""Sums that differ by less than this share of their terms are equal: 0.1 + 0.2 <= 0.3."""

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)|(?P<name>[A-Za-z][A-Za-z0-9_.]*)"
    r"|(?P<sign><=|>=|[-+*/()<>]))"
)


class BadConstraint(ValueError):
    """A text that is no constraint; says where."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(f"at character {position + 1}: {reason}")


@dataclass(frozen=True)
class Constraint:
    """One constraint.

    Attributes:
        text: as its author wrote it.
        terms: (parameter, coefficient).
        is_strict: whether the sum must be below 0.
        positions: where each parameter first stands in the text.
    """

    text: str
    terms: tuple[tuple[str, float], ...]
    constant: float
    is_strict: bool
    positions: Mapping[str, int]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.terms)

    def total(self, values: Sequence[Any]) -> tuple[Any, Any]:
        """The sum of terms and constant, and that of their sizes.

        Args:
            values: of the parameters, numbers or arrays.
        """
        total, size = self.constant, abs(self.constant)
        for (_, coefficient), value in zip(self.terms, values, strict=True):
            total = total + coefficient * value
            size = size + abs(coefficient * value)
        return total, size

    def holds(self, values: Sequence[Any], *, margin: float = 1.0) -> Any:
        """Whether it does, as a bool or an array of them.

        Args:
            margin: above 1 for values that are not exact to the last digit: what holds for them
                holds for the exact ones.
        """
        total, size = self.total(values)
        if self.is_strict:
            return total < -_ROUNDING * margin * size
        return total <= _ROUNDING / margin * size


def parse(text: str) -> Constraint:
    """The constraint that a text says.

    Raises:
        BadConstraint: it says none.
    """
    return _Reader(text).read()


class _Reader:
    """Reads sums of terms, each a number, a parameter, or a product or quotient by a number."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str, int]] = []
        self._positions: dict[str, int] = {}
        self._next = self._depth = 0
        if len(text) > MAX_LENGTH:
            raise BadConstraint(MAX_LENGTH, f"is longer than {MAX_LENGTH} characters")
        at, end = 0, len(text.rstrip())
        while at < end:
            found = _TOKEN.match(text, at)
            if found is None:
                at += len(text[at:]) - len(text[at:].lstrip())
                raise BadConstraint(at, f"{text[at]!r} is no part of a constraint")
            kind = found.lastgroup or ""
            self._tokens.append((kind, found[kind], found.start(kind)))
            at = found.end()
        self._tokens.append(("end", "", end))

    def read(self) -> Constraint:
        left = self._sum()
        _, sign, at = self._take()
        if sign not in ("<", "<=", ">", ">="):
            raise BadConstraint(at, "needs one of <, <=, > and >= here")
        right = self._sum()
        kind, what, end = self._take()
        if kind != "end":
            raise BadConstraint(end, f"must end before {what!r}; write two comparisons as two")
        low, high = (left, right) if sign in ("<", "<=") else (right, left)
        whole = _plus(low, _times(high, -1.0))
        terms = tuple((name, by) for name, by in whole.items() if name and by)
        if not terms:
            raise BadConstraint(at, "depends on no parameter")
        if not all(math.isfinite(by) for by in whole.values()):
            raise BadConstraint(at, "has too large a number")
        constant = whole.get("", 0.0)
        return Constraint(self._text, terms, constant, sign in ("<", ">"), self._positions)

    def _sum(self) -> dict[str, float]:
        found = self._product()
        while self._tokens[self._next][1] in ("+", "-"):
            _, sign, _ = self._take()
            found = _plus(found, _times(self._product(), 1.0 if sign == "+" else -1.0))
        return found

    def _product(self) -> dict[str, float]:
        found = self._factor()
        while self._tokens[self._next][1] in ("*", "/"):
            _, sign, at = self._take()
            other = self._factor()
            if sign == "/":
                if set(other) != {""}:
                    raise BadConstraint(at, "only a number can be divided by")
                if not other[""]:
                    raise BadConstraint(at, "divides by 0")
                found = _times(found, 1 / other[""])
            elif set(other) == {""}:
                found = _times(found, other[""])
            elif set(found) == {""}:
                found = _times(other, found[""])
            else:
                raise BadConstraint(at, "multiplies parameters: a constraint is linear")
        return found

    def _factor(self) -> dict[str, float]:
        signs = 1.0
        while self._tokens[self._next][1] in ("-", "+"):
            signs = -signs if self._take()[1] == "-" else signs
        kind, what, at = self._take()
        if kind == "number":
            return {"": signs * float(what)}
        if kind == "name":
            self._positions.setdefault(what, at)
            return {what: signs}
        if what == "(":
            self._depth += 1
            if self._depth > _MAX_DEPTH:
                raise BadConstraint(at, f"is more than {_MAX_DEPTH} brackets deep")
            inner = self._sum()
            self._depth -= 1
            _, closing, at = self._take()
            if closing != ")":
                raise BadConstraint(at, "needs a ) here")
            return _times(inner, signs)
        raise BadConstraint(at, "needs a number or a parameter here")

    def _take(self) -> tuple[str, str, int]:
        token = self._tokens[self._next]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token


def _plus(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """The sum of two linear expressions, by parameter; a constant has the name ""."""
    return {name: one.get(name, 0.0) + other.get(name, 0.0) for name in {**one, **other}}


def _times(one: Mapping[str, float], number: float) -> dict[str, float]:
    return {name: by * number for name, by in one.items()}
