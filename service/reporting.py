"""What programs that train by themselves report: epochs and ends of external trials.

Each report is taken as a whole or not at all, and one that is refused keeps none of the others from
being taken.  Repeating a call changes nothing: epochs known already stay, and so do ends.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ridgeline.service import metrics, outcomes, studies, views
from ridgeline.service.errors import Conflict, InvalidInput, NotFound, ServiceError, StaleAttempt
from ridgeline.service.external_protocol import (
    CompleteRequest,
    EpochReport,
    ReportedTrial,
    ReportOutcome,
    ReportOutcomes,
    ReportRequest,
    TrialEnd,
    TrialReport,
    TrialReports,
)
from ridgeline.service.ledger import MAX_NEWS, Ledger, in_parts
from ridgeline.service.lifecycle import OPEN_STUDY, FailReason, RunState
from ridgeline.service.outcomes import News, Outcome
from ridgeline.service.protocol import MAX_REPORTS
from ridgeline.service.pruning import NO_RULES, KnownRules
from ridgeline.service.resources import Trial
from ridgeline.service.store.rows import RunRow, TrialRow
from ridgeline.service.store.session import Store, Transaction

_RETRIED = (FailReason.CRASHED, FailReason.OUT_OF_MEMORY, FailReason.TIMEOUT)


def report_all(
    store: Store,
    study: str,
    request: TrialReports,
    *,
    rules: KnownRules,
    max_charges: int,
    remember: Callable[[Transaction, ReportOutcomes], None] | None = None,
) -> ReportOutcomes:
    """Take reports on any number of external trials; tells of each what became of it.

    Of a call with much news each transaction takes a part, see `ledger.in_parts`.

    Args:
        rules: the study's pruning rules, as they stood before these reports.
        remember: stores the answer in the last transaction.

    Raises:
        NotFound: there is no study of that name.
        Conflict: the study is trained by workers.
        InvalidInput: a trial is reported on twice, or there are too many epochs.
    """
    _check(request.trials)
    taken: dict[int, TrialRow | ServiceError] = {}

    def take(tx: Transaction, part: Sequence[_Piece]) -> None:
        refused = {number for number, result in taken.items() if isinstance(result, ServiceError)}
        pieces = [piece for piece in part if piece.report.number not in refused]
        taken.update(_take(tx, study, pieces, max_charges=max_charges))

    *parts, last = in_parts(piece for one in request.trials for piece in _pieces(one))
    for part in parts:
        with store.transaction() as tx:
            take(tx, part)
    with store.transaction() as tx:
        take(tx, last)
        given_up = _given_up(tx, rules, request.trials, taken)
        answer = ReportOutcomes(
            trials=tuple(
                _outcome(index, report, taken[report.number], given_up)
                for index, report in enumerate(request.trials)
            )
        )
        if remember is not None:
            remember(tx, answer)
    return answer


def take_early(
    store: Store,
    study: str,
    number: int,
    request: ReportRequest | CompleteRequest,
    *,
    max_charges: int,
) -> None:
    """Take the epochs of a long report by transactions of their own, all but the last ones.

    `report` and `complete`, which find these known, take the others.  Raises what those do.
    """
    one = _told(number, request)
    for piece in _pieces(one)[:-1]:
        with store.transaction() as tx:
            _take_one(tx, study, piece, max_charges=max_charges)


def report(
    tx: Transaction,
    study: str,
    number: int,
    request: ReportRequest,
    *,
    rules: KnownRules = NO_RULES,
) -> ReportedTrial:
    """Take the metrics of finished epochs of an external trial, and renew its lease.

    Args:
        rules: the study's pruning rules, as they stood before this report.

    Raises:
        NotFound: there is no such study or trial.
        Conflict: the study is trained by workers.
        StaleAttempt: the trial has ended or was given to another program.
        InvalidInput: there is no epoch, or one given in both ways.
    """
    one = _told(number, request)
    trial = _take_one(tx, study, _whole(one), max_charges=1)  # only ends are charged
    given_up = _given_up(tx, rules, [one], {number: trial})
    return ReportedTrial(**dict(_view(tx, study, trial)), should_prune=number in given_up)


def complete(
    tx: Transaction, study: str, number: int, request: CompleteRequest, *, max_charges: int
) -> Trial:
    """End an external trial; repeating the same end changes nothing.

    Raises:
        NotFound: there is no such study or trial.
        Conflict: the study is trained by workers.
        StaleAttempt: the trial has ended otherwise or was given to another program.
        InvalidInput: a complete trial needs a value, a failed one must not have one.
    """
    one = _told(number, request)
    return _view(tx, study, _take_one(tx, study, _whole(one), max_charges=max_charges))


def _told(number: int, request: ReportRequest | CompleteRequest) -> TrialReport:
    """A request about one trial as one about several has it."""
    if isinstance(request, ReportRequest):
        return TrialReport(number=number, attempt=request.attempt, epochs=_epochs(request))
    end = TrialEnd(**{name: getattr(request, name) for name in TrialEnd.model_fields})
    return TrialReport(number=number, attempt=request.attempt, epochs=request.epochs, end=end)


def _epochs(request: ReportRequest) -> tuple[EpochReport, ...]:
    """The epochs of a request that gives them in one of two ways."""
    if request.epochs:
        single = [name for name in ("epoch", "metrics") if getattr(request, name) is not None]
        if single:
            raise InvalidInput([(name, "is given beside epochs; leave one out") for name in single])
        return request.epochs
    if request.epoch is None or request.metrics is None:
        fields = [name for name in ("epoch", "metrics") if getattr(request, name) is None]
        raise InvalidInput([(name, "is missing, and so is epochs") for name in fields])
    return (EpochReport(epoch=request.epoch, metrics=request.metrics),)


def _check(reports: Sequence[TrialReport]) -> None:
    seen: set[int] = set()
    problems = []
    for index, one in enumerate(reports):
        if one.number in seen:
            problems.append((f"trials.{index}.number", f"trial {one.number} is given twice"))
        seen.add(one.number)
    if sum(len(one.epochs) for one in reports) > MAX_REPORTS:
        problems.append(("trials", f"must have {MAX_REPORTS} epochs at most in all"))
    if problems:
        raise InvalidInput(problems)


@dataclass(frozen=True)
class _Piece:
    """A report, and those of its epochs that one transaction takes; its end goes with the last."""

    report: TrialReport
    epochs: Sequence[EpochReport]
    is_last: bool


def _whole(report: TrialReport) -> _Piece:
    return _Piece(report, report.epochs, is_last=True)


def _pieces(report: TrialReport) -> list[_Piece]:
    """A report in pieces of at most `MAX_NEWS` epochs."""
    epochs = report.epochs
    starts = range(0, max(1, len(epochs)), MAX_NEWS)
    return [
        _Piece(report, epochs[start : start + MAX_NEWS], is_last=start == starts[-1])
        for start in starts
    ]


@dataclass(frozen=True)
class _Accepted:
    """A report that will be taken, or was taken before."""

    run: RunRow
    epochs: Mapping[int, Mapping[str, float]]
    end: TrialEnd | None
    value: float | None
    is_repeated: bool


def _take_one(tx: Transaction, study: str, piece: _Piece, *, max_charges: int) -> TrialRow:
    """Take one piece; raises the error that refuses its report."""
    (taken,) = _take(tx, study, [piece], max_charges=max_charges).values()
    if isinstance(taken, ServiceError):
        raise taken
    return taken


def _take(
    tx: Transaction, study: str, pieces: Sequence[_Piece], *, max_charges: int
) -> dict[int, TrialRow | ServiceError]:
    """Take a piece of each report, or find the error that refuses the report as a whole.

    Returns the trials as they are then, or the errors, by the trials' numbers.
    """
    ledger = Ledger(tx, studies.find(tx, study).id)
    if not ledger.spec.external:
        raise Conflict(f"{study} is trained by workers; its task is not external")
    numbers = [piece.report.number for piece in pieces]
    trials = tx.trials.of_numbers(ledger.study.id, numbers)
    runs = tx.runs.of_trials([trial.id for trial in trials.values()])
    known = tx.runs.epochs_of([run.id for (run,) in runs.values()])
    results: list[_Accepted | ServiceError] = []
    for number, piece in zip(numbers, pieces, strict=True):
        try:
            trial = trials.get(number)
            if trial is None:
                raise NotFound(f"{study} has no trial {number}")
            (run,) = runs[trial.id]
            results.append(_accept(tx, ledger, piece, run, known[run.id]))
        except ServiceError as exc:
            results.append(exc)
    _write(tx, ledger, [r for r in results if isinstance(r, _Accepted)], max_charges)
    rows = tx.trials.of_ids([trial.id for trial in trials.values()])
    return {
        number: result if isinstance(result, ServiceError) else rows[result.run.trial_id]
        for number, result in zip(numbers, results, strict=True)
    }


def _accept(
    tx: Transaction, ledger: Ledger, piece: _Piece, run: RunRow, known: set[int]
) -> _Accepted:
    """Check the whole report, so that its first piece is not taken where the last would not be."""
    report = piece.report
    name = f"trial {report.number} of {ledger.study.name}"
    if run.attempt != report.attempt:
        raise _refused(
            "stale_attempt",
            f"attempt {report.attempt} at {name} is not the current one, {run.attempt}: the trial "
            "was handed out again, or its lease ran out",
        )
    new: dict[int, Mapping[str, float]] = {}
    for one in report.epochs:
        if one.epoch not in known:
            new.setdefault(one.epoch, one.metrics)
    end = report.end
    value = None
    if end is not None:
        _check_end(end)
        value = end.value
        metric = ledger.spec.objective.metric
        if value is None and end.state != "FAIL":
            value = _last_value(tx, run, new, known, metric)
        if value is None and end.state == "COMPLETE":
            raise InvalidInput([("value", f"is missing, and no epoch has reported {metric}")])
    if run.state is RunState.RUNNING and ledger.study.state not in OPEN_STUDY:
        why = f"{ledger.study.name} is {ledger.study.state}, and {name} with it"
        raise _refused("study_ended", why)
    is_repeated = run.state is not RunState.RUNNING
    if run.state is RunState.WAITING and not (end and _has_ended_so(run, end, value)):
        raise _refused(
            "run_ended",
            f"attempt {report.attempt} at {name} was handed back, since its lease ran out or it "
            "failed, and the trial waits to be tried again; drop it, and take what suggest gives",
        )
    if is_repeated:
        if end is None:
            raise _refused("run_ended", f"{name} is {run.state}, it takes no more reports")
        if not _has_ended_so(run, end, value):
            raise _refused("run_ended", f"{name} is {run.state} already")
    epochs = {one.epoch: new[one.epoch] for one in piece.epochs if one.epoch in new}
    return _Accepted(run, epochs, end if piece.is_last else None, value, is_repeated)


def _refused(kind: str, detail: str) -> StaleAttempt:
    metrics.REFUSED_WRITES.labels(kind).inc()
    return StaleAttempt(detail)


def _check_end(end: TrialEnd) -> None:
    if end.state == "FAIL" and end.value is not None:
        raise InvalidInput([("value", "a failed trial has no value")])
    if end.state != "FAIL" and end.reason is not None:
        raise InvalidInput([("reason", "is only for trials that FAIL")])


def _last_value(
    tx: Transaction,
    run: RunRow,
    new: Mapping[int, Mapping[str, float]],
    known: set[int],
    metric: str,
) -> float | None:
    """What the last epoch that has the metric reported of it, of those new and those known."""
    last = max((epoch for epoch, metrics in new.items() if metric in metrics), default=0)
    value = None
    if any(epoch > last for epoch in known):
        value = tx.runs.last_metric(run.id, metric, above_epoch=last)
    if value is None and last > 0:
        value = new[last][metric]
    return value


def _has_ended_so(run: RunRow, end: TrialEnd, value: float | None) -> bool:
    """Whether a run that is not RUNNING stands as this end, taken before, has left it."""
    if run.state is RunState.WAITING:  # a failure that is tried again, at the next attempt
        retried = end.state == "FAIL" and _reason(end) in _RETRIED
        return retried and run.charges > 0 and run.error == end.error
    return (run.state.value, run.value) == (end.state, value)


def _write(
    tx: Transaction, ledger: Ledger, accepted: Iterable[_Accepted], max_charges: int
) -> None:
    taken = [one for one in accepted if not one.is_repeated]
    ledger.take(
        [News(one.run, epochs=one.epochs, outcome=_end(tx, one, max_charges)) for one in taken]
    )
    tx.runs.renew_leases([one.run.id for one in taken if one.end is None], tx.now)


def _end(tx: Transaction, accepted: _Accepted, max_charges: int) -> Outcome | None:
    """What becomes of a run that ends; its program has had it since it was handed out."""
    run, end = accepted.run, accepted.end
    if end is None:
        return None
    seconds = outcomes.held_seconds(run, tx.now)
    if end.state != "FAIL":
        return outcomes.completed(
            value=accepted.value,
            state=RunState(end.state),
            metrics=end.metrics,
            device_seconds=seconds,
        )
    reason = _reason(end)
    if reason in _RETRIED:
        return outcomes.charged(
            run, reason, max_charges=max_charges, error=end.error, device_seconds=seconds
        )
    return outcomes.failed(reason, error=end.error, device_seconds=seconds)


def _reason(end: TrialEnd) -> FailReason:
    return end.reason or FailReason.CRASHED


def _given_up(
    tx: Transaction,
    rules: KnownRules,
    reports: Iterable[TrialReport],
    taken: Mapping[int, TrialRow | ServiceError],
) -> set[int]:
    """The numbers of the trials that the rules give up at an epoch that was reported just now.

    A device would have ended them there.
    """
    going_on = [(one, taken[one.number]) for one in reports if one.end is None]
    trials = [(one, trial) for one, trial in going_on if isinstance(trial, TrialRow)]
    earlier = tx.runs.metrics_at([trial.id for _, trial in trials], rules.epochs_needed)
    return {
        one.number
        for one, trial in trials
        if rules.should_prune(
            one.number,
            {epoch.epoch: epoch.metrics for epoch in one.epochs},
            earlier.get(trial.id, {}),
        )
    }


def _outcome(
    index: int, report: TrialReport, result: TrialRow | ServiceError, given_up: Container[int]
) -> ReportOutcome:
    if isinstance(result, InvalidInput):
        result = InvalidInput(list(_at(f"trials.{index}.end", result.problems)))
    if isinstance(result, ServiceError):
        error = views.problem(result)
        return ReportOutcome(
            number=report.number, state=None, value=None, should_prune=False, error=error
        )
    return ReportOutcome(
        number=report.number,
        state=result.state,
        value=result.value,
        should_prune=report.number in given_up,
        error=None,
    )


def _at(path: str, problems: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Problems of a part, by the path of the field in the whole."""
    return ((f"{path}.{field}", reason) for field, reason in problems)


def _view(tx: Transaction, study: str, trial: TrialRow) -> Trial:
    return views.trials(tx, study, [trial])[0]
