"""Workers: registration, the one batched call they make, and what becomes of silent ones."""

from __future__ import annotations

import logging
import math
import secrets
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ridgeline.service import dispatch, logs, metrics, outcomes, pruning, studies, views
from ridgeline.service.errors import Conflict, InvalidInput, NotFound
from ridgeline.service.ledger import MAX_NEWS, Ledger, in_parts
from ridgeline.service.lifecycle import OPEN_RUN, OPEN_STUDY, FailReason, RunState
from ridgeline.service.outcomes import News, Outcome
from ridgeline.service.protocol import (
    MAX_HELD_RUNS,
    Refusal,
    RunEnded,
    RunKey,
    StudyRules,
    SyncRequest,
    SyncResponse,
    WorkerRegistered,
    WorkerRegistration,
)
from ridgeline.service.resources import Worker
from ridgeline.service.settings import Settings
from ridgeline.service.store.rows import RunRow, WorkerRow
from ridgeline.service.store.session import Store, Transaction

log = logging.getLogger(__name__)

_GONE = "no such run"

MAX_ORDERS = 1_000
"""Runs in one answer; a worker that has room for more gets them with its next calls."""


def register(
    tx: Transaction, registration: WorkerRegistration, *, owner: str | None, settings: Settings
) -> WorkerRegistered:
    """Take a worker in; it then holds a lease that every sync renews."""
    worker_id = secrets.token_hex(8)
    values = registration.model_dump(mode="json")
    tx.workers.insert(
        id=worker_id,
        owner=owner,
        state="LIVE",
        sync_seq=0,
        idle_slots={},
        restarts={},
        registered_at=tx.now,
        seen_at=tx.now,
        lease_expires_at=tx.now + settings.lease_seconds,
        **values,
    )
    return WorkerRegistered(
        id=worker_id,
        lease_seconds=settings.lease_seconds,
        sync_interval_seconds=settings.sync_interval_seconds,
    )


def list_all(tx: Transaction, *, seen_within_seconds: float | None = None) -> list[Worker]:
    """All workers, or those that called lately, in the order they came."""
    since = None if seen_within_seconds is None else tx.now - seen_within_seconds
    rows = tx.workers.all(seen_since=since)
    # The others hold none: their runs were taken back.
    held = tx.runs.num_held([row.id for row in rows if row.state == "LIVE"])
    return [views.worker(row, held.get(row.id, {})) for row in rows]


@metrics.SYNC_SECONDS.time()
def sync(store: Store, worker_id: str, request: SyncRequest, *, settings: Settings) -> SyncResponse:
    """Take what a worker states, answer with the difference; repeating a call changes nothing.

    Raises:
        NotFound: no such worker is registered.
        Conflict: the worker was given up after a silence, or the statement is older than one
            that was taken; register again.
        InvalidInput: a free or idle slot is on a device that was not registered.
    """
    refused: list[Refusal] = []
    *parts, last = in_parts(_said(request))
    for part in parts:
        with store.transaction() as tx:
            refused += _take(tx, _seen(tx, worker_id, request, settings), part, settings)
    with store.transaction() as tx:
        worker = _seen(tx, worker_id, request, settings)
        refused += _take(tx, worker, last, settings)
        refused = list(dict.fromkeys(refused))  # of a run that is in several parts, one
        if request.leaving:
            _give_up(tx, worker_id, "GONE")
            return SyncResponse(start=(), stop=(), refused=tuple(refused))
        assigned = {(run.id, run.attempt): run for run in tx.runs.held_by(worker_id)}
        held = {(run.run, run.attempt) for run in request.held}
        # Handed out in an answer that was lost, they fill some of the slots still called free.
        owed = [run for key, run in assigned.items() if key not in held]
        start = tx.runs.with_trials([run.id for run in owed[:MAX_ORDERS]])
    num_owed = Counter(run.device for run in owed)
    start += dispatch.fill(
        store,
        worker,
        free_slots={device: free - num_owed[device] for device, free in request.free_slots.items()},
        num_held=Counter(run.device for run in assigned.values() if run.device is not None),
        # No statement can name more runs than MAX_HELD_RUNS.
        limit=min(MAX_ORDERS - len(start), MAX_HELD_RUNS - len(assigned)),
    )
    study_ids = {run.study_id for run in (*assigned.values(), *(one.run for one in start))}
    with store.reading() as tx:
        return SyncResponse(
            start=tuple(dispatch.orders(tx, start)),
            stop=tuple(
                RunKey(run=run, attempt=attempt) for run, attempt in sorted(held - assigned.keys())
            ),
            refused=tuple(refused),
            rules=tuple(_newer_rules(store, tx, study_ids, request.rules)),
        )


def expire(store: Store, *, by: float = math.inf) -> int:
    """Take back the runs of workers and programs that fell silent; end what ran out of time.

    What another process began to cancel, and did not live to, is cancelled.  Any number of api
    processes may call it at once.

    Args:
        by: the latest time to go by, should the clock be set just now.

    Returns how many runs were taken back.
    """
    with store.reading() as tx:
        now = min(by, tx.now)
        lost = tx.workers.expired(now)
        overdue = tx.studies.overdue(now)
        silent = tx.runs.lease_expired(now)
    num_taken = 0
    for worker_id in lost:
        with store.transaction() as tx:
            worker = tx.workers.lock(worker_id)
            assert worker is not None, "workers are never deleted"
            if worker.state == "LIVE" and worker.lease_expires_at < min(by, tx.now):
                num_runs = _give_up(tx, worker_id, "LOST")
                with logs.about(worker=worker_id):
                    log.warning("the worker %s is lost with %d runs", worker.name, num_runs)
                num_taken += num_runs
                tx.count(metrics.LEASES_EXPIRED.labels("worker"))
    for study_id, of_study in _by_study(silent).items():
        with store.transaction() as tx:
            num_handed_back = _hand_back(tx, study_id, of_study)
            num_taken += num_handed_back
            tx.count(metrics.LEASES_EXPIRED.labels("program"), num_handed_back)
    for study_id in overdue:
        with store.transaction() as tx:
            ledger = Ledger.of_found(tx, study_id)
            if ledger is not None and not ledger.study.stopping:
                ledger.stop()
                ledger.wind_up()
    studies.wind_up_all(store)
    return num_taken


def _seen(tx: Transaction, worker_id: str, request: SyncRequest, settings: Settings) -> WorkerRow:
    worker = tx.workers.lock(worker_id)
    if worker is None:
        raise NotFound(f"no worker {worker_id} is registered; register again")
    if worker.state != "LIVE" and not (worker.state == "GONE" and request.leaving):
        metrics.REFUSED_WRITES.labels("worker_given_up").inc()
        raise Conflict(f"worker {worker_id} is {worker.state}; register again")
    devices = {device["name"] for device in worker.devices}
    unknown = [
        f"{field}.{name}"
        for field in ("free_slots", "idle_slots", "restarts")
        for name in getattr(request, field)
        if name not in devices
    ]
    if unknown:
        raise InvalidInput([(field, "is not a device of this worker") for field in unknown])
    if request.sync_seq < worker.sync_seq:
        raise Conflict(f"statement {request.sync_seq} is older than {worker.sync_seq}")
    changed: dict[str, Any] = {}
    if request.datasets is not None:
        changed["datasets"] = [dataset.model_dump(mode="json") for dataset in request.datasets]
    tx.workers.update(
        worker_id,
        sync_seq=request.sync_seq,
        idle_slots=request.idle_slots,
        restarts=request.restarts,
        **changed,
        seen_at=tx.now,
        lease_expires_at=tx.now + settings.lease_seconds,
    )
    return replace(worker, **changed)


@dataclass(frozen=True)
class _Said:
    """What a statement says of one attempt at a run, or a part of that.

    Attributes:
        end: as the whole statement has it.
        is_last: whether no later part has more; the run ends with this one.
    """

    key: tuple[int, int]
    program: str | None
    epochs: Mapping[int, Mapping[str, float]]
    end: RunEnded | None
    is_last: bool


def _said(request: SyncRequest) -> Iterator[_Said]:
    """What a statement says, by run and attempt, in pieces of at most `MAX_NEWS` epochs."""
    reports: dict[tuple[int, int], dict[int, dict[str, float]]] = defaultdict(dict)
    for report in request.reports:
        reports[report.run, report.attempt][report.epoch] = report.metrics
    ends = {(end.run, end.attempt): end for end in request.ended}
    programs = {
        (item.run, item.attempt): item.program
        for part in (request.held, request.ended)
        for item in part
        if item.program is not None
    }
    for key in sorted({*reports, *ends, *programs}):
        epochs = sorted(reports.get(key, {}).items())
        starts = range(0, max(1, len(epochs)), MAX_NEWS)
        for start in starts:
            piece = dict(epochs[start : start + MAX_NEWS])
            yield _Said(key, programs.get(key), piece, ends.get(key), start == starts[-1])


def _take(
    tx: Transaction, worker: WorkerRow, part: Sequence[_Said], settings: Settings
) -> list[Refusal]:
    """Reports, ends and programs of runs, study by study in the order of their ids."""
    study_of = tx.runs.studies_of(sorted({said.key[0] for said in part}))
    unknown = [said for said in part if said.key[0] not in study_of]
    refused = [_refusal(said, "unknown_run", _GONE) for said in unknown]
    known = [said for said in part if said.key[0] in study_of]
    for study_id in sorted({study_of[said.key[0]] for said in known}):
        ledger = Ledger.of_found(tx, study_id)
        here = [said for said in known if study_of[said.key[0]] == study_id]
        if ledger is None:
            refused += [_refusal(said, "unknown_run", _GONE) for said in here]
            continue
        runs = tx.runs.get([said.key[0] for said in here])  # under the study's lock
        news = []
        for said in here:
            run, (_, attempt) = runs[said.key[0]], said.key
            if not holds(worker, run, attempt):
                if not _is_repeat(worker, run, attempt, said.end):
                    refused.append(_refusal(said, kind_of_void(run), why_void(run)))
                continue
            if ledger.study.state not in OPEN_STUDY:  # it is wound up, this run a little later
                reason = f"the study is {ledger.study.state}"
                refused.append(_refusal(said, "study_ended", reason))
                continue
            end = said.end if said.is_last else None
            news.append(
                News(
                    run,
                    program=said.program if said.program != run.program else None,
                    epochs=said.epochs,
                    outcome=None if end is None else _outcome(tx, run, end, settings),
                )
            )
        ledger.take(news)
        ledger.wind_up()  # where the study has failed by that
    return refused


def _refusal(said: _Said, kind: str, reason: str) -> Refusal:
    metrics.REFUSED_WRITES.labels(kind).inc()
    run, attempt = said.key
    return Refusal(run=run, attempt=attempt, reason=reason)


def holds(worker: WorkerRow, run: RunRow, attempt: int) -> bool:
    """Whether this worker may speak of this attempt at a run."""
    return run.worker_id == worker.id and run.attempt == attempt and run.state is RunState.RUNNING


def _is_repeat(worker: WorkerRow, run: RunRow, attempt: int, end: RunEnded | None) -> bool:
    """Whether this end was taken before: the answer was lost, and the worker says it again."""
    same_attempt = run.worker_id == worker.id and run.attempt == attempt
    return same_attempt and end is not None and run.state is not RunState.RUNNING


def kind_of_void(run: RunRow) -> str:
    """What a write of somebody who does not hold the run counts as in the metrics."""
    return "stale_attempt" if run.state in OPEN_RUN else "run_ended"


def why_void(run: RunRow) -> str:
    """Why nothing is taken from somebody who does not hold the run."""
    if run.state is RunState.RUNNING:
        return f"the run is at attempt {run.attempt} elsewhere"
    return f"the run is {run.state}" + (f" ({run.reason})" if run.reason else "")


_CHARGED = {"out_of_memory": FailReason.OUT_OF_MEMORY, "timeout": FailReason.TIMEOUT}


def _outcome(tx: Transaction, run: RunRow, end: RunEnded, settings: Settings) -> Outcome:
    # Studies share devices by what their runs have cost: no run has cost more than there was.
    seconds = min(end.device_seconds, outcomes.held_seconds(run, tx.now))
    match end.outcome:
        case "complete" if end.value is not None:
            return outcomes.completed(
                value=end.value,
                kept_epoch=end.kept_epoch,
                metrics=end.metrics,
                measures=end.measures,
                device_seconds=seconds,
            )
        case "pruned":
            return outcomes.completed(
                value=end.value,
                state=RunState.PRUNED,
                kept_epoch=end.kept_epoch,
                metrics=end.metrics,
                pruned_by_version=end.rule_version,
                device_seconds=seconds,
            )
        case "diverged":
            return outcomes.failed(FailReason.DIVERGED, error=end.error, device_seconds=seconds)
        case "failed":
            return outcomes.failed(
                FailReason.CRASHED,
                error=end.error,
                log_tail=end.log_tail,
                device_seconds=seconds,
            )
        case "never_trains":
            error = end.error or "its runs cannot be trained"
            return outcomes.never_trains(error, device_seconds=seconds)
        case "released" | "stopped":
            return outcomes.handed_back(device_seconds=seconds)
        case _:  # out_of_memory, timeout, crashed, or complete without a value
            return outcomes.charged(
                run,
                _CHARGED.get(end.outcome, FailReason.CRASHED),
                max_charges=settings.max_charges,
                error=end.error,
                log_tail=end.log_tail,
                device_seconds=seconds,
            )


def _newer_rules(
    store: Store, tx: Transaction, study_ids: Iterable[int], known: Mapping[str, int]
) -> Iterator[StudyRules]:
    """The pruning rules of some studies, as far as a worker lacks them."""
    for study_id in sorted(study_ids):
        study = tx.studies.get(study_id)
        brackets = () if study is None else pruning.rules_of(store, tx, study)
        if not brackets or brackets[0].version <= known.get(brackets[0].study, 0):
            continue
        if brackets[0].study in known or any(rules.thresholds for rules in brackets):
            yield from brackets


def _give_up(tx: Transaction, worker_id: str, state: str) -> int:
    """Hand every run of a worker back, uncharged; how many there were."""
    tx.workers.update(worker_id, state=state, lease_expires_at=tx.now)
    held = _by_study(tx.runs.held_by(worker_id))
    return sum(_hand_back(tx, study_id, held[study_id]) for study_id in sorted(held))


def _by_study(runs: Iterable[RunRow]) -> dict[int, list[RunRow]]:
    found: dict[int, list[RunRow]] = defaultdict(list)
    for run in runs:
        found[run.study_id].append(run)
    return found


def _hand_back(tx: Transaction, study_id: int, runs: Sequence[RunRow]) -> int:
    """Hand those of a study's runs back that nobody ended or renewed since; how many there are."""
    ledger = Ledger.of_found(tx, study_id)
    if ledger is None:
        return 0
    now = tx.runs.get([run.id for run in runs])
    silent = [now[run.id] for run in runs if _claim(now[run.id]) == _claim(run)]
    ledger.take([News(run, outcome=outcomes.handed_back()) for run in silent])
    return len(silent)


def _claim(run: RunRow) -> tuple[Any, ...]:
    return run.state, run.attempt, run.lease_expires_at
