"""Why a trial has the configuration it has: derived again from what its sampler saw."""

from __future__ import annotations

import numpy as np

from ridgeline.search.history import History, TrialStatus
from ridgeline.search.samplers import sampler_for
from ridgeline.search.samplers.axes import Axes
from ridgeline.service import sampling, trials
from ridgeline.service.resources import Explanation, KnownTrial
from ridgeline.service.store.session import Store

_NUM_NEAREST = 5


def explain(store: Store, study: str, number: int) -> Explanation:
    """Why a trial has its configuration; computed after the transaction that reads.

    Raises:
        NotFound: there is no such study or trial.
    """
    with store.reading() as tx:
        row, trial = trials.find(tx, study, number)
        common = {"study": study, "number": number, "sampler": trial.sampler}
        if trial.seen_revision is None:
            return Explanation(**common, config=trial.config, chosen_by="person")
        outlook = sampling.seen(tx, row.id, number)
    spec, history = outlook.spec, outlook.known
    suggestion = outlook.propose().suggestions[0]
    sampler = sampler_for(spec.sampler.name)
    belief = None
    if trial.given is None:
        seed, direction = spec.sampler.seed, spec.objective.direction
        belief = sampler.belief(spec.space, history, number, seed, direction, outlook.sources)
    expected = belief and belief.expected
    states = history.states[:number]
    return Explanation(
        **common,
        config=trial.config,
        chosen_by="sampler" if belief is None else "model",
        given=trial.given,
        is_derived_again=suggestion.config == trial.config,
        num_in_flight=int(np.count_nonzero(states == TrialStatus.RUNNING)),
        num_ended=int(np.count_nonzero(states != TrialStatus.RUNNING)),
        num_candidates=belief and belief.num_candidates,
        expected_value=expected and expected.value,
        expected_low=expected and expected.low,
        expected_high=expected and expected.high,
        density_ratio=belief and belief.density_ratio,
        nearest=_nearest(history, number, spec.space.to_columns(trial.config))
        if belief is not None
        else (),
    )


def _nearest(history: History, number: int, columns: list[float]) -> tuple[KnownTrial, ...]:
    """The trials with a value that are nearest to a configuration, among those below a number."""
    axes = Axes(history.space)
    known = np.flatnonzero(~np.isnan(history.values[:number]))
    places_nd = axes.places(history.columns[known])
    off_nd = places_nd - axes.places(np.array([columns]))
    # A category is as far from each other one as the two ends of a range.
    for column, axis in enumerate(axes.axes):
        if not axis.ordered:
            off_nd[:, column] = off_nd[:, column] != 0
    distance_n = np.sqrt((off_nd**2).sum(axis=1))
    nearest = np.argsort(distance_n, kind="stable")[:_NUM_NEAREST]
    return tuple(
        KnownTrial(
            number=int(known[i]),
            distance=float(distance_n[i]),
            value=float(history.values[known[i]]),
            config=history.config(int(known[i])),
        )
        for i in nearest
    )
