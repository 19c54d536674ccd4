"""Why a trial has the configuration it has: derived again from what its sampler saw."""

from __future__ import annotations

import numpy as np

from ridgeline.search.history import History, TrialStatus
from ridgeline.search.samplers import sampler_for
from ridgeline.search.samplers.axes import Axes
from ridgeline.search.samplers.base import Belief
from ridgeline.search.samplers.surrogate import features
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
        common = {
            "study": study,
            "number": number,
            "sampler": trial.sampler,
            "config": trial.config,
            "value": trial.value,
        }
        if trial.seen_revision is None:
            return Explanation(**common, chosen_by="person")
        outlook = sampling.seen(tx, row.id, number)
    spec, history = outlook.spec, outlook.history
    belief: Belief | None = None
    nearest: tuple[KnownTrial, ...] = ()
    if trial.given is None:
        belief = sampler_for(spec.sampler.name).belief(
            *(spec.space, history, number, spec.sampler.seed, spec.objective.direction),
            outlook.sources,
        )
    if belief is not None:
        nearest = _nearest(history, number, spec.space.to_columns(trial.config))
    expected = belief and belief.expected
    is_open = history.states[:number] == TrialStatus.RUNNING
    return Explanation(
        **common,
        chosen_by="sampler" if belief is None else "model",
        given=trial.given,
        is_derived_again=outlook.propose().suggestions[0].config == trial.config,
        num_ended=int(np.count_nonzero(~is_open)),
        num_in_flight=int(np.count_nonzero(is_open)),
        num_candidates=belief and belief.num_candidates,
        expected_value=expected and expected.value,
        expected_low=expected and expected.low,
        expected_high=expected and expected.high,
        density_ratio=belief and belief.density_ratio,
        nearest=nearest,
    )


def _nearest(history: History, number: int, columns: list[float]) -> tuple[KnownTrial, ...]:
    """The trials with a value that are nearest to a configuration, among those below a number."""
    axes = Axes(history.space)
    known = np.flatnonzero(~np.isnan(history.values[:number]))
    columns_nd = np.vstack([history.columns[known], columns])
    features_nf = features(axes, axes.places(columns_nd))
    off_nf = features_nf[:-1] - features_nf[-1]
    is_category_f = [not axis.ordered for axis in axes.axes]
    off_nf[:, is_category_f] = off_nf[:, is_category_f] != 0
    distance_n = np.sqrt((off_nf**2).sum(axis=1))
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
