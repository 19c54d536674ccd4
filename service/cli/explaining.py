"""An explanation of a trial in words."""

from __future__ import annotations

from collections.abc import Iterator

from ridgeline.service.cli.tables import config_text
from ridgeline.service.resources import Explanation


def explained(explanation: Explanation) -> Iterator[str]:
    """The lines that say why a trial has its configuration."""
    yield f"trial {explanation.number} of {explanation.study}: {config_text(explanation)}"
    if explanation.chosen_by == "person":
        yield "A person gave the whole configuration."
        return
    yield (
        f"The sampler {explanation.sampler} chose it. Trials that had ended: "
        f"{explanation.num_ended}; in flight: {explanation.num_in_flight}."
    )
    if explanation.num_candidates is None:
        yield "No model was asked: it was drawn, spread evenly, or a cell of a grid."
    else:
        yield f"Of {explanation.num_candidates} candidates it was the most promising."
    if explanation.expected_value is not None:
        yield (
            f"The model expected {explanation.expected_value:.4g}, between "
            f"{explanation.expected_low:.4g} and {explanation.expected_high:.4g} with 95 %."
        )
    if explanation.density_ratio is not None:
        yield f"Good trials were {explanation.density_ratio:.3g} times as dense there as others."
    if explanation.value is not None:
        yield f"The trial came to {explanation.value:.4g}."
    if not explanation.is_derived_again:
        yield "Asked again it would choose otherwise: the sampler has changed since."
