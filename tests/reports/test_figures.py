"""Figures of reports."""

from __future__ import annotations

from ridgeline.service.reports import figures
from ridgeline.service.reports.axes import number_axis, span_of


def test_a_pair_whose_names_are_long_has_a_line_for_each() -> None:
    one, other = "early_stopping+augmentation+l2", "early_stopping+augmentation+dropout"
    axis = number_axis("difference", span_of((), [0.0, 0.2]))
    rows = [(f"{one} − {other}", 0.1, (0.0, 0.2)), ("l1 − l2", 0.1, None)]
    svg = figures.intervals(axis, rows, {}, zero=True)
    level = {text.text: float(text.get("y", "")) for text in svg.iter("text")}
    assert level[f"{one} −"] < level[other] < level["l1 − l2"]
    height = float(svg.get("viewBox", "").split()[-1])
    assert max(level.values()) < height
