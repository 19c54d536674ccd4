"""What the measures of kept weights are called, for people: wherever they are shown."""

from __future__ import annotations

_GAP = "_gap"

_LABELS = {
    "zero_share": "weights at 0",
    "near_zero_share": "weights near 0",
    "inputs_kept": "inputs kept",
    "dead_share": "dead units",
    "linear_share": "in the linear zone",
}


def label(measure: str) -> str:
    """Of a name of `measures.summary`: `accuracy gap`, `weights near 0`."""
    if measure.endswith(_GAP):
        return f"{measure.removesuffix(_GAP)} gap"
    return _LABELS.get(measure, measure)


def value_text(measure: str, value: float | None) -> str:
    """Shares in percent, others as they are; nothing where there is none."""
    if value is None:
        return ""
    return percent(value, 1) if measure.endswith("_share") else f"{value:.4g}"


def percent(share: float, digits: int = 0) -> str:
    """A share of a whole: 0.125 with one digit is `12.5 %`."""
    return f"{100 * share:.{digits}f} %"
