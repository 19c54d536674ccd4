"""The pruning rules of studies, as they are sent to workers and told to external programs."""

from __future__ import annotations

from ridgeline.search.pruners import is_worse
from ridgeline.service import studies
from ridgeline.service.protocol import StudyRules
from ridgeline.service.store.rows import StudyRow
from ridgeline.service.store.session import Store, Transaction


def rules_of(store: Store, tx: Transaction, study: StudyRow) -> StudyRules | None:
    """The rules of a study as `tx`, which only reads, sees it; None before there are any."""
    spec = study.spec
    if spec.pruner is None:
        return None
    rules = store.rules.at(study, spec, spec.pruner, tx.runs)
    if rules.version == 0:
        return None
    return StudyRules(
        study=study.name,
        version=rules.version,
        metric=spec.objective.metric,
        direction=spec.objective.direction,
        thresholds=dict(rules.thresholds),
    )


def rules_named(store: Store, name: str) -> StudyRules | None:
    """The same of a study by its name.

    Raises:
        NotFound: there is no study of that name.
    """
    with store.reading() as tx:
        return rules_of(store, tx, studies.find(tx, name))


def should_prune(rules: StudyRules | None, epoch: int, metrics: dict[str, float]) -> bool:
    """Whether an external trial that has reported `metrics` is to be given up."""
    if rules is None or epoch not in rules.thresholds or rules.metric not in metrics:
        return False
    return is_worse(metrics[rules.metric], rules.thresholds[epoch], rules.direction)
