"""Figures of reports."""

from __future__ import annotations

from ridgeline.search.space import Space
from ridgeline.service.reports import figures
from ridgeline.service.reports.axes import number_axis, parameter_axis, span_of


def test_a_pair_whose_names_are_long_has_a_line_for_each() -> None:
    one, other = "early_stopping+augmentation+l2", "early_stopping+augmentation+dropout"
    axis = number_axis("difference", span_of((), [0.0, 0.2]))
    rows = [(f"{one} − {other}", 0.1, (0.0, 0.2)), ("l1 − l2", 0.1, None)]
    svg = figures.intervals(axis, rows, {}, zero=True)
    level = {text.text: float(text.get("y", "")) for text in svg.iter("text")}
    assert level[f"{one} −"] < level[other] < level["l1 − l2"]
    height = float(svg.get("viewBox", "").split()[-1])
    assert max(level.values()) < height


def test_a_map_has_the_line_of_good_trials() -> None:
    space = Space.model_validate(
        {
            "rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
            "size": {"type": "values", "values": [16, 32, 64]},
        }
    )
    x, y = (parameter_axis(name, space[name]) for name in ("rate", "size"))
    fifths = [[(1e-3, 16)], [(1e-2, 32)], [], [], []]
    without = figures.value_map(x, y, fifths)
    assert not [line for line in without.iter("polyline") if line.get("class") == "ridge"]
    assert "ridge" not in [text.text for text in without.iter("text")]
    svg = figures.value_map(x, y, fifths, [(0.2, 0.1), (0.4, 0.5), (0.6, 0.9)])
    *_, drawn = (line for line in svg.iter("polyline") if line.get("class") == "ridge")
    points = [[*map(float, point.split(","))] for point in drawn.get("points", "").split()]
    assert [*points] == sorted(points, key=lambda point: (point[0], -point[1]))
    assert len(points) == 3
