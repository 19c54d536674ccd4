"""The samplers for people who search with Optuna itself, in a script of their own.

    study = optuna.create_study(sampler=RidgelineSampler(seed=1))
    study.optimize(objective, n_trials=100)

Spaces are defined by the run, as ever: parameters that all trials have are chosen together, others
each on its own, from the trials that have them.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError

from ridgeline.search.fields import MAX_SEED, SamplerName
from ridgeline.search.history import History, TrialStatus
from ridgeline.search.samplers import sampler_for
from ridgeline.search.seeds import derive
from ridgeline.search.space import MAX_PARAMETERS, Config, Parameter, Space

_STATES = {
    TrialState.COMPLETE: TrialStatus.COMPLETE,
    TrialState.PRUNED: TrialStatus.PRUNED,
    TrialState.FAIL: TrialStatus.FAIL,
    TrialState.RUNNING: TrialStatus.RUNNING,
}


class RidgelineSampler(optuna.samplers.BaseSampler):
    """A sampler for Optuna's studies of one objective.

    Args:
        name: `auto`, `gp`, `tpe` or `random`.
        seed: everything drawn follows from it; left out, from chance.

    Raises:
        ValueError: of another name or seed; in a study of several objectives, when it is asked.
    """

    def __init__(self, name: SamplerName = "auto", seed: int | None = None) -> None:
        if name not in ("auto", "gp", "tpe", "random"):
            raise ValueError(f"name must be auto, gp, tpe or random, not {name!r}")
        if seed is not None and not 0 <= seed <= MAX_SEED:
            raise ValueError(f"seed must be between 0 and {MAX_SEED}, not {seed}")
        self._name: SamplerName = name
        self._seed = secrets.randbelow(MAX_SEED) if seed is None else seed
        self._shared = optuna.search_space.IntersectionSearchSpace(include_pruned=True)
        self._random = optuna.samplers.RandomSampler(derive(self._seed, "optuna") % 2**32)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that all trials so far have, so many of them as a space may have."""
        self._raise_error_if_multi_objective(study)
        shared = (
            (name, distribution)
            for name, distribution in self._shared.calculate(study).items()
            if not distribution.single() and _parameter(distribution) is not None
        )
        return dict(islice(shared, MAX_PARAMETERS))

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Choose these parameters together."""
        self._raise_error_if_multi_objective(study)
        return self._chosen(study, trial, search_space, self._seed) if search_space else {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Choose a parameter on its own."""
        self._raise_error_if_multi_objective(study)
        if _parameter(param_distribution) is None:
            return self._random.sample_independent(study, trial, param_name, param_distribution)
        # Its own draws, or the first values of all parameters would rise and fall together.
        # By its repr, since a name may hold what no part of a seed may.
        seed = derive(self._seed, ascii(param_name))
        return self._chosen(study, trial, {param_name: param_distribution}, seed)[param_name]

    def reseed_rng(self) -> None:
        """Of no use here: what is chosen follows from the number of the trial."""

    def _chosen(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        distributions: Mapping[str, BaseDistribution],
        seed: int,
    ) -> dict[str, Any]:
        # Optuna's names may be any text, a space's may not.
        names = {f"p{number}": name for number, name in enumerate(distributions)}
        space = Space.model_validate(
            {short: _parameter(distributions[name]) for short, name in names.items()}
        )
        history = History(space)
        trials = study.get_trials(deepcopy=False)
        _put(history, trials[: trial.number], names, distributions)
        minimize = study.direction is optuna.study.StudyDirection.MINIMIZE
        (suggestion,) = sampler_for(self._name).suggest(
            space, history, [trial.number], seed, "minimize" if minimize else "maximize"
        )
        return {
            name: _value(distributions[name], suggestion.config[short])
            for short, name in names.items()
        }


def _put(
    history: History,
    trials: Sequence[FrozenTrial],
    names: Mapping[str, str],
    distributions: Mapping[str, BaseDistribution],
) -> None:
    """Write trials; those that lack a parameter or are out of range as ones that tell nothing."""
    configs = [_config(history.space, trial, names, distributions) for trial in trials]
    # As if they were others once more, or a configuration that nobody tried would count as tried.
    known = next(filter(None, configs), history.space.decode(dict.fromkeys(names, 0.0)))
    for number, (trial, config) in enumerate(zip(trials, configs, strict=True)):
        state, value = _STATES.get(trial.state), None
        if trial.state is TrialState.COMPLETE:
            value = trial.value
        elif trial.state is TrialState.PRUNED and trial.last_step is not None:
            value = trial.intermediate_values[trial.last_step]
        if state is None or config is None:
            state, value = TrialStatus.PRUNED, None
        history.put(number, config or known, enqueued=False, state=state, value=value)


def _config(
    space: Space,
    trial: FrozenTrial,
    names: Mapping[str, str],
    distributions: Mapping[str, BaseDistribution],
) -> Config | None:
    config: Config = {}
    for short, name in names.items():
        own = _own_value(distributions[name], trial.params.get(name))
        if name not in trial.params or own is None or space[short].problem(own) is not None:
            return None
        config[short] = own
    return config


def _parameter(distribution: BaseDistribution) -> Parameter | None:
    """A distribution as a parameter of a space; None where there is none like it."""
    parameter: dict[str, Any]
    if isinstance(distribution, CategoricalDistribution):
        # By index as a text, so that they have no order.
        labels = [str(index) for index in range(len(distribution.choices))]
        parameter = {"type": "values", "values": labels}
    elif isinstance(distribution, FloatDistribution | IntDistribution):
        step = distribution.step
        if isinstance(distribution, IntDistribution) and step == 1:
            step = None
        parameter = {
            "type": "float" if isinstance(distribution, FloatDistribution) else "int",
            "low": distribution.low,
            "high": distribution.high,
            "log": distribution.log,
            "step": step,
        }
    else:
        return None
    try:
        return Space.model_validate({"p": parameter})["p"]
    except ValidationError:  # too many categories or steps
        return None


def _value(distribution: BaseDistribution, own: Any) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(own)]
    return own


def _own_value(distribution: BaseDistribution, value: Any) -> Any:
    if not isinstance(distribution, CategoricalDistribution):
        return value
    try:
        return str(int(distribution.to_internal_repr(value)))
    except ValueError:  # no choice of this trial's
        return None
