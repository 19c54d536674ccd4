"""The queue: which study's run a free slot gets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from search.spec import StudySpec
from service import sampling, views
from service.ledger import Ledger
from service.lifecycle import StudyState
from service.protocol import RunOrder
from service.store.rows import RunRow, StudyRow, WorkerRow
from service.store.session import Store, Transaction

_FIRST_GUESS_SECONDS = 1.0
"""What a run is taken to cost before one of its study has ended."""


def fill(
    store: Store, worker: WorkerRow, free_slots: Mapping[str, int], num_held: Mapping[str, int]
) -> None:
    """Hand runs to a worker's devices until they are full or no study has one for them.

    Args:
        free_slots: by device, how many more runs it takes.
        num_held: by device, how many it has; past its `num_slots` a run would only wait there.
    """
    num_slots = {device["name"]: device["num_slots"] for device in worker.devices}
    for device, num_free in free_slots.items():
        held = num_held.get(device, 0)
        for place in range(held, held + num_free):
            if not _hand_out_one(store, worker, device, ahead=place >= num_slots[device]):
                break


def orders(tx: Transaction, runs: Sequence[RunRow]) -> Iterable[RunOrder]:
    """All that a worker needs to train each of `runs`."""
    specs: dict[int, tuple[str, StudySpec]] = {}
    for run in runs:
        if run.study_id not in specs:
            study = tx.studies.get(run.study_id)
            specs[run.study_id] = study.name, StudySpec.model_validate(study.spec)
        name, spec = specs[run.study_id]
        trial = tx.trials.get(run.trial_id)
        parts = spec.model_dump(mode="json", include={"task", "objective", "penalty"})
        stopping = spec.early_stopping
        assert run.device is not None
        yield RunOrder(
            run=run.id,
            attempt=run.attempt,
            study=name,
            trial=trial.number,
            replicate=run.replicate,
            device=run.device,
            seed=run.seed,
            config=spec.run_config(trial.config),
            early_stopping=None if stopping is None else stopping.model_dump(mode="json"),
            data_fingerprint=run.data_fingerprint,
            reproducible=spec.reproducible,
            **parts,
        )


def _hand_out_one(store: Store, worker: WorkerRow, device: str, *, ahead: bool) -> bool:
    """Hand one run to a device; `ahead` of its turn, a place is left for every other device.

    A trial that waits in one device's queue counts towards `max_parallel` all the same, and would
    leave other devices idle.
    """
    studies, num_others = _by_claim(store, worker)
    reserve = num_others if ahead else 0
    for study in studies:
        while True:
            proposal = None
            if not _has_waiting(store, study, reserve):
                proposal = sampling.propose(store, study.id, 1, reserve=reserve)
                if proposal is None:
                    break  # the study waits for its own trials: the next one may have a run
            with store.transaction() as tx:
                live = tx.workers.lock(worker.id)
                if live is None or live.state != "LIVE":
                    return False
                ledger = Ledger(tx, study.id)
                if ledger.study.state not in (StudyState.QUEUED, StudyState.RUNNING):
                    break
                run = _next_waiting(tx, study.id, ledger.spec, reserve)
                if run is None and proposal is not None and sampling.accept(ledger, proposal):
                    run = _next_waiting(tx, study.id, ledger.spec, reserve)
                if run is None:
                    continue  # somebody else was first: look again
                fingerprint = views.fingerprint_at(worker, ledger.spec)
                if ledger.study.data_fingerprint is None:
                    ledger.study.data_fingerprint = fingerprint
                elif ledger.study.data_fingerprint != fingerprint:
                    break
                ledger.hand_out(
                    run, worker_id=worker.id, device=device, data_fingerprint=fingerprint
                )
                return True
    return False


def _by_claim(store: Store, worker: WorkerRow) -> tuple[list[StudyRow], int]:
    """The studies this worker can train, by claim, and how many devices there are but one.

    The highest priority comes first, then the least device time: each study's `virtual_seconds`
    plus what its runs in flight will probably cost, so that a burst of hand-outs does not all go
    to one study.
    """
    with store.reading() as tx:
        rows = [
            row
            for row in tx.studies.servable()
            if views.can_train(worker, row, StudySpec.model_validate(row.spec))
        ]
        load = tx.studies.load([row.id for row in rows])
        num_devices = sum(len(live.devices) for live in tx.workers.all(live_only=True))

    def claim(row: StudyRow) -> tuple[int, float, int]:
        in_flight, ended, _ = load[row.id]
        cost = row.device_seconds / ended if ended else _FIRST_GUESS_SECONDS
        return -row.priority, row.virtual_seconds + in_flight * cost, row.id

    return sorted(rows, key=claim), max(0, num_devices - 1)


def _has_waiting(store: Store, study: StudyRow, reserve: int) -> bool:
    with store.reading() as tx:
        return (
            _next_waiting(tx, study.id, StudySpec.model_validate(study.spec), reserve) is not None
        )


def _next_waiting(tx: Transaction, study_id: int, spec: StudySpec, reserve: int) -> RunRow | None:
    """The waiting run to start next; one of a new trial only while `max_parallel` allows it."""
    num_running = tx.studies.load([study_id])[study_id][2]
    return tx.runs.first_waiting(
        study_id, of_running_trials_only=num_running >= spec.max_parallel - reserve
    )
