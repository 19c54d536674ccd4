"""An api in memory that holds workers to the protocol, and what it takes to use it.

What a worker must not say is an AssertionError here; what may go wrong between the two is the
tests' to do.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ridgeline.service.protocol import (
    CheckpointInfo,
    DatasetInfo,
    DeviceInfo,
    Refusal,
    RunEnded,
    RunKey,
    RunOrder,
    RunReport,
    SyncRequest,
    SyncResponse,
    WorkerRegistered,
    WorkerRegistration,
)
from ridgeline.service.worker.api import CallFailed
from ridgeline.service.worker.devices import num_places
from ridgeline.service.worker.messages import Checkpoint, Key, key_of

MAX_CHARGES = 3
HANG_SECONDS = 300.0
DEADLINE_SECONDS = 60.0
"""How long a test waits for something before it fails."""


class ManualClock:
    """Monotonic seconds that move when told to."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


def device_info(name: str, num_slots: int = 1) -> DeviceInfo:
    kind = name.partition(":")[0]
    return DeviceInfo(name=name, kind=kind, description="for tests", num_slots=num_slots)


def order(
    run: int, *, attempt: int = 1, device: str = "cpu:0", num_following: int = 0, **task: Any
) -> RunOrder:
    return RunOrder(
        run=run,
        attempt=attempt,
        study="study",
        trial=run,
        replicate=0,
        device=device,
        seed=run,
        task=task,
        config={},
        objective={},
        early_stopping=None,
        penalty={},
        data_fingerprint=None,
        num_following=num_following,
    )


def _info(checkpoint: Checkpoint | None) -> CheckpointInfo | None:
    if checkpoint is None:
        return None
    return CheckpointInfo(
        epoch=checkpoint.epoch,
        attempt=checkpoint.key[1],
        program=checkpoint.program,
        num_bytes=len(checkpoint.content),
        sha256=hashlib.sha256(checkpoint.content).hexdigest(),
    )


@dataclass
class ApiRun:
    """A run as the api has it."""

    order: RunOrder
    state: str = "WAITING"
    attempt: int = 0
    worker: str | None = None
    charges: int = 0
    epochs: dict[int, dict[str, float]] = field(default_factory=dict)
    ends: list[RunEnded] = field(default_factory=list)
    program: str | None = None
    checkpoint: Checkpoint | None = None


@dataclass
class ApiWorker:
    registration: WorkerRegistration
    state: str = "LIVE"
    last: SyncRequest | None = None
    given: set[Key] = field(default_factory=set)
    told_epochs: dict[Key, int] = field(default_factory=dict)
    told_ends: set[Key] = field(default_factory=set)


class FakeApi:
    """Runs, workers and the two calls; every change wakes `wait_until`."""

    def __init__(self, *, sync_interval_seconds: float = 0.02) -> None:
        self.runs: dict[int, ApiRun] = {}
        self.workers: dict[str, ApiWorker] = {}
        self.refused: list[Refusal] = []
        self.told_datasets: dict[str, tuple[DatasetInfo, ...]] = {}
        """By worker, those that it has told of since it registered."""
        self.num_calls = 0
        self.sent: list[tuple[int, int]] = []
        """(run, epoch) of the checkpoints that were taken."""
        self.transfer_failure: CallFailed | None = None
        """How sending and getting checkpoints fails, if it does."""
        self.holds_transfers_up = threading.Event()
        """Unset, checkpoints are not answered."""
        self.holds_transfers_up.set()
        self._failure: Exception | None = None
        self._held_up = False
        self._interval_seconds = sync_interval_seconds
        self._changed = threading.Condition(threading.RLock())

    # ---- for tests

    def add(self, run: int, **task: Any) -> None:
        with self._changed:
            self.runs[run] = ApiRun(order(run, **task))

    def cancel(self, run: int) -> None:
        with self._changed:
            self.runs[run].state = "CANCELLED"

    def lose(self, worker_id: str) -> None:
        """The worker's lease has ended."""
        with self._changed:
            self._give_up(worker_id, "LOST")

    def fail(self, failure: Exception | None) -> None:
        """Fail every call from now on, or answer again."""
        with self._changed:
            self._failure = failure

    def hold_up(self, held_up: bool) -> None:
        """Leave every call from now on without an answer, or answer them all."""
        with self._changed:
            self._held_up = held_up
            self._changed.notify_all()

    def wait_for_calls(self, num_calls: int) -> None:
        """Wait until so many more calls have arrived."""
        target = self.num_calls + num_calls
        self.wait_until(lambda: self.num_calls >= target)

    def wait_until(self, condition: Callable[[], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, DEADLINE_SECONDS), "waited in vain"

    # ---- the protocol

    def register_worker(self, registration: WorkerRegistration) -> WorkerRegistered:
        with self._changed:
            self._arrive()
            worker_id = f"w{len(self.workers)}"
            self.workers[worker_id] = ApiWorker(registration)
            self._changed.notify_all()
            return WorkerRegistered(
                id=worker_id,
                lease_seconds=30.0,
                sync_interval_seconds=self._interval_seconds,
            )

    def sync(self, worker_id: str, request: SyncRequest) -> SyncResponse:
        with self._changed:
            self._arrive()
            worker = self.workers.get(worker_id)
            if worker is None:
                raise CallFailed(404, "no such worker")
            if worker.state != "LIVE" and not (worker.state == "GONE" and request.leaving):
                raise CallFailed(409, f"worker {worker_id} is {worker.state}")
            self._check(worker, request)
            if request.datasets is not None:
                self.told_datasets[worker_id] = request.datasets
            answer = self._answer(worker_id, worker, request)
            self._changed.notify_all()
            return answer

    def put_checkpoint(self, worker_id: str, checkpoint: Checkpoint) -> None:
        self._transfer()
        with self._changed:
            run = self.runs[checkpoint.key[0]]
            if (run.state, run.worker, run.attempt) != ("RUNNING", worker_id, checkpoint.key[1]):
                raise CallFailed(409, "the run is somebody else's")
            assert checkpoint.epoch in run.epochs, "its epoch was told before"
            assert checkpoint.program == run.program
            if run.checkpoint is None or run.checkpoint.epoch < checkpoint.epoch:
                run.checkpoint = checkpoint
            self.sent.append((run.order.run, checkpoint.epoch))
            self._changed.notify_all()

    def get_checkpoint(self, worker_id: str, order: RunOrder) -> Checkpoint:
        self._transfer()
        with self._changed:
            run = self.runs[order.run]
            if (run.state, run.worker, run.attempt) != ("RUNNING", worker_id, order.attempt):
                raise CallFailed(409, "the run is somebody else's")
            assert run.checkpoint is not None
            return replace(run.checkpoint, key=key_of(order))

    def _transfer(self) -> None:
        assert self.holds_transfers_up.wait(DEADLINE_SECONDS)
        if self.transfer_failure is not None:
            raise self.transfer_failure

    def _arrive(self) -> None:
        self.num_calls += 1
        self._changed.notify_all()
        self._changed.wait_for(lambda: not self._held_up)
        if self._failure is not None:
            raise self._failure

    def _check(self, worker: ApiWorker, request: SyncRequest) -> None:
        last = worker.last
        if last is not None and request.sync_seq == last.sync_seq:
            assert request == last, "a repeated statement is the same statement"
            return
        assert request.sync_seq > (0 if last is None else last.sync_seq)
        worker.last = request
        held, ended = [key_of(r) for r in request.held], [key_of(r) for r in request.ended]
        assert len(held) == len(set(held))
        assert not set(held) & set(ended), "a run is held or ended, not both"
        assert set(held) <= worker.given
        assert not set(held) & worker.told_ends, "a run that ended is not held any more"
        for report in request.reports:
            key = key_of(report)
            assert key in worker.given
            assert key not in worker.told_ends, "no report after the end"
            checkpoint = self.runs[report.run].checkpoint
            begins = [1] if checkpoint is None else [1, checkpoint.epoch + 1]
            if key in worker.told_epochs or report.epoch not in begins:
                last_epoch = worker.told_epochs.get(key, 0)
                assert report.epoch == last_epoch + 1, "no epoch is left out"
            worker.told_epochs[key] = report.epoch
        for key in ended:
            assert key in worker.given
            assert key not in worker.told_ends, "a run ends once"
            worker.told_ends.add(key)
        places = {i.name: num_places(i) for i in worker.registration.devices}
        assert request.free_slots.keys() == places.keys()
        assert all(free <= places[name] for name, free in request.free_slots.items())
        if request.leaving:
            assert not held
            assert not any(request.free_slots.values())

    def _answer(self, worker_id: str, worker: ApiWorker, request: SyncRequest) -> SyncResponse:
        refused = self._take(worker_id, request)
        self.refused += refused
        if request.leaving:
            self._give_up(worker_id, "GONE")
            return SyncResponse(start=(), stop=(), refused=tuple(refused))
        held = {key_of(run) for run in request.held}
        free = dict(request.free_slots)
        for run in self._held_by(worker_id):
            if (run.order.run, run.attempt) not in held:
                free[run.order.device] -= 1
        for run in self.runs.values():
            device = max(free, key=lambda name: free[name])
            if run.state == "WAITING" and free[device] > 0:
                free[device] -= 1
                run.attempt += 1
                run.state, run.worker = "RUNNING", worker_id
                run.order = run.order.model_copy(
                    update={
                        "attempt": run.attempt,
                        "device": device,
                        "checkpoint": _info(run.checkpoint),
                    }
                )
                worker.given.add((run.order.run, run.attempt))
        assigned = {key_of(run.order): run.order for run in self._held_by(worker_id)}
        return SyncResponse(
            start=tuple(order for key, order in assigned.items() if key not in held),
            stop=tuple(
                RunKey(run=run, attempt=attempt)
                for run, attempt in sorted(held)
                if (run, attempt) not in assigned
            ),
            refused=tuple(refused),
        )

    def _take(self, worker_id: str, request: SyncRequest) -> list[Refusal]:
        refused = []
        items: list[RunReport | RunEnded] = [*request.reports, *request.ended]
        for item in items:
            run = self.runs[item.run]
            if (run.state, run.worker, run.attempt) != ("RUNNING", worker_id, item.attempt):
                refused.append(Refusal(run=item.run, attempt=item.attempt, reason=run.state))
            elif isinstance(item, RunReport):
                run.epochs.setdefault(item.epoch, item.metrics)
            else:
                self._end(run, item)
        for held in request.held:
            run = self.runs[held.run]
            if run.attempt == held.attempt and held.program is not None:
                run.program = held.program
        return refused

    def _end(self, run: ApiRun, end: RunEnded) -> None:
        run.ends.append(end)
        run.program = end.program
        if end.outcome in ("complete", "diverged", "failed"):
            run.state = "DONE"
            return
        run.charges += end.outcome in ("crashed", "out_of_memory", "timeout")
        if run.charges >= MAX_CHARGES:
            run.state = "FAILED"
            return
        self._hand_back(run)

    def _hand_back(self, run: ApiRun) -> None:
        run.state, run.worker = "WAITING", None
        last_epoch = 0 if run.checkpoint is None else run.checkpoint.epoch
        run.epochs = {epoch: told for epoch, told in run.epochs.items() if epoch <= last_epoch}

    def _give_up(self, worker_id: str, state: str) -> None:
        self.workers[worker_id].state = state
        for run in self._held_by(worker_id):
            self._hand_back(run)

    def _held_by(self, worker_id: str) -> list[ApiRun]:
        return [r for r in self.runs.values() if r.worker == worker_id and r.state == "RUNNING"]
