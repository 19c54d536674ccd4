"""What trials of other studies make expect of a study's configurations.

A source is a history over the parameters that it shares with the study.

# n trials of a source, m points of the study, s sources, d axes of the study, e of a source
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ridgeline.search.fields import Direction
from ridgeline.search.history import History
from ridgeline.search.samplers.axes import INACTIVE, Axes, Floats
from ridgeline.search.samplers.evidence import Evidence
from ridgeline.search.samplers.gaussian_process import Regression
from ridgeline.search.samplers.outcomes import Outcomes
from ridgeline.search.samplers.surrogate import Observed, features, kernel_of

_MAX_POINTS = 128
"""Trials of a source that its process is of; what it costs to ask it grows with them."""


class Sources:
    """The sources of a study, each with a Gaussian process of its own trials."""

    def __init__(self, axes: Axes, histories: Sequence[History], direction: Direction) -> None:
        self._axes = axes
        self._models = [_fitted(_Trials(history, direction)) for history in histories]
        names = [history.space.names for history in histories]
        self._shared = [[axes.space.names.index(name) for name in shared] for shared in names]

    def __len__(self) -> int:
        return len(self._models)

    def expected(self, places_md: Floats) -> Floats:
        """What each source makes expect at points [m, s]; smaller is better.

        In units of the standard deviation of its own outcomes, of which 0 is the mean.
        """
        columns = [
            model.expected(places_md[:, shared])
            for model, shared in zip(self._models, self._shared, strict=True)
        ]
        return np.stack(columns, axis=1) if columns else np.zeros((len(places_md), 0))

    def best(self, count: int, seed: int) -> Floats:
        """Points [count, d] of the best trials of each source in turn.

        Where the source's trial has no value, anywhere.
        """
        points = np.random.default_rng(seed).random((count, len(self._axes)))
        for number, point_d in enumerate(points):
            turn, source = divmod(number, len(self))
            best_ne, shared = self._models[source].best_ne, self._shared[source]
            best_e = best_ne[turn % len(best_ne)]
            point_d[shared] = np.where(best_e == INACTIVE, point_d[shared], best_e)
        return self._axes.snapped(points)


class _Trials:
    """The trials of a source, equal where all that they tell is."""

    def __init__(self, history: History, direction: Direction) -> None:
        self.history, self.direction = history, direction
        arrays = history.columns, history.values, history.states
        self._key = history.space, direction, *(array.tobytes() for array in arrays)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Trials) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key[1:])


class _Model:
    """A Gaussian process of a source's trials.

    Attributes:
        best_ne: where its trials are, the best ones first.
    """

    def __init__(self, trials: _Trials) -> None:
        history = trials.history
        self._axes = Axes(history.space)
        outcomes = Outcomes.of(history, len(history), trials.direction)
        places_ne = self._axes.places(history.columns[outcomes.numbers_n])
        self.best_ne = places_ne[np.argsort(outcomes.rank_n, kind="stable")]
        evidence = Evidence(self._axes, places_ne, outcomes)
        observed = Observed.of(evidence, count=_MAX_POINTS)
        self._regression = Regression(kernel_of(evidence), observed.features_nf, observed.target_n)

    def expected(self, places_me: Floats) -> Floats:
        return self._regression.mean(features(self._axes, places_me))


@lru_cache(maxsize=64)
def _fitted(trials: _Trials) -> _Model:
    return _Model(trials)
