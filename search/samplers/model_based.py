"""Search by a model of what has been seen: the best candidate, one trial after the other.

The first trials are spread evenly; of a study that has sources, these choose some of them.  From
then on a model is fitted to the trials that have ended, once for all trials that are asked for
together; it scores the candidates, the best one is chosen, and the model is told that this trial is
under way before the next one is chosen.

# n trials, c candidates, d axes
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from typing import ClassVar, Protocol

import numpy as np

from ridgeline.search.fields import Direction
from ridgeline.search.history import History
from ridgeline.search.samplers.axes import Axes, Cells, Floats
from ridgeline.search.samplers.base import (
    Belief,
    Expectation,
    Given,
    Sampler,
    Suggestion,
    completed,
)
from ridgeline.search.samplers.candidates import MANY, NUM_PARENTS, SAME, candidates, untried
from ridgeline.search.samplers.evidence import Evidence
from ridgeline.search.samplers.feasible import drawn
from ridgeline.search.samplers.outcomes import Outcomes
from ridgeline.search.samplers.sources import Sources
from ridgeline.search.seeds import derive
from ridgeline.search.space import Space

_NUM_START = 8

_TURN = 4
"""Sources choose one of so many first trials, and the others are spread: whether a source is right
is seen by trials both where it expects good ones and elsewhere."""

_PULL = 10.0
"""By so much over the number of trials that have ended the logarithm of the priors counts: πBO with
the β of its authors for 100 trials (Hvarfner et al., πBO: Augmenting Acquisition Functions with
User Beliefs for Bayesian Optimization, 2022)."""

_PERIOD = MANY
MAX_PENDING = 2 * _PERIOD
"""Trials under way that scores are told of at most, the latest ones."""

_DIGITS = 9
"""Scores are rounded: what the last digits of a sum are depends on the machine, and a suggestion
must be derived again on another one."""


class Scores(Protocol):
    """What a model thinks of candidates."""

    def take_in(self, place_d: Floats) -> None:
        """Know of a trial under way at a point."""

    def of_candidates(self) -> Floats:
        """How promising each candidate is [c]; more is better."""

    def belief(self, candidate: int) -> Belief:
        """What is thought of one of them; smaller values are better."""


Model = Callable[[Floats], Scores]
"""From candidates [c, d] to what it thinks of them."""


class ModelBasedSampler(Sampler):
    """A sampler that chooses by a model.

    In a finite space no configuration is suggested twice before all have been tried.
    """

    name: ClassVar[str]

    @abstractmethod
    def fitted(self, evidence: Evidence) -> Model:
        """The model of the trials that have ended."""

    def _suggestions(
        self,
        space: Space,
        history: History,
        first: int,
        seed: int,
        direction: Direction,
        given: Given,
        sources: Sequence[History],
    ) -> Iterator[Suggestion]:
        axes = Axes(space)
        search = self._search(axes, history, first, seed, direction, sources)
        for number in count(first):
            config = axes.config(search.best())
            suggestion = completed(space, config, number, derive(seed, self.name, number), given)
            yield suggestion
            search.add(axes.places(np.array([space.to_columns(suggestion.config)]))[0])

    def belief(
        self,
        space: Space,
        history: History,
        number: int,
        seed: int,
        direction: Direction,
        sources: Sequence[History] = (),
    ) -> Belief | None:
        search = self._search(Axes(space), history, number, seed, direction, sources)
        belief = search.belief()
        if belief is None or direction == "minimize" or belief.expected is None:
            return belief
        value, low, high = belief.expected
        return replace(belief, expected=Expectation(-value, -high, -low))

    def _search(
        self,
        axes: Axes,
        history: History,
        first: int,
        seed: int,
        direction: Direction,
        sources: Sequence[History],
    ) -> _Spread | _Search | _Start:
        """What chooses the trials from `first` on."""
        outcomes = Outcomes.of(history, first, direction)
        columns_nd = history.columns[:first]
        others = Sources(axes, sources, direction)
        is_start = outcomes.num_values < _NUM_START
        if is_start and not others:
            return _Spread(axes, axes.places(columns_nd), seed)
        tried = None
        if axes.num_cells is not None:
            tried = np.unique(axes.cells(axes.places(np.delete(columns_nd, outcomes.pending, 0))))
        places_nd = axes.places(columns_nd[outcomes.numbers_n])
        evidence = Evidence(axes, places_nd, outcomes, others.expected)
        pending = list(axes.places(columns_nd[outcomes.pending]))
        model = self.fitted(evidence)
        num_ended = first - len(pending)
        seed_here = derive(seed, self.name)
        search = _Search(model, evidence, others, tried, pending, num_ended, seed_here)
        if is_start:
            return _Start(_Spread(axes, axes.places(columns_nd), seed), search, first)
        return search


class _Spread:
    """Points spread evenly, whatever came of the trials there are."""

    def __init__(self, axes: Axes, places_nd: Floats, seed: int) -> None:
        self._axes, self._seed, self._num_trials = axes, seed, len(places_nd)
        self._points = axes.spread(len(places_nd), seed)
        self._next_d = next(self._points)
        self._tried = None if axes.num_cells is None else set(axes.cells(places_nd).tolist())

    def belief(self) -> None:
        """Nothing: it chooses without a model."""

    def best(self) -> Floats:
        """The next point; another one where that is none or, in a finite space, has been tried."""
        place_d = self._next_d
        if not self._axes.fits(place_d[None])[0]:
            generator = np.random.default_rng(derive(self._seed, "fit", self._num_trials))
            place_d = drawn(self._axes, 1, generator)[0]
        if self._tried is None or self._cell(place_d) not in self._tried:
            return place_d
        tried = np.array(sorted(self._tried))
        new = untried(self._axes, tried, derive(self._seed, "spread", self._num_trials))
        return place_d if new is None else new

    def add(self, place_d: Floats) -> None:
        """Know of a trial under way."""
        self._num_trials += 1
        self._next_d = next(self._points)
        if self._tried is not None:
            self._tried.add(self._cell(place_d))

    def _cell(self, place_d: Floats) -> int:
        return int(self._axes.cells(place_d[None])[0])


class _Start:
    """The first trials of a study with sources: some that these choose, the others spread."""

    def __init__(self, spread: _Spread, search: _Search, number: int) -> None:
        self._spread, self._search, self._number = spread, search, number

    @property
    def _its_turn(self) -> _Search | _Spread:
        return self._search if self._number % _TURN == 0 else self._spread

    def best(self) -> Floats:
        """The point for the next number."""
        return self._its_turn.best()

    def belief(self) -> Belief | None:
        """What is thought of it."""
        return self._its_turn.belief()

    def add(self, place_d: Floats) -> None:
        """Know of a trial under way."""
        self._spread.add(place_d)
        self._search.add(place_d)
        self._number += 1


class _Search:
    """The candidates and their scores, while trials are added.

    What it chooses follows from the trials and their order alone, however many of them were there
    at its beginning: at every so many, and when no candidate is left, it begins anew.
    """

    def __init__(
        self,
        model: Model,
        evidence: Evidence,
        sources: Sources,
        tried: Cells | None,
        pending: list[Floats],
        num_ended: int,
        seed: int,
    ) -> None:
        self._model, self._evidence, self._sources = model, evidence, sources
        self._tried, self._num_ended, self._seed = tried, num_ended, seed
        num_before = len(pending) - len(pending) % _PERIOD
        self._pending = pending[:num_before]
        self._begin()
        for place_d in pending[num_before:]:
            self.add(place_d)

    def best(self) -> Floats:
        """The point of the best candidate."""
        best: Floats = self._candidates.points_cd[self._best()]
        return best

    def belief(self) -> Belief:
        """What is thought of it; smaller values are better."""
        return self._scores.belief(self._best())

    def _best(self) -> int:
        score_c = np.round(self._scores.of_candidates() + self._pull_c, _DIGITS)
        return int(np.argmax(np.where(self._taken_c, -np.inf, score_c)))

    def add(self, place_d: Floats) -> None:
        """Know of a trial under way."""
        self._pending.append(place_d)
        self._scores.take_in(place_d)
        if self._candidates.are_new:
            self._taken_c |= np.abs(self._candidates.points_cd - place_d).max(axis=1) < SAME
        if len(self._pending) % _PERIOD == 0 or self._taken_c.all():
            self._begin()

    def _begin(self) -> None:
        ended_nd, outcomes = self._evidence.places_nd, self._evidence.outcomes
        axes, tried = self._evidence.axes, self._tried
        if tried is not None and self._pending:
            tried = np.union1d(tried, axes.cells(np.stack(self._pending)))
        # Of all that have ended: where one of which nothing is known is one more, the same
        # candidates again would be the same suggestion.
        seed = derive(self._seed, self._num_ended, len(self._pending))
        parents_nd = ended_nd[np.argsort(outcomes.rank_n, kind="stable")[:NUM_PARENTS]]
        if self._sources and len(parents_nd) < NUM_PARENTS:
            theirs_nd = self._sources.best(NUM_PARENTS - len(parents_nd), seed)
            parents_nd = np.concatenate([parents_nd, theirs_nd])
        self._candidates = candidates(axes, tried, parents_nd, seed)
        self._taken_c = np.zeros(len(self._candidates.points_cd), np.bool_)
        self._scores = self._model(self._candidates.points_cd)
        self._pull_c: Floats = np.zeros(len(self._taken_c))
        if axes.has_prior:
            strength = _PULL / max(self._num_ended, 1)
            self._pull_c = strength * axes.log_prior(self._candidates.points_cd)
        for place_d in self._pending[-_PERIOD:]:
            self._scores.take_in(place_d)
