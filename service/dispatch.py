"""The queue: which study's run a free slot gets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace
from typing import Any

from ridgeline.search.pruners import bracket_of
from ridgeline.search.spec import StudySpec
from ridgeline.service import sampling
from ridgeline.service.ledger import Ledger, num_planned
from ridgeline.service.lifecycle import SERVABLE_STUDY, TrialState
from ridgeline.service.matching import can_train, fingerprint_at, runs_have_processes
from ridgeline.service.protocol import RunOrder
from ridgeline.service.store.rows import RunOfTrial, StudyRow, WorkerRow
from ridgeline.service.store.session import Store, Transaction

_FIRST_GUESS_SECONDS = 1.0
"""What a run is taken to cost before one of its study has ended."""


_MAX_PLACES = 256
"""Runs that one transaction hands out, a wide pack of them: others write in between."""


def fill(
    store: Store,
    worker: WorkerRow,
    free_slots: Mapping[str, int],
    num_held: Mapping[str, int],
    *,
    limit: int,
) -> list[RunOfTrial]:
    """Hand runs to a worker's devices until they are full or no study has one for them.

    Returns them.

    Slots are filled first.  What a device takes ahead of its turn would only wait there, and a
    trial that waits in one device's queue counts towards `max_parallel` all the same: for those a
    place is left for every other device, which would be idle otherwise.

    Args:
        free_slots: by device, how many more runs it takes.
        num_held: by device, how many it has; past its `num_slots` a run would only wait there.
        limit: of the runs handed out, of which each device may have an equal share.
    """
    num_wanting = sum(num_free > 0 for num_free in free_slots.values())
    share = max(0, limit) // max(1, num_wanting)
    devices = {device["name"]: device for device in worker.devices}
    slots: list[str] = []
    queues: list[str] = []
    for device, num_free in free_slots.items():
        num_free = min(num_free, share)
        num_at_once = min(num_free, max(0, devices[device]["num_slots"] - num_held.get(device, 0)))
        slots += [device] * num_at_once
        queues += [device] * (num_free - num_at_once)
    handed: list[RunOfTrial] = []
    for in_processes in (False, True):
        places, ahead = (
            [device for device in some if runs_have_processes(devices[device]) == in_processes]
            for some in (slots, queues)
        )
        if places or ahead:
            claims, num_others = _claims(store, worker, in_processes=in_processes)
            handed += _fill_places(store, worker, claims, places, reserve=0)
            handed += _fill_places(store, worker, claims, ahead, reserve=num_others)
    return handed


def orders(tx: Transaction, runs: Sequence[RunOfTrial]) -> Iterator[RunOrder]:
    """All that a worker needs to train each of `runs`; a study may have been deleted since."""
    studies: dict[int, tuple[StudySpec, dict[str, Any]]] = {}
    again = [one.run.id for one in runs if one.run.attempt > 1]  # others cannot have any
    checkpoints = tx.artifacts.newest_checkpoints(again)
    for run, number, config, _ in runs:
        checkpoint = checkpoints.get(run.id)
        if run.study_id not in studies:
            row = tx.studies.get(run.study_id)
            if row is None:
                continue
            parts = {"task", "objective", "early_stopping", "penalty", "reproducible"}
            common = row.spec.model_dump(mode="json", include=parts)
            num_to_come = num_planned(row, row.spec) - row.next_number
            studies[run.study_id] = (
                row.spec,
                {
                    "study": row.name,
                    "run_seconds": row.spec.budget.run_seconds,
                    "num_following": 0 if row.stopping else num_to_come * row.spec.num_runs,
                    **common,
                },
            )
        spec, common = studies[run.study_id]
        assert run.device is not None
        yield RunOrder(
            run=run.id,
            attempt=run.attempt,
            trial=number,
            replicate=run.replicate,
            device=run.device,
            seed=run.seed,
            bracket=bracket_of(spec.pruner, number),
            config=spec.run_config(config),
            data_fingerprint=run.data_fingerprint,
            checkpoint=None if checkpoint is None else checkpoint.info(),
            **common,
        )


def start(
    tx: Transaction,
    ledger: Ledger,
    proposal: sampling.Proposal | None,
    devices: Sequence[str | None],
    *,
    reserve: int = 0,
    **holder: Any,
) -> list[RunOfTrial]:
    """Hand out runs of a study that may start, at most one to each of `devices`.

    The proposed trials are added once nothing else may start.

    Args:
        devices: None where a program of somebody else's trains.
        reserve: places of `max_parallel` that are left free.
        holder: whose the runs are, as for `Ledger.hand_out`.
    """
    handed: list[RunOfTrial] = []
    while len(handed) < len(devices):
        places = devices[len(handed) :]
        runs = startable(tx, ledger.study, limit=len(places), reserve=reserve)
        if runs:
            handed += ledger.hand_out(runs, places[: len(runs)], **holder)
            continue
        num_trials = _num_trials(len(places), ledger.spec)
        if proposal is None or not sampling.accept(ledger, proposal.first(num_trials)):
            break
        proposal = None
    return handed


def startable(tx: Transaction, study: StudyRow, *, limit: int, reserve: int) -> list[RunOfTrial]:
    """Waiting runs that may start now, in start order; at most `limit`.

    Those of new trials only while `max_parallel`, less `reserve`, has room for them, and never once
    the study is to stop.  There may be more once these have started; the list is empty only if no
    run may start.
    """
    waiting = tx.runs.waiting(study.id, limit=limit)
    if not waiting:
        return []
    room = 0
    if not study.stopping:
        room = study.spec.max_parallel - reserve - tx.trials.num_running(study.id)
    if room <= 0:
        waiting = tx.runs.waiting(study.id, limit=limit, of_running_trials_only=True)
    begun = {one.run.trial_id for one in waiting if one.trial_state is TrialState.RUNNING}
    found = []
    for one in waiting:
        if one.run.trial_id not in begun and room > 0:
            begun.add(one.run.trial_id)
            room -= 1
        if one.run.trial_id in begun:
            found.append(one)
    return found


@dataclass
class _Claim:
    """What a study may claim of the places, beside others.

    Attributes:
        seconds: its `virtual_seconds` and what its runs in flight will probably cost.
        cost: what one run will probably cost, in seconds.
    """

    study: StudyRow
    seconds: float
    cost: float


def _claims(store: Store, worker: WorkerRow, *, in_processes: bool) -> tuple[list[_Claim], int]:
    """Those of each study that this worker can train, and how many other devices wait."""
    with store.reading() as tx:
        rows = {
            row.id: row
            for row in tx.studies.servable()
            if can_train(worker, row, in_processes=in_processes)
        }
        load = tx.studies.load(list(rows))
        num_devices = sum(
            runs_have_processes(device) == in_processes
            for live in tx.workers.all(live_only=True)
            for device in live.devices
        )
    claims = []
    for row in rows.values():
        num_in_flight, num_waiting = load[row.id]
        num_ended = row.next_number * row.spec.num_runs - num_waiting - num_in_flight
        cost = row.device_seconds / num_ended if num_ended > 0 else _FIRST_GUESS_SECONDS
        claims.append(_Claim(row, row.virtual_seconds + num_in_flight * cost, cost))
    return claims, max(0, num_devices - 1)


def _fill_places(
    store: Store, worker: WorkerRow, claims: list[_Claim], devices: list[str], *, reserve: int
) -> list[RunOfTrial]:
    """Hand a run to each of `devices`, which are of one sort, as far as there are any.

    The places are shared out among the studies beforehand, so that each study's are handed out in
    one transaction; what a study cannot use is shared out again among the others.

    Args:
        claims: those of studies that have no more runs to start are taken out.
        reserve: places of `max_parallel` that are left free.
    """
    handed: list[RunOfTrial] = []
    while devices and claims:
        for claim, num_places in _shares(claims, len(devices)):
            places, devices = devices[:num_places], devices[num_places:]
            with store.turn(claim.study.name):
                runs = _hand_out(store, worker, claim.study, places, reserve)
            handed += runs
            claim.seconds += len(runs) * claim.cost
            if len(runs) < num_places:
                claims.remove(claim)
                devices = places[len(runs) :] + devices
    return handed


def _shares(claims: Sequence[_Claim], num_places: int) -> list[tuple[_Claim, int]]:
    """How many places go to each claim.

    One after the other, they go to the study of the highest priority that has had the least device
    time, those just given a place among it, so that a burst does not all go to one study.
    """
    heap = [(-claim.study.priority, claim.seconds, claim.study.id) for claim in claims]
    heapify(heap)
    by_study = {claim.study.id: claim for claim in claims}
    shares: Counter[int] = Counter()
    for _ in range(num_places):
        rank, seconds, study_id = heap[0]
        shares[study_id] += 1
        heapreplace(heap, (rank, seconds + by_study[study_id].cost, study_id))
    return [(by_study[study_id], num) for study_id, num in shares.items()]


def _hand_out(
    store: Store, worker: WorkerRow, study: StudyRow, devices: Sequence[str], reserve: int
) -> list[RunOfTrial]:
    """Hand runs of a study to `devices`, as many as it has; call it in the study's turn."""
    handed: list[RunOfTrial] = []
    while len(handed) < len(devices):
        places = devices[len(handed) : len(handed) + _MAX_PLACES]
        any_wait, proposal = _outlook(store, study, len(places), reserve)
        if not any_wait and proposal is None:
            break  # the study waits for its own trials, or has no more
        with store.transaction() as tx:
            live = tx.workers.lock(worker.id)
            if live is None or live.state != "LIVE":
                break
            ledger = Ledger.of_found(tx, study.id)
            if ledger is None or ledger.study.state not in SERVABLE_STUDY:
                break
            fingerprint = fingerprint_at(worker, ledger.spec.dataset)
            if ledger.study.data_fingerprint not in (None, fingerprint):
                break
            ledger.study.data_fingerprint = fingerprint
            is_current = proposal is None or sampling.is_next(ledger, proposal)
            runs = start(
                tx,
                ledger,
                proposal,
                places,
                reserve=reserve,
                worker_id=worker.id,
                data_fingerprint=fingerprint,
            )
        handed += runs
        is_whole = proposal is None or proposal.is_whole
        if len(runs) < len(places) and is_current and is_whole:
            break  # all that was to be seen has been handed out
    return handed


def _outlook(
    store: Store, study: StudyRow, num_places: int, reserve: int
) -> tuple[bool, sampling.Proposal | None]:
    """Whether a study has runs that may start, and the trials it lacks to fill all the places."""
    with store.reading() as tx:
        runs = startable(tx, study, limit=num_places, reserve=reserve)
        row = None if len(runs) == num_places else tx.studies.get(study.id)
        if row is None:
            return bool(runs), None
        num_trials = _num_trials(num_places - len(runs), row.spec)
        outlook = sampling.look(store, tx, row, num_trials, reserve=reserve)
    return bool(runs), None if outlook is None else outlook.propose()


def _num_trials(num_runs: int, spec: StudySpec) -> int:
    return math.ceil(num_runs / spec.num_runs)
