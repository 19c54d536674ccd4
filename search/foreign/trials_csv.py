"""The CSV of Optuna's `study.trials_dataframe()`, which tells what was tried, but no ranges."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ridgeline.search.foreign.draft import Draft, Refused
from ridgeline.search.foreign.trials import Tried, add_condition, tell_trials

LOG_FACTOR = 100
"""Values of a positive parameter that reach over such a factor are taken for a log range."""

_PARAMS = "params_"
_VALUE = re.compile(r"values?(_|$)")
_WHOLE = re.compile(r"[-+]?[0-9]{1,15}(\.0)?")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_BOOLS = {"True": True, "False": False}


def of_trials_csv(content: str, name: str) -> Draft:
    """The draft of a study of which there is only this table.

    Raises:
        Refused: it is no such table.
    """
    rows = _rows(content)
    header = [] if not rows else list(rows[0])
    values = [column for column in header if _VALUE.match(column)]
    params = [column for column in header if column.startswith(_PARAMS)]
    for column, there in (("state", "state" in header), ("value", values), ("params_*", params)):
        if not there:
            raise Refused((column, "is missing: no such column in the first line"))
    draft = Draft(name)
    objective = values[0]
    named = _VALUE.sub("", objective)
    draft.metric = "value" if not named or named.isdecimal() else named
    draft.note("direction", "is not in the CSV; minimize is written, as Optuna has by default")
    draft.note("sampler", "is not in the CSV; auto is written")
    if len(values) > 1:
        draft.note(", ".join(values[1:]), "a study has one objective, which is the first one here")
    if len(rows) > 0:
        draft.limit_trials("number", len(rows))
        draft.note(
            "budget.trials", f"an Optuna study has none; {draft.trials} are written, as here"
        )
    names, columns = {}, {}
    for column in params:
        found = _typed([row[column] for row in rows])
        if all(value is None for value in found):
            draft.note(column, "no trial has a value; it is left out")
            continue
        key = column.removeprefix(_PARAMS)
        names[key], columns[key] = _add(draft, column, key, found), found
    complete = [line for line, row in enumerate(rows) if row["state"] == "COMPLETE"]
    by_line = {
        line: {key: found[line] for key, found in columns.items() if found[line] is not None}
        for line in complete
    }
    for key, found in columns.items():
        if None in found:
            add_condition(draft, f"{_PARAMS}{key}", key, [*by_line.values()], names)
    tried = [
        Tried(
            by_line[line],
            _value(f"{objective} in row {line + 2}", rows[line][objective]),
        )
        for line in complete
    ]
    num_pruned = sum(row["state"] == "PRUNED" for row in rows)
    if names:
        tell_trials(draft, tried, names, num_pruned=num_pruned)
    return draft


def _rows(content: str) -> Sequence[Mapping[str, str]]:
    try:
        reader = csv.DictReader(io.StringIO(content, newline=""), strict=True, restval="")
        rows: list[dict[str, str]] = list(reader)
    except csv.Error as exc:
        raise Refused(("", f"is no CSV: {exc}")) from exc
    if not rows:
        raise Refused(("", "has no trials"))
    return rows


def _value(at: str, text: str) -> float:
    """The value of a complete trial, which may be infinite."""
    try:
        value = float(text)
    except ValueError as exc:
        raise Refused((at, f"must be a number, not {text[:60]!r}")) from exc
    if math.isnan(value):
        raise Refused((at, "must be a number"))
    return value


def _typed(texts: Sequence[str]) -> list[Any]:
    """The values of a column, None where the trial has none."""
    given = [text for text in texts if text]
    if all(_WHOLE.fullmatch(text) for text in given) and (
        # pandas writes whole numbers with a point where some are missing.
        len(given) < len(texts) or all("." not in text for text in given)
    ):
        return [int(float(text)) if text else None for text in texts]
    if all(_NUMBER.fullmatch(text) and math.isfinite(float(text)) for text in given):
        return [float(text) if text else None for text in texts]
    if all(text in _BOOLS for text in given):
        return [_BOOLS.get(text) for text in texts]
    return [text or None for text in texts]


def _add(draft: Draft, column: str, key: str, found: Sequence[Any]) -> str:
    given = [value for value in found if value is not None]
    if isinstance(given[0], bool | str):
        draft.note(column, "its values are those that trials had; add those that none has tried")
        return draft.add_values(column, key, dict.fromkeys(given))
    low, high = min(given), max(given)
    log = low > 0 and high / low >= LOG_FACTOR
    kind = "a log range" if log else "a range"
    draft.note(column, f"has no range in the CSV; it is {kind} over what trials had: widen it")
    return draft.add_range(column, key, low, high, whole=isinstance(low, int), log=log)
