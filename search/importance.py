"""Which parameters the good trials of a study owe their values to.

By PED-ANOVA, as Optuna has it: S. Watanabe, A. Bansal, F. Hutter, "PED-ANOVA: Efficiently
Quantifying Hyperparameter Importance in Arbitrary Subspaces" (2023).  It compares where the best
trials lie on an axis with where all do, so it needs no model of the values.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ridgeline.search.ranges import Value
from ridgeline.search.space import Config, Parameter, Space, ValuesParameter

MIN_TRIALS = 20
"""With fewer, what good trials have in common is chance."""

_BEST_SHARE = 0.1
_FEWEST_BEST = 5
"""Optuna's advice for what PED-ANOVA takes for the best trials."""


def importances(space: Space, ranked: Sequence[Config]) -> dict[str, float] | None:
    """The share of each parameter in what sets the best trials apart, largest first.

    Args:
        ranked: configurations of the complete trials, best first.

    Returns:
        Shares that sum to 1; None of fewer than `MIN_TRIALS`, or where nothing sets them apart.
        That of a parameter which fewer trials have is 0.
    """
    if len(ranked) < MIN_TRIALS:
        return None
    from optuna.importance import PedAnovaImportanceEvaluator  # imports scikit-learn where it is

    found = dict.fromkeys(space.names, 0.0)
    for names in _shared(space):
        having = [config for config in ranked if names[0] in config]
        if len(having) < MIN_TRIALS:
            continue
        evaluator = PedAnovaImportanceEvaluator(
            target_quantile=max(_BEST_SHARE, _FEWEST_BEST / len(having))
        )
        study = optuna.Study("", _Ranked(space, having))
        # A parameter sets those trials apart that have it.
        share = len(having) / len(ranked)
        found |= {
            name: share * value for name, value in evaluator.evaluate(study, params=names).items()
        }
    total = sum(found.values())
    if not total > 0:
        return None
    order = sorted(space.names, key=lambda name: -found[name])
    return {name: found[name] / total for name in order}


def _shared(space: Space) -> list[list[str]]:
    """The parameters that all trials have, and each other one by itself."""
    shared = [name for name, parameter in space.items() if parameter.when is None]
    return [shared, *([name] for name in space.names if name not in shared)]


class _Ranked(optuna.storages.InMemoryStorage):
    """Complete trials as an Optuna storage of one study, the rank of each as its value.

    Ranks have no ties, of which PED-ANOVA would take all or none for the best.
    """

    def __init__(self, space: Space, ranked: Sequence[Config]) -> None:
        super().__init__()
        axes = {name: _axis(parameter) for name, parameter in space.items()}
        self._ranked = [
            FrozenTrial(
                rank,
                TrialState.COMPLETE,
                float(rank),
                datetime_start=None,
                datetime_complete=None,
                params={name: _place(space[name], value) for name, value in config.items()},
                distributions={name: axes[name] for name in config},
                user_attrs={},
                system_attrs={},
                intermediate_values={},
                trial_id=rank,
            )
            for rank, config in enumerate(ranked)
        ]

    def get_study_id_from_name(self, study_name: str) -> int:
        return 0

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return [StudyDirection.MINIMIZE]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return self._ranked


def _axis(parameter: Parameter) -> BaseDistribution:
    """The axis of a parameter as samplers see it."""
    if not isinstance(parameter, ValuesParameter):
        return FloatDistribution(0.0, 1.0)
    if parameter.ordered:
        return IntDistribution(0, len(parameter.values) - 1)
    return CategoricalDistribution(range(len(parameter.values)))


def _place(parameter: Parameter, value: Value) -> float:
    if isinstance(parameter, ValuesParameter):
        return int(parameter.to_column(value))
    return parameter.encode(value)
