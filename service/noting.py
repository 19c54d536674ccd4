"""Notes in the dashboard that are out of date though nothing of their studies has changed.

The note of a study that is a part of a comparison has the table of all arms, so it goes by other
studies.  Whoever changes one of those has not locked this one; so the api's maintenance looks for
such notes, and writes them in a transaction each.
"""

from __future__ import annotations

from functools import partial

from ridgeline.search.comparison import metric_on_test
from ridgeline.search.means import INTERVAL
from ridgeline.service import comparison_views, projection
from ridgeline.service.comparison_resources import Arm, ArmResult, Comparison
from ridgeline.service.errors import NotFound
from ridgeline.service.lifecycle import StudyState
from ridgeline.service.projection import ArmsTable
from ridgeline.service.store.session import Projector, Store

_MOST_AT_ONCE = 50
"""Studies of an earlier version that are described in one go."""

_MOST_ARMS = 40
_MOST_FINDINGS = 10


def bring_up_to_date(store: Store) -> None:
    """Write the notes that are out of date.

    What is to be done follows from the tables, so several api processes may do it at once.

    Raises:
        Unavailable: the database cannot be reached or is locked.
    """
    with store.reading() as tx:
        outdated = projection.outdated_comparisons(tx.connection)
        undescribed = projection.undescribed_studies(tx.connection, limit=_MOST_AT_ONCE)
    failure: Exception | None = None
    todo = [partial(_write, store, study_id, projection.describe_copy) for study_id in undescribed]
    todo += [partial(_write_arms, store, name) for name in outdated]
    for write in todo:
        try:
            write()
        except Exception as exc:  # the others need not wait for it
            failure = failure or exc
    if failure is not None:
        raise failure


def _write(store: Store, study_id: int, write: Projector) -> None:
    with store.transaction() as tx:
        try:
            tx.studies.lock(study_id)
        except NotFound:
            return  # it was deleted meanwhile
        write(tx.connection, study_id)


def _write_arms(store: Store, name: str) -> None:
    with store.reading() as tx:
        row = tx.comparisons.find(name)
        if row is None:
            return  # it was deleted meanwhile
        (found,) = comparison_views.rows_of(tx, [row])
        version = projection.arms_version(tx.connection, row.id)
        table = arms_table(comparison_views.comparison(tx, found))
    write = partial(projection.write_arms, arms=table, version=version)
    for study_id in sorted(study.id for study in found.studies):
        _write(store, study_id, write)


def arms_table(its: Comparison) -> ArmsTable:
    """What the notes of a comparison's studies say of it."""
    spec, result = its.arms[0].search.spec, its.result
    metric, test_metric = spec.objective.metric, metric_on_test(spec)
    results = {} if result is None else {one.arm: one for one in result.arms}
    findings = [] if result is None else [one.sentence for one in result.differences]
    why = f": {its.reason}" if its.reason and its.state is StudyState.FAILED else ""
    num_arms = len(its.arms)
    more = (
        f" Of {num_arms} arms the first {_MOST_ARMS} are listed." if num_arms > _MOST_ARMS else ""
    )
    return ArmsTable(
        lead=f"A study of the comparison {its.name}, which is {its.state}{why}.{more}",
        columns=(
            "arm",
            "state",
            "winner",
            f"{metric}, best of the search",
            f"{test_metric}, fresh seeds",
            INTERVAL,
        ),
        rows=[_row(arm, results.get(arm.name)) for arm in its.arms[:_MOST_ARMS]],
        findings=findings[:_MOST_FINDINGS],
    )


def _row(arm: Arm, result: ArmResult | None) -> tuple[str, ...]:
    has_ended_badly = arm.state in (StudyState.FAILED, StudyState.CANCELLED) and arm.reason
    state = f"{arm.state}: {arm.reason}" if has_ended_badly else arm.state.value
    winner = arm.winner
    mean = None if result is None else result.mean
    interval = None if result is None else result.interval
    return (
        arm.name,
        state,
        "" if winner is None else f"trial {winner.number}",
        "" if winner is None else f"{winner.value:.6g}",
        "" if mean is None else f"{mean:.6g}",
        "" if interval is None else f"{interval.low:.6g} to {interval.high:.6g}",
    )
