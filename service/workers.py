"""Workers: registration, the one batched call they make, and what becomes of silent ones."""

from __future__ import annotations

import logging
import secrets
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from service import dispatch, pruning, views
from service.errors import Conflict, InvalidInput, NotFound
from service.ledger import Ledger
from service.lifecycle import FailReason, RunState
from service.protocol import (
    Refusal,
    RunEnded,
    RunKey,
    StudyRules,
    SyncRequest,
    SyncResponse,
    WorkerRegistered,
    WorkerRegistration,
)
from service.resources import Worker
from service.settings import Settings
from service.store.rows import RunRow, WorkerRow
from service.store.session import Store, Transaction

log = logging.getLogger(__name__)


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


def list_all(tx: Transaction) -> list[Worker]:
    """All workers, in the order they came."""
    num_held = tx.runs.num_held()
    return [views.worker(row, num_held.get(row.id, 0)) for row in tx.workers.all()]


def sync(store: Store, worker_id: str, request: SyncRequest, *, settings: Settings) -> SyncResponse:
    """Take what a worker states, answer with the difference; repeating a call changes nothing.

    Raises:
        NotFound: no such worker is registered.
        Conflict: the worker was given up after a silence, or the statement is older than one
            that was taken; register again.
        InvalidInput: a free or idle slot is on a device that was not registered.
    """
    with store.transaction() as tx:
        worker = _seen(tx, worker_id, request, settings)
        refused = _take(tx, worker, request, settings)
        if request.leaving:
            _give_up(tx, worker_id, "GONE")
            return SyncResponse(start=(), stop=(), refused=tuple(refused))
    with store.reading() as tx:
        handed_out = tx.runs.held_by(worker_id)
    held = {(run.run, run.attempt) for run in request.held}
    # A run handed out in an answer that was lost fills one of the slots still called free.
    owed = Counter(run.device for run in handed_out if (run.id, run.attempt) not in held)
    dispatch.fill(
        store,
        worker,
        free_slots={device: free - owed[device] for device, free in request.free_slots.items()},
        num_held=Counter(run.device for run in handed_out if run.device is not None),
    )
    with store.reading() as tx:
        assigned = {(run.id, run.attempt): run for run in tx.runs.held_by(worker_id)}
        return SyncResponse(
            start=tuple(dispatch.orders(tx, [r for k, r in assigned.items() if k not in held])),
            stop=tuple(
                RunKey(run=run, attempt=attempt)
                for run, attempt in sorted(held)
                if (run, attempt) not in assigned
            ),
            refused=tuple(refused),
            rules=tuple(_newer_rules(store, tx, assigned.values(), request.rules)),
        )


def expire(store: Store) -> int:
    """Take back the runs of workers and programs that fell silent; end what ran out of time.

    Returns how many runs were taken back.  Any number of api processes may call it at once.
    """
    with store.reading() as tx:
        lost = tx.workers.expired(tx.now)
        overdue = tx.studies.overdue(tx.now)
        silent = tx.runs.lease_expired(tx.now)
    num_taken = 0
    for worker_id in lost:
        with store.transaction() as tx:
            worker = tx.workers.lock(worker_id)
            assert worker is not None, "workers are never deleted"
            if worker.state == "LIVE" and worker.lease_expires_at < tx.now:
                num_runs = _give_up(tx, worker_id, "LOST")
                log.warning("worker %s (%s) is lost with %d runs", worker_id, worker.name, num_runs)
                num_taken += num_runs
    for run in silent:
        with store.transaction() as tx:
            ledger = Ledger(tx, run.study_id)
            now = tx.runs.get([run.id])[run.id]
            if now == run:
                ledger.hand_back(now)
                num_taken += 1
    for study_id in overdue:
        with store.transaction() as tx:
            ledger = Ledger(tx, study_id)
            if not ledger.study.stopping:
                ledger.stop()
    return num_taken


def _seen(tx: Transaction, worker_id: str, request: SyncRequest, settings: Settings) -> WorkerRow:
    worker = tx.workers.lock(worker_id)
    if worker is None:
        raise NotFound(f"no worker {worker_id} is registered; register again")
    if worker.state != "LIVE" and not (worker.state == "GONE" and request.leaving):
        raise Conflict(f"worker {worker_id} is {worker.state}; register again")
    devices = {device["name"] for device in worker.devices}
    unknown = [
        f"{field}.{name}"
        for field in ("free_slots", "idle_slots")
        for name in getattr(request, field)
        if name not in devices
    ]
    if unknown:
        raise InvalidInput([(field, "is not a device of this worker") for field in unknown])
    if request.sync_seq < worker.sync_seq:
        raise Conflict(f"statement {request.sync_seq} is older than {worker.sync_seq}")
    tx.workers.update(
        worker_id,
        sync_seq=request.sync_seq,
        idle_slots=request.idle_slots,
        seen_at=tx.now,
        lease_expires_at=tx.now + settings.lease_seconds,
    )
    return worker


def _take(
    tx: Transaction, worker: WorkerRow, request: SyncRequest, settings: Settings
) -> list[Refusal]:
    """Reports, ends and programs of runs, study by study in the order of their ids."""
    named = {item.run for part in (request.held, request.reports, request.ended) for item in part}
    rows = tx.runs.get(sorted(named))
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
    touched = {*reports, *ends, *programs}
    refused = [
        Refusal(run=run, attempt=attempt, reason="no such run")
        for run, attempt in sorted(touched)
        if run not in rows
    ]
    for study_id in sorted({rows[run].study_id for run, _ in touched if run in rows}):
        ledger = Ledger(tx, study_id)
        here = [key for key in sorted(touched) if key[0] in rows]
        here = [key for key in here if rows[key[0]].study_id == study_id]
        current = tx.runs.get([run for run, _ in here])  # again, now under the study's lock
        for run_id, attempt in here:
            run = current[run_id]
            end = ends.get((run_id, attempt))
            if not _holds(worker, run, attempt):
                if not _is_repeat(worker, run, attempt, end):
                    refused.append(Refusal(run=run_id, attempt=attempt, reason=_why_void(run)))
                continue
            program = programs.get((run_id, attempt))
            if program is not None and run.program is None:
                ledger.set_program(run, program)
                run = replace(run, program=program)
            ledger.record(run, reports.get((run_id, attempt), {}))
            if end is not None:
                _end(ledger, run, end, settings)
    return refused


def _holds(worker: WorkerRow, run: RunRow, attempt: int) -> bool:
    return run.worker_id == worker.id and run.attempt == attempt and run.state is RunState.RUNNING


def _is_repeat(worker: WorkerRow, run: RunRow, attempt: int, end: RunEnded | None) -> bool:
    """Whether this end was taken before: the answer was lost, and the worker says it again."""
    same_attempt = run.worker_id == worker.id and run.attempt == attempt
    return same_attempt and end is not None and run.state is not RunState.RUNNING


def _why_void(run: RunRow) -> str:
    if run.state is RunState.RUNNING:
        return f"the run is at attempt {run.attempt} elsewhere"
    return f"the run is {run.state}" + (f" ({run.reason})" if run.reason else "")


def _end(ledger: Ledger, run: RunRow, end: RunEnded, settings: Settings) -> None:
    spent = end.device_seconds
    match end.outcome:
        case "complete" if end.value is not None:
            ledger.complete(
                run,
                value=end.value,
                kept_epoch=end.kept_epoch,
                metrics=end.metrics,
                device_seconds=spent,
            )
        case "pruned":
            ledger.complete(
                run,
                value=end.value,
                state=RunState.PRUNED,
                kept_epoch=end.kept_epoch,
                metrics=end.metrics,
                pruned_by_version=end.rule_version,
                device_seconds=spent,
            )
        case "diverged":
            ledger.fail(run, FailReason.DIVERGED, error=end.error, device_seconds=spent)
        case "released" | "stopped":
            ledger.hand_back(run, device_seconds=spent)
        case "out_of_memory" | "crashed" | "complete":
            reason = (
                FailReason.OUT_OF_MEMORY if end.outcome == "out_of_memory" else FailReason.CRASHED
            )
            ledger.charge(
                run,
                reason,
                max_charges=settings.max_charges,
                error=end.error,
                log_tail=end.log_tail,
                device_seconds=spent,
            )


def _newer_rules(
    store: Store, tx: Transaction, assigned: Iterable[RunRow], known: Mapping[str, int]
) -> Iterator[StudyRules]:
    """The pruning rules that a worker lacks, of the studies it has runs of."""
    for study_id in sorted({run.study_id for run in assigned}):
        rules = pruning.rules_of(store, tx, tx.studies.get(study_id))
        if rules is None or rules.version <= known.get(rules.study, 0):
            continue
        if rules.thresholds or rules.study in known:
            yield rules


def _give_up(tx: Transaction, worker_id: str, state: str) -> int:
    """Hand every run of a worker back, uncharged; how many there were."""
    tx.workers.update(worker_id, state=state, lease_expires_at=tx.now)
    held = sorted(tx.runs.held_by(worker_id), key=lambda run: run.study_id)
    num_taken = 0
    for run in held:
        ledger = Ledger(tx, run.study_id)
        now = tx.runs.get([run.id])[run.id]
        if now.state is RunState.RUNNING and now.attempt == run.attempt:
            ledger.hand_back(now)
            num_taken += 1
    return num_taken
