"""Learning curves: the lines in a figure, and what is told of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from ridgeline.service.curves import SIDES_IN_WORDS, Means, RunCurve, Sides, mean_curve
from ridgeline.service.reports import figures
from ridgeline.service.reports.axes import Span, epochs_axis, number_axis, span_of, thinned
from ridgeline.service.reports.document import Figure, Table
from ridgeline.service.reports.figures import Curve
from ridgeline.service.reports.wording import count, number, user_text

MOST_FIGURES = 4
_NUM_ROWS = 12


def curves_figure(
    sides: Sides, trials: Mapping[int, Sequence[RunCurve]], kept: tuple[int, float] | None
) -> Figure | None:
    """Training beside validation of one metric; None where nothing was reported.

    Args:
        trials: by number; the first one is drawn boldly.
        kept: the epoch that counts of the first one, and its value.
    """
    first, *others = trials
    lines = [
        (number_, side, mean_curve(trials[number_], name))
        for number_ in (*others, first)
        for side, name in sides.items()
    ]
    lines = [(number_, side, means) for number_, side, means in lines if means]
    if not lines:
        return None
    drawn = [
        Curve(
            f"{'best' if number_ == first else 'other'} {side}",
            [(epoch, mean) for epoch, mean, _, _ in means],
            _band(means) if number_ == first and len(trials[first]) > 1 else (),
        )
        for number_, side, means in lines
    ]
    its = {side: means for number_, side, means in lines if number_ == first}
    bold = [value for means in its.values() for _, value, _, _ in means]
    span = span_of((mean for _, _, means in lines for _, mean, _, _ in means), bold)
    objective = user_text(sides.get("validation") or sides["train"])
    looks = {f"best {side}": f"trial {first}, {SIDES_IN_WORDS[side]}" for side in its}
    shown_others = len({number_ for number_, _, _ in lines} - {first})
    if shown_others:
        looks |= {f"other {side}": f"other trials, {SIDES_IN_WORDS[side]}" for side in sides}
    last_epoch = max(epoch for _, _, means in lines for epoch, *_ in means)
    picture = figures.curves(
        epochs_axis(last_epoch), number_axis(objective, span), drawn, looks, kept
    )
    told = "; ".join(_course(sides[side], means) for side, means in its.items())
    others_told = f" Thin lines are {count(shown_others, 'other trial')}." if shown_others else ""
    return Figure(
        f"{objective} by epoch",
        picture,
        f"Trial {first}: {told or 'it reported none of this'}.{others_told}",
        _caption(sides, len(trials[first]) > 1, shown_others > 0, span.num_beyond, kept),
        _table(f"{objective} of trial {first} by epoch", sides, its) if its else None,
    )


def fresh_figure(arm: str, sides: Sides, runs: Sequence[RunCurve], span: Span) -> Figure | None:
    """The means of one metric over runs with fresh seeds; None where nothing was reported.

    Args:
        span: of the metric, the same for all arms, so that their figures can be compared.
    """
    its = {side: mean_curve(runs, name) for side, name in sides.items()}
    its = {side: means for side, means in its.items() if means}
    if not its:
        return None
    metric = user_text(sides.get("validation") or sides["train"])
    last_epoch = max(means[-1][0] for means in its.values())
    picture = figures.curves(
        epochs_axis(last_epoch),
        number_axis(metric, span),
        [
            Curve(f"best {side}", [(epoch, mean) for epoch, mean, _, _ in means], _band(means))
            for side, means in its.items()
        ],
        {f"best {side}": SIDES_IN_WORDS[side] for side in its},
    )
    return Figure(
        f"{arm}: {metric} by epoch",
        picture,
        f"{arm}, mean over {count(len(runs), 'run')}: "
        f"{'; '.join(_course(sides[side], means) for side, means in its.items())}.",
        f"{_dashes(sides)}; all arms have the same axis of values."
        + (" Points beyond it lie at its edge." if span.num_beyond else ""),
        _table(f"{metric} of {arm} by epoch", sides, its),
    )


def fresh_span(sides: Sides, of_arms: Iterable[Sequence[RunCurve]]) -> Span | None:
    """What the axis of a metric shows in the figures of all arms; None where none reported it."""
    means = [mean_curve(runs, name) for runs in of_arms for name in sides.values()]
    values = [value for its in means for _, value, _, _ in its]
    return span_of(values) if values else None


def _band(means: Means) -> list[tuple[int, float, float]]:
    return [(epoch, low, high) for epoch, _, low, high in means]


def _course(metric: str, means: Means) -> str:
    (first, begin, *_), (last, end, *_) = means[0], means[-1]
    told = f"{user_text(metric)} is {number(begin)} at epoch {first}"
    return told if first == last else f"{told} and {number(end)} at epoch {last}"


def _dashes(sides: Sides) -> str:
    looks = {"train": "training is dashed", "validation": "validation is solid"}
    told = ", ".join(words for side, words in looks.items() if side in sides)
    return told[0].upper() + told[1:]


def _caption(
    sides: Sides, is_mean: bool, has_others: bool, num_beyond: int, kept: tuple[int, float] | None
) -> str:
    parts = [f"{_dashes(sides)}."]
    if kept is not None:
        parts.append(f"The epoch that counts is {kept[0]}, with {number(kept[1])}.")
    if is_mean:
        parts.append("Lines are means over the runs of a trial.")
    if has_others:
        parts.append("The other trials are spaced evenly from the second best to the last.")
    if num_beyond:
        parts.append(f"{count(num_beyond, 'point')} beyond the axis lie at its edge.")
    return " ".join(parts)


def _table(caption: str, sides: Sides, its: Mapping[str, Means]) -> Table:
    by_epoch: dict[int, dict[str, float]] = defaultdict(dict)
    for side, means in its.items():
        for epoch, mean, _, _ in means:
            by_epoch[epoch][side] = mean
    shown = [side for side in sides if side in its]
    rows = [
        [str(epoch), *(number(by_epoch[epoch][s]) if s in by_epoch[epoch] else "" for s in shown)]
        for epoch in thinned(sorted(by_epoch), _NUM_ROWS)
    ]
    columns = ["epoch", *(user_text(sides[side]) for side in shown)]
    return Table(caption, columns, rows, frozenset(range(len(columns))))
