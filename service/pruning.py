"""The pruning rules of studies, as they are sent to workers and told to external programs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ridgeline.search.predicting import predicted
from ridgeline.search.pruners import Pruner, Requirements, bracket_of, is_worse
from ridgeline.service import studies
from ridgeline.service.protocol import StudyRules
from ridgeline.service.store.rows import StudyRow
from ridgeline.service.store.rules import Rules
from ridgeline.service.store.session import Store, Transaction


def rules_of(store: Store, tx: Transaction, study: StudyRow) -> tuple[StudyRules, ...]:
    """The rules of a study by bracket, as `tx`, which only reads, sees it; none at first."""
    spec = study.spec
    if spec.pruner is None:
        return ()
    rules = store.rules.at(study, spec, spec.pruner, tx.runs)
    if rules.version == 0:
        return ()
    if study.num_repeats > 0 and (first := tx.trials.first_open_repeat(study.id)) is not None:
        # Leaders are to be measured, not compared: one that was pruned would have no value.
        nothing = tuple(Requirements({}) for _ in rules.brackets)
        rules = Rules(first.created_revision, nothing)
    return tuple(
        StudyRules(
            study=study.name,
            bracket=bracket,
            version=rules.version,
            metric=spec.objective.metric,
            direction=spec.objective.direction,
            thresholds=dict(requirements.thresholds),
            predictions=dict(requirements.predictions),
        )
        for bracket, requirements in enumerate(rules.brackets)
    )


@dataclass(frozen=True)
class KnownRules:
    """The rules of a study at one moment, for programs that report its trials."""

    pruner: Pruner | None
    brackets: tuple[StudyRules, ...]

    @property
    def epochs_needed(self) -> Collection[int]:
        """Those at which it has to be known how a trial stood, for what comes later."""
        return {its.since for rules in self.brackets for its in rules.predictions.values()}

    def should_prune(
        self,
        trial: int,
        epochs: Mapping[int, Mapping[str, float]],
        earlier: Mapping[int, Mapping[str, float]],
    ) -> bool:
        """Whether an external trial is to be given up at one of `epochs`.

        Args:
            trial: its number.
            epochs: the metrics that it reports now, by epoch.
            earlier: those of `epochs_needed` that it has reported, now or before.
        """
        if not self.brackets:
            return False
        rules = self.brackets[bracket_of(self.pruner, trial)]
        standings = {
            epoch: metrics[rules.metric]
            for epoch, metrics in earlier.items()
            if rules.metric in metrics
        }
        return any(
            rules.metric in metrics
            and epoch in rules.thresholds
            and is_worse(
                predicted(metrics[rules.metric], standings, rules.predictions.get(epoch)),
                rules.thresholds[epoch],
                rules.direction,
            )
            for epoch, metrics in epochs.items()
        )


NO_RULES = KnownRules(None, ())


def rules_named(store: Store, name: str) -> KnownRules:
    """The rules of a study by its name.

    Raises:
        NotFound: there is no study of that name.
    """
    with store.reading() as tx:
        study = studies.find(tx, name)
        return KnownRules(study.spec.pruner, rules_of(store, tx, study))
