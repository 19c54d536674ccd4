"""What the database holds for the report of a comparison, read in one look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ridgeline.service import comparison_views, comparisons
from ridgeline.service.comparison_resources import Arm, Comparison
from ridgeline.service.curves import RunCurve
from ridgeline.service.reports.findings import MOST_EPOCHS
from ridgeline.service.store.session import Transaction


@dataclass(frozen=True)
class ComparisonFindings:
    """A comparison.

    Attributes:
        curves: by arm, what each run of its winner with fresh seeds has reported.
        written_at: in seconds since 1970-01-01 UTC.
    """

    comparison: Comparison
    curves: Mapping[str, Sequence[RunCurve]]
    written_at: float


def gather_comparison(tx: Transaction, name: str) -> ComparisonFindings:
    """Everything that the report of a comparison tells.

    Raises:
        NotFound: there is no such comparison.
    """
    found = comparisons.get(tx, name)
    curves = {arm.name: _fresh_curves(tx, arm) for arm in found.arms}
    return ComparisonFindings(found, curves, tx.now)


def _fresh_curves(tx: Transaction, arm: Arm) -> list[RunCurve]:
    row = None if arm.fresh is None else tx.studies.find(arm.fresh.name)
    if row is None:
        return []
    runs = [run.id for run in comparison_views.runs_by_seed(tx, row)]
    return [curve for curve in tx.runs.curves_of(runs, most=MOST_EPOCHS).values() if curve]
