"""What must hold of a study's rows, each as a query for those of which it does not.

The constraints of the tables hold whatever the program does; these do as long as the program is
right and nobody else writes.  A query gives one row for each thing that is wrong, whose columns
name it: trials by their number, runs by the number of their trial and their replicate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Float,
    Select,
    and_,
    bindparam,
    exists,
    func,
    literal,
    or_,
    select,
    union_all,
)

from ridgeline.service.findings import BY_HAND, Check, Finding
from ridgeline.service.lifecycle import (
    OPEN_RUN,
    OPEN_STUDY,
    OPEN_TRIAL,
    FailReason,
    RunState,
    TrialState,
)
from ridgeline.service.store.bulk import one_of
from ridgeline.service.store.rows import StudyRow
from ridgeline.service.store.tables import artifacts, reports, runs, studies, trials, workers

_STUDY: ColumnElement[int] = bindparam("study", type_=BigInteger)
_GRACE: ColumnElement[float] = bindparam("grace", type_=Float(53))

_OPEN_TRIALS = [state.value for state in OPEN_TRIAL]
_OPEN_RUNS = [state.value for state in OPEN_RUN]
_OPEN_STUDIES = [state.value for state in OPEN_STUDY]
_RESULTS = [RunState.COMPLETE.value, RunState.PRUNED.value]

_this_study = studies.c.id == _STUDY
_its_trials = trials.c.study_id == _STUDY
_its_runs = runs.c.study_id == _STUDY
_its_reports = reports.c.study_id == _STUDY
_other = trials.alias("other")

_TRIALS = select(trials.c.number).where(_its_trials).order_by(trials.c.number)
_RUNS = (
    select(trials.c.number, runs.c.replicate)
    .select_from(runs)
    .outerjoin(trials, trials.c.id == runs.c.trial_id)
    .where(_its_runs)
    .order_by(trials.c.number, runs.c.replicate)
)
_RUNS_OF_WORKERS = _RUNS.outerjoin(workers, workers.c.id == runs.c.worker_id)


def _counted(column: Any, *counted: Any) -> Select[Any]:
    """Where a counter of the study differs from what is counted: both."""
    found = select(func.count()).where(*counted).scalar_subquery()
    return select(column, found).where(_this_study, column != found)


def _naming_no_earlier(column: Column[Any], *conditions: ColumnElement[bool]) -> Select[Any]:
    """Trials whose `column` is the number of no earlier trial that meets the conditions."""
    return _TRIALS.where(
        column.is_not(None),
        ~exists().where(
            _other.c.study_id == _STUDY,
            _other.c.number == column,
            _other.c.number < trials.c.number,
            *conditions,
        ),
    )


_next_number = select(studies.c.next_number).where(_this_study).scalar_subquery()
_state = select(studies.c.state).where(_this_study).scalar_subquery()
_num_open = select(studies.c.num_open).where(_this_study).scalar_subquery()
# What an ended study knows to be open is still being wound up, in several transactions.
_has_ended = and_(_state.not_in(_OPEN_STUDIES), _num_open == 0)
_device_seconds = select(func.coalesce(func.sum(runs.c.device_seconds), 0.0)).where(_its_runs)
_revision = select(studies.c.revision).where(_this_study).scalar_subquery()

_gaps = union_all(
    select((trials.c.number + 1).label("number")).where(
        _its_trials,
        trials.c.number + 1 < _next_number,
        ~exists().where(_other.c.study_id == _STUDY, _other.c.number == trials.c.number + 1),
    ),
    select(literal(0)).where(
        _next_number > 0, ~exists().where(_other.c.study_id == _STUDY, _other.c.number == 0)
    ),
).subquery("gaps")

_changes = union_all(
    select(studies.c.state_revision.label("revision")).where(_this_study),
    select(trials.c.revision).where(_its_trials),
    select(runs.c.revision).where(_its_runs),
    select(reports.c.revision).where(_its_reports),
).subquery("changes")

_of_run = reports.c.run_id == runs.c.id
_later = reports.alias("later")


def _from_one_epoch_to_the_next(change: ColumnElement[bool]) -> ColumnElement[bool]:
    """Whether two reports of a run on epochs in a row, the second as `_later`, show the change."""
    return exists(
        select(reports.c.run_id)
        .join(
            _later,
            and_(
                _later.c.run_id == reports.c.run_id,
                _later.c.epoch == reports.c.epoch + 1,
                change,
            ),
        )
        .where(_of_run)
    )


_later_attempts = exists().where(_of_run, reports.c.attempt > runs.c.attempt)
_attempts_fall = _from_one_epoch_to_the_next(_later.c.attempt < reports.c.attempt)
_its_checkpoint = and_(
    artifacts.c.run_id == runs.c.id,
    artifacts.c.kind == "checkpoint",
    artifacts.c.state == "WHOLE",
)
_saved_epoch = func.coalesce(
    select(func.max(artifacts.c.epoch)).where(_its_checkpoint).correlate(runs).scalar_subquery(), 0
)
_saved_epoch_is_reported = (
    exists().where(_of_run, reports.c.epoch == artifacts.c.epoch).correlate(runs, artifacts)
)

# An api was there after the lease had ended, and did not take the run back.
_last_call = func.coalesce(select(func.max(workers.c.seen_at)).scalar_subquery(), 0.0)
_held_past_lease = or_(
    runs.c.lease_expires_at + _GRACE < _last_call,
    and_(
        runs.c.lease_expires_at.is_(None),
        workers.c.lease_expires_at + _GRACE < _last_call,
    ),
)

_CHECKS: tuple[tuple[Check, Select[Any]], ...] = (
    (
        Check("trial-numbers", "no trial has the number {}, nor perhaps the next ones", BY_HAND),
        select(_gaps.c.number),
    ),
    (
        Check("trial-numbers", "trials {} have a number that was never given", BY_HAND),
        _TRIALS.where(or_(trials.c.number >= _next_number, trials.c.number < 0)),
    ),
    (
        Check("counters", "it counts its open trials wrong (counter/found: {})", BY_HAND),
        _counted(studies.c.num_open, _its_trials, trials.c.state.in_(_OPEN_TRIALS)),
    ),
    (
        Check("counters", "it counts its enqueued trials wrong (counter/found: {})", BY_HAND),
        _counted(studies.c.num_enqueued, _its_trials, trials.c.origin == "enqueued"),
    ),
    (
        Check("counters", "it counts wrong what trains others again (counter/found: {})", BY_HAND),
        _counted(studies.c.num_repeats, _its_trials, trials.c.repeats.is_not(None)),
    ),
    (
        Check(
            "device-time",
            "its device seconds are not those of its runs (its own/theirs: {})",
            BY_HAND,
        ),
        select(studies.c.device_seconds, _device_seconds.scalar_subquery()).where(
            _this_study,
            # Sums in another order differ in their last digits.
            func.abs(studies.c.device_seconds - _device_seconds.scalar_subquery())
            > 1e-3 + 1e-6 * func.abs(studies.c.device_seconds),
        ),
    ),
    (
        Check("trial-states", "trials {} are open, and the study has ended", BY_HAND),
        _TRIALS.where(trials.c.state.in_(_OPEN_TRIALS), _has_ended),
    ),
    (
        Check("run-states", "runs {} are open, and the study has ended", BY_HAND),
        _RUNS.where(runs.c.state.in_(_OPEN_RUNS), _has_ended),
    ),
    (
        Check("trial-states", "trials {} wait, and runs of theirs were handed out", BY_HAND),
        _TRIALS.where(
            trials.c.state == TrialState.WAITING.value,
            exists().where(runs.c.trial_id == trials.c.id, runs.c.attempt > 0),
        ),
    ),
    (
        Check("trial-states", "trials {} are RUNNING, and no run was handed out", BY_HAND),
        _TRIALS.where(
            trials.c.state == TrialState.RUNNING.value,
            ~exists().where(runs.c.trial_id == trials.c.id, runs.c.attempt > 0),
        ),
    ),
    (
        Check("run-studies", "runs {} are of a trial that is gone or of another study", BY_HAND),
        _RUNS.where(or_(trials.c.id.is_(None), trials.c.study_id != runs.c.study_id)),
    ),
    (
        Check("attempts", "runs {} have more charges than attempts, or less than none", BY_HAND),
        _RUNS.where(or_(runs.c.charges > runs.c.attempt, runs.c.charges < 0, runs.c.attempt < 0)),
    ),
    (
        Check("attempts", "runs {} have ended and were never handed out", BY_HAND),
        _RUNS.where(
            runs.c.attempt == 0,
            or_(
                runs.c.state.in_(_RESULTS),
                and_(
                    runs.c.state == RunState.FAIL.value,
                    runs.c.reason != FailReason.CANCELLED.value,
                ),
            ),
        ),
    ),
    (
        Check("run-states", "runs {} wait, and have a holder, a program or a result", BY_HAND),
        _RUNS.where(
            runs.c.state == RunState.WAITING.value,
            or_(
                *(
                    runs.c[name].is_not(None)
                    for name in (
                        *("worker_id", "device", "client_id", "lease_expires_at"),
                        *("value", "kept_epoch", "finished_at"),
                    )
                ),
                and_(runs.c.program.is_not(None), ~exists().where(_its_checkpoint)),
            ),
        ),
    ),
    (
        Check("run-states", "runs {} are RUNNING, and nobody holds them", BY_HAND),
        _RUNS.where(
            runs.c.state == RunState.RUNNING.value,
            or_(
                and_(runs.c.worker_id.is_(None), runs.c.lease_expires_at.is_(None)),
                runs.c.started_at.is_(None),
            ),
        ),
    ),
    (
        Check("run-results", "runs {} failed or are RUNNING, and have a value", BY_HAND),
        _RUNS.where(
            runs.c.state.in_([RunState.RUNNING.value, RunState.FAIL.value]),
            runs.c.value.is_not(None),
        ),
    ),
    (
        Check(
            "leases",
            "runs {} are RUNNING under a worker that is gone",
            "Nobody takes them back: cancel the study, and clone it. Report it as a fault of the "
            "service where nobody changed the database by hand.",
        ),
        _RUNS_OF_WORKERS.where(
            runs.c.state == RunState.RUNNING.value,
            runs.c.worker_id.is_not(None),
            or_(workers.c.id.is_(None), workers.c.state != "LIVE"),
        ),
    ),
    (
        Check(
            "leases",
            "runs {} are RUNNING under a lease that ended long before the last call of a worker",
            "Restart the service: it takes them back. Its log says what kept it from that.",
        ),
        _RUNS_OF_WORKERS.where(
            runs.c.state == RunState.RUNNING.value,
            or_(runs.c.worker_id.is_(None), workers.c.state == "LIVE"),
            _held_past_lease,
        ),
    ),
    (
        Check("revisions", "the revisions {} are those of several changes", BY_HAND),
        select(_changes.c.revision).group_by(_changes.c.revision).having(func.count() > 1),
    ),
    (
        Check("revisions", "changes have the revisions {}, which are past the study's", BY_HAND),
        select(_changes.c.revision).where(
            or_(_changes.c.revision > _revision, _changes.c.revision < 0)
        ),
    ),
    (
        Check("revisions", "trials {} begin or end at a revision past their last change", BY_HAND),
        _TRIALS.where(
            or_(
                trials.c.created_revision > trials.c.revision,
                trials.c.finished_revision > trials.c.revision,
            )
        ),
    ),
    (
        Check(
            "reports",
            "runs {} have reports of later attempts, or wait and have some past any checkpoint",
            BY_HAND,
        ),
        _RUNS.where(
            or_(
                _later_attempts,
                _attempts_fall,
                and_(
                    runs.c.state == RunState.WAITING.value,
                    exists().where(_of_run, reports.c.epoch > _saved_epoch),
                ),
            )
        ),
    ),
    (
        Check("reports", "runs {} have reports that are noted for another study", BY_HAND),
        _RUNS.where(exists().where(_of_run, reports.c.study_id != runs.c.study_id)),
    ),
    (
        Check("checkpoints", "runs {} have ended, and checkpoints of them are kept", BY_HAND),
        _RUNS.where(runs.c.state.not_in(_OPEN_RUNS), exists().where(_its_checkpoint)),
    ),
    (
        Check(
            "checkpoints",
            "runs {} have checkpoints of epochs that were not reported, or of another program",
            BY_HAND,
        ),
        _RUNS.where(
            exists().where(
                _its_checkpoint,
                or_(
                    artifacts.c.program.is_distinct_from(runs.c.program),
                    artifacts.c.attempt > runs.c.attempt,
                    ~_saved_epoch_is_reported,
                ),
            )
        ),
    ),
    (
        Check("reports", "runs {} have kept an epoch of which there is no report", BY_HAND),
        _RUNS.where(
            runs.c.kept_epoch.is_not(None),
            ~exists().where(_of_run, reports.c.epoch == runs.c.kept_epoch),
        ),
    ),
    (
        Check("repeats", "trials {} train again what was not complete before them", BY_HAND),
        _naming_no_earlier(
            trials.c.repeats,
            _other.c.repeats.is_(None),
            _other.c.state == TrialState.COMPLETE.value,
        ),
    ),
    (
        Check("retries", "trials {} try again what did not fail before them", BY_HAND),
        _naming_no_earlier(trials.c.retry_of, _other.c.state == TrialState.FAIL.value),
    ),
)


_OF_WORKERS = (
    (
        Check("reports", "runs {} have no reports of epochs before their last one", BY_HAND),
        _RUNS.where(
            select(func.count()).where(_of_run).scalar_subquery()
            < select(func.max(reports.c.epoch)).where(_of_run).scalar_subquery()
        ),
    ),
    (
        Check("reports", "runs {} have told their epochs out of order", BY_HAND),
        _RUNS.where(_from_one_epoch_to_the_next(_later.c.revision < reports.c.revision)),
    ),
)
"""Workers tell each epoch after the one before it; programs of one's own in any order."""


def study_findings(
    connection: Connection, study: StudyRow, *, grace_seconds: float
) -> Iterator[Finding]:
    """What is wrong with the rows of one study, as they stand together in one view of them.

    Args:
        grace_seconds: after the end of a lease, within which its run may not be taken back yet.
    """
    checks = _CHECKS if study.spec.external else (*_CHECKS, *_OF_WORKERS)
    parameters = {"study": study.id, "grace": grace_seconds}
    for check, query in checks:
        rows = connection.execute(query, parameters).all()
        if rows:
            yield check.found(("/".join(map(str, row)) for row in rows), study=study.name)


def kept_metrics(connection: Connection, run_ids: Sequence[int]) -> dict[int, Mapping[str, float]]:
    """By run, what was reported of the epoch whose weights are kept, where that was."""
    query = (
        select(runs.c.id, reports.c.metrics)
        .join(reports, and_(_of_run, reports.c.epoch == runs.c.kept_epoch))
        .where(one_of(connection, runs.c.id, run_ids))
    )
    return {row[0]: row[1] for row in connection.execute(query)}
