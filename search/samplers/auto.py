"""The sampler of a study that names none: what was measured to be best for its space."""

from __future__ import annotations

from ridgeline.search.samplers.evidence import Evidence
from ridgeline.search.samplers.gp import GpSampler
from ridgeline.search.samplers.model_based import Model, ModelBasedSampler
from ridgeline.search.samplers.tpe import TpeSampler

_MAX_AXES = 20
"""Beyond, a Gaussian process of few hundred points knows little of any place."""


class AutoSampler(ModelBasedSampler):
    """Suggests by a Gaussian process, in spaces of very many parameters by TPE."""

    name = "auto"
    identity = "auto/1"

    def fitted(self, evidence: Evidence) -> Model:
        sampler = GpSampler() if len(evidence.axes) <= _MAX_AXES else TpeSampler()
        return sampler.fitted(evidence)
