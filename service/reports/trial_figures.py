"""Figures of all trials of a study: their history, and how values depend on parameters."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from ridgeline.search.importance import importances
from ridgeline.search.means import INTERVAL
from ridgeline.search.ranges import Value
from ridgeline.search.ridges import Ridge, ridge
from ridgeline.search.space import Parameter, ValuesParameter
from ridgeline.search.spec import StudySpec
from ridgeline.service.measures_in_words import percent
from ridgeline.service.reports import figures
from ridgeline.service.reports.axes import (
    T,
    number_axis,
    parameter_axis,
    span_of,
    thinned,
    value_in,
    value_text,
)
from ridgeline.service.reports.document import Figure, Table
from ridgeline.service.reports.findings import Findings
from ridgeline.service.reports.wording import count, listed, number, user_text
from ridgeline.service.spec_in_words import searched
from ridgeline.service.store.rows import TrialRow

MOST_AXES = 12

_MOST_POINTS = 2_000
_MOST_MARKS = 1_000
_MOST_LINES = 300
_NUM_ROWS = 20
_NUM_STEPS = 40

_RATE = "learning_rate"
_BESIDE_RATE = ("batch_size", "l1", "l2", "weight_decay")


def history_figure(found: Findings) -> Figure | None:
    """Values by trial with the best until then; None where no trial is complete."""
    if found.best is None:
        return None
    objective = found.study.spec.objective
    sign = 1 if objective.direction == "maximize" else -1
    complete = [(t.number, t.value) for t in by_number(found.ranked) if t.value is not None]
    pruned = [(trial.number, trial.value) for trial in found.pruned if trial.value is not None]
    records: list[tuple[int, float]] = []
    for one in complete:
        if not records or sign * one[1] > sign * records[-1][1]:
            records.append(one)
    drawn = _some(complete, records, _MOST_POINTS)
    drawn_pruned = thinned(pruned, _MOST_POINTS)
    last = found.trials[-1].number
    until_the_end = [*records, (last, records[-1][1])] if records[-1][0] < last else records
    values = span_of((value for _, value in (*drawn, *drawn_pruned)), (v for _, v in records))
    metric = user_text(objective.metric)
    numbers = number_axis("trial", span_of((0, last)))
    notes = [
        _thinned_note(len(complete), len(drawn), "complete trial"),
        _thinned_note(len(pruned), len(drawn_pruned), "pruned trial"),
        _beyond_note(values.num_beyond),
        _failed_note(found.study.trials.fail),
    ]
    (first, begin), (number_, end) = records[0], records[-1]
    return Figure(
        "Value by trial",
        figures.history(numbers, number_axis(metric, values), drawn, drawn_pruned, until_the_end),
        f"{metric} of {count(len(complete), 'complete trial')}"
        + (f" and {count(len(pruned), 'pruned one')}" if pruned else "")
        + f". The best so far is {number(begin)} with trial {first}"
        + (f" and {number(end)} with trial {number_}." if len(records) > 1 else "."),
        " ".join(filter(None, notes)),
        Table(
            "The best so far",
            ("trial", metric),
            [(str(n), number(value)) for n, value in thinned(records, _NUM_ROWS)],
            frozenset({0, 1}),
        ),
    )


Shares = Mapping[str, float]
"""How much each parameter matters, the most important first."""


def importance_of(found: Findings) -> Shares | None:
    """None with too few trials, or where nothing sets the best ones apart."""
    return importances(found.study.spec.space, [trial.config for trial in found.ranked])


def importance_figure(shares: Shares | None) -> Figure | None:
    """None where there is nothing to compare."""
    if shares is None or len(shares) < 2:
        return None
    rows = [(name, share, percent(share)) for name, share in list(shares.items())[:MOST_AXES]]
    (first, _, most), (second, _, next_) = rows[:2]
    return Figure(
        "Importance of the parameters",
        figures.bars(rows),
        f"What sets the best trials apart is {first} by {most}, then {second} by {next_}.",
        "By PED-ANOVA: how far the best tenth of the trials, five at least, lies elsewhere than "
        "all do. It tells of the trials that were made, and nothing of the effect of a change. "
        + _thinned_note(len(shares), len(rows), "parameter"),
        Table(
            "Importance",
            ("parameter", "share"),
            [(name, words) for name, _, words in rows],
            frozenset({1}),
        ),
    )


def parallel_figure(found: Findings, shares: Shares | None) -> Figure | None:
    """Configurations as lines; None where there is one parameter or no complete trial."""
    spec = found.study.spec
    if found.best is None or len(spec.space) < 2:
        return None
    most_important = list(shares or spec.space.names)[:MOST_AXES]
    names = [name for name in spec.space.names if name in most_important]
    drawn = thinned(found.ranked, _MOST_LINES)
    values = span_of(_values(drawn), _values(drawn[:1]))
    axes = [parameter_axis(name, spec.space[name]) for name in names]
    axes.append(number_axis(user_text(spec.objective.metric), values))

    def places(trial: TrialRow) -> list[Value | None]:
        return [*(trial.config.get(name) for name in names), trial.value]

    parts = fifths(drawn)
    left_out = len(spec.space) - len(names)
    notes = [
        "Each line is a trial, from its parameters at the top to its value at the bottom; the "
        "better it is, the wider its line.",
        f"Of {len(spec.space)} parameters the {len(names)} most important are shown."
        if left_out
        else "",
        "A line passes by the parameters that its trial lacks."
        if spec.space.is_conditional
        else "",
        _thinned_note(len(found.ranked), len(drawn), "complete trial"),
        _beyond_note(values.num_beyond),
    ]
    rows = [
        (
            name,
            _spread(spec, name, parts[0]),
            user_text(searched(spec.space[name], str)),
            value_in(found.best.config, name),
        )
        for name in names
    ]
    told = listed([f"{name} {spread}" for name, spread, *_ in rows])
    return Figure(
        "Configurations and their values",
        figures.parallel(axes, [list(map(places, part)) for part in parts], places(found.best)),
        f"{count(len(drawn), 'complete trial')}. The best fifth has {told}.",
        " ".join(filter(None, notes)),
        Table(
            "Where the best fifth of the trials lies",
            ("parameter", "best fifth", "searched", "best trial"),
            rows,
        ),
    )


def map_figures(found: Findings, shares: Shares | None) -> list[Figure]:
    """Trials by the learning rate and another parameter; without one, by the two that matter most.

    With one parameter: values by it.
    """
    if found.best is None:
        return []
    names = found.study.spec.space.names
    if len(names) == 1:
        return [_scatter(found, names[0])]
    pairs = [(_RATE, other) for other in _BESIDE_RATE if _RATE in names and other in names]
    if not pairs:
        first, second, *_ = shares or names
        pairs = [(first, second)]
    maps = (_map(found, *pair) for pair in pairs)
    return [figure for figure in maps if figure is not None]


def fifths(ranked: Sequence[T]) -> list[list[T]]:
    """Five parts as equal as can be; of fewer than five trials the first parts have one each."""
    ends = [-(-len(ranked) * part // 5) for part in range(6)]
    return [list(ranked[start:end]) for start, end in pairwise(ends)]


def by_number(trials: Sequence[TrialRow]) -> list[TrialRow]:
    return sorted(trials, key=lambda trial: trial.number)


def _map(found: Findings, across: str, up: str) -> Figure | None:
    """None where no complete trial has both parameters."""
    spec = found.study.spec
    ranked = [t for t in found.ranked if across in t.config and up in t.config]
    drawn = thinned(ranked, _MOST_MARKS)
    parts = fifths(drawn)
    x, y = (parameter_axis(name, spec.space[name]) for name in (across, up))
    points = [[(trial.config[across], trial.config[up]) for trial in part] for part in parts]
    if not drawn:
        return None
    best = drawn[0]
    known = [(trial.config, trial.value or 0.0) for trial in ranked]
    line = ridge(spec.space, known, across, up)
    left_out = len(found.ranked) - len(ranked)
    metric = user_text(spec.objective.metric)
    ranges = [
        f"{name}: {number(part[0].value or 0.0)} to {number(part[-1].value or 0.0)}"
        for name, part in zip(figures.FIFTHS, parts, strict=True)
        if part
    ]
    return Figure(
        f"{metric} by {across} and {up}",
        figures.value_map(x, y, points, _ridge_places(line, spec.space[across], spec.space[up])),
        f"{count(len(drawn), 'complete trial')}. The best one, trial {best.number}, has {across} "
        f"{value_text(best.config[across])} and {up} {value_text(best.config[up])}. The best fifth "
        f"has {across} {_spread(spec, across, parts[0])} and {up} {_spread(spec, up, parts[0])}."
        + _ridge_words(line, across, up),
        " ".join(
            filter(
                None,
                [
                    "The better a trial, the larger its mark.",
                    f"The ridge has the best {across} for each {up}, by a quadratic fit to the "
                    "better part of the trials."
                    if line
                    else "",
                    f"{metric} of each fifth: {', '.join(ranges)}.",
                    _thinned_note(len(ranked), len(drawn), "complete trial"),
                    f"{count(left_out, 'complete trial')} without one of the two is left out."
                    if left_out == 1
                    else f"{count(left_out, 'complete trial')} without one of the two are left out."
                    if left_out
                    else "",
                ],
            )
        ),
        Table(
            "The best of these trials",
            ("trial", across, up, metric),
            [
                (
                    str(trial.number),
                    value_text(trial.config[across]),
                    value_text(trial.config[up]),
                    number(trial.value or 0.0),
                )
                for trial in drawn[:5]
            ],
            frozenset(range(4)),
        ),
    )


def _ridge_places(line: Ridge | None, x: Parameter, y: Parameter) -> list[tuple[float, float]]:
    """Places of points of the line on both axes, so many that it is drawn right on any scale."""
    if line is None:
        return []
    low, high = line.span
    shares = [step / _NUM_STEPS for step in range(_NUM_STEPS + 1)]
    ups = [low ** (1 - share) * high**share for share in shares]
    return [(_place(x, line.across_at(up)), _place(y, up)) for up in ups]


def _place(parameter: Parameter, number_: float) -> float:
    """Where a number lies on an axis; of listed values also between two of them."""
    if not isinstance(parameter, ValuesParameter):
        return parameter.encode(min(max(number_, parameter.low), parameter.top))
    listed_ = [value for value in parameter.values if float(value) > 0]
    logs = [math.log(float(value)) for value in listed_]
    return float(np.interp(math.log(number_), logs, [parameter.encode(one) for one in listed_]))


def _ridge_words(line: Ridge | None, across: str, up: str) -> str:
    if line is None:
        return ""
    least, factor, most = (number(2.0**slope) for slope in (line.low, line.slope, line.high))
    if line.low <= 0 <= line.high:
        return (
            f" Whether the best {across} depends on {up} cannot be told: with {up} doubled it is "
            f"{least} to {most} times as large ({INTERVAL})."
        )
    low, high = (number(end) for end in line.span)
    return (
        f" Good trials lie along a ridge: with {up} doubled, the best {across} is {factor} times "
        f"as large ({INTERVAL}: {least} to {most} times), for {up} from {low} to {high}."
    )


def _scatter(found: Findings, name: str) -> Figure:
    spec = found.study.spec
    drawn = thinned(found.ranked, _MOST_POINTS)
    values = span_of(_values(drawn), _values(drawn[:1]))
    metric = user_text(spec.objective.metric)
    best = drawn[0]
    notes = [
        _thinned_note(len(found.ranked), len(drawn), "complete trial"),
        _beyond_note(values.num_beyond),
    ]
    return Figure(
        f"{metric} by {name}",
        figures.value_scatter(
            parameter_axis(name, spec.space[name]),
            number_axis(metric, values),
            [(trial.config[name], trial.value or 0.0) for trial in drawn],
        ),
        f"{count(len(drawn), 'complete trial')}. The best one, trial {best.number}, has {name} "
        f"{value_text(best.config[name])}; the best fifth has "
        f"{_spread(spec, name, fifths(drawn)[0])}.",
        " ".join(filter(None, notes)),
        Table(
            "The best of these trials",
            ("trial", name, metric),
            [
                (str(t.number), value_text(t.config[name]), number(t.value or 0.0))
                for t in drawn[:5]
            ],
            frozenset(range(3)),
        ),
    )


def _spread(spec: StudySpec, name: str, trials: Sequence[TrialRow]) -> str:
    """Which values of a parameter some trials have."""
    values = [trial.config[name] for trial in trials if name in trial.config]
    if not values:
        return "none"
    parameter = spec.space[name]
    if isinstance(parameter, ValuesParameter) and not parameter.ordered:
        most = Counter(values).most_common(3)
        return ", ".join(f"{value_text(value)} ({number_}×)" for value, number_ in most)
    numbers = sorted(float(value) for value in values)
    low, high = number(numbers[0]), number(numbers[-1])
    return low if low == high else f"{low} to {high}"


def _some(points: Sequence[T], always: Sequence[T], most: int) -> list[T]:
    return sorted({*thinned(points, most), *always})  # type: ignore[type-var]


def _values(trials: Sequence[TrialRow]) -> list[float]:
    return [trial.value for trial in trials if trial.value is not None]


def _thinned_note(number_of: int, drawn: int, thing: str) -> str:
    return f"Of {count(number_of, thing)} {drawn:,} are drawn." if drawn < number_of else ""


def _beyond_note(number_of: int) -> str:
    if not number_of:
        return ""
    lie = "lies" if number_of == 1 else "lie"
    return f"{count(number_of, 'trial')} beyond the axis {lie} at its edge."


def _failed_note(number_of: int) -> str:
    if not number_of:
        return ""
    have = "has" if number_of == 1 else "have"
    return f"{count(number_of, 'failed trial')} {have} no value."
