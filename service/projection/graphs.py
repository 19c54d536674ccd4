"""Figures of a study for the dashboard: learning curves of its best trials.

The dashboard draws what Plotly's script draws, so a figure is data and layout as JSON.  Plotly
itself would be a large package for a few dictionaries.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from ridgeline.search.spec import StudySpec
from ridgeline.service.curves import (
    SIDES_IN_WORDS,
    Means,
    RunCurve,
    Sides,
    mean_curve,
    metric_groups,
)
from ridgeline.service.store.runs import Runs
from ridgeline.service.store.trials import Trials
from ridgeline.service.texts import printable

_MOST_TRIALS = 5
_MOST_GRAPHS = 2
"""The objective's and, beside it, the loss."""

_FEW_EPOCHS = 10
_MOST_EPOCHS = 100
_MOST_REPORTS = 4_000
"""Read for one study, whatever its number of runs: a figure has about as many pixels."""

# Of Okabe and Ito's palette for all kinds of colour vision, dark enough for thin lines on white,
# as the reports have them; the best trial first.
_COLORS = ("#0072b2", "#d55e00", "#00805d", "#a5477f", "#535b65")
_DASHES = {"validation": "solid", "train": "dash"}


def learning_curves(
    connection: Connection, study_id: int, spec: StudySpec, *, until_revision: int
) -> dict[str, str]:
    """Figures as JSON, by their ids: of the trials that were complete at a revision of the study.

    What such a trial and its runs have reported does not change any more, so the figures of a
    revision are the same whenever they are drawn.
    """
    best = Trials(connection).best_of_search(
        study_id,
        maximize=spec.objective.direction == "maximize",
        until_revision=until_revision,
        limit=_MOST_TRIALS,
    )
    runs = Runs(connection)
    its_runs = runs.of_trials([trial.id for trial in best])
    run_ids = [run.id for of_one in its_runs.values() for run in of_one]
    if not run_ids:
        return {}
    most = max(2, min(_MOST_EPOCHS, _MOST_REPORTS // len(run_ids)))
    reported = runs.curves_of(run_ids, most=most)
    curves = {trial.number: [reported[run.id] for run in its_runs[trial.id]] for trial in best}
    names = {name for curve in reported.values() for _, metrics in curve for name in metrics}
    groups = metric_groups(
        names, spec.objective.metric, trains_on_validation=spec.trains_on_validation
    )
    drawn = [_graph(sides, curves) for sides in groups[:_MOST_GRAPHS]]
    return {
        f"learning-curves-{place}": json.dumps(graph, separators=(",", ":"))
        for place, graph in enumerate(drawn, start=1)
        if graph["data"]
    }


def _graph(sides: Sides, curves: Mapping[int, Sequence[RunCurve]]) -> dict[str, Any]:
    metric = _text(sides.get("validation") or sides["train"])
    num_runs = max(map(len, curves.values()))
    best = "the best trial" if len(curves) == 1 else f"the best {len(curves)} trials"
    means = f", means over {num_runs} runs" if num_runs > 1 else ""
    dashed = "; training is dashed" if "train" in sides else ""
    told = f"{metric} by epoch<br>{best}{means}{dashed}"
    lines = list(_lines(sides, curves))
    # With few epochs Plotly would name parts of them.
    whole = {"dtick": 1} if all(line["x"][-1] <= _FEW_EPOCHS for line in lines) else {}
    return {
        "data": lines,
        "layout": {
            "title": {"text": told, "font": {"size": 14}},
            "xaxis": {"title": {"text": "epoch"}, **whole},
            "yaxis": {"title": {"text": metric}},
            "showlegend": True,
        },
    }


def _lines(sides: Sides, curves: Mapping[int, Sequence[RunCurve]]) -> Iterator[dict[str, Any]]:
    for (number, of_runs), color in zip(curves.items(), _COLORS, strict=False):
        for side in ("validation", "train"):
            means = mean_curve(of_runs, sides[side]) if side in sides else ()
            if means:
                yield {
                    "type": "scatter",
                    "mode": "lines" if len(means) > 1 else "markers",
                    "name": f"trial {number}, {SIDES_IN_WORDS[side]}",
                    **_points(means),
                    "line": {
                        "color": color,
                        "dash": _DASHES[side],
                        "width": 3 if color == _COLORS[0] else 1.5,
                    },
                    "marker": {"color": color, "symbol": _SYMBOLS[side]},
                }


_SYMBOLS = {"validation": "circle", "train": "circle-open"}


def _points(means: Means) -> dict[str, Sequence[float]]:
    """Five digits are more than can be seen, and a third of what numbers have."""
    rounded = [(epoch, mean, float(f"{mean:.5g}")) for epoch, mean, *_ in means]
    return {
        "x": [epoch for epoch, *_ in means],
        # The largest numbers are rounded to infinity, which JSON has none of.
        "y": [short if math.isfinite(short) else mean for _, mean, short in rounded],
    }


def _text(name: str) -> str:
    """A name of somebody else: Plotly reads some tags, links among them."""
    return html.escape(printable(name)[:100], quote=False)
