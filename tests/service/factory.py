"""Specs, workers and the plain moves of a test: what a study needs to get going."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from ridgeline.search.spec import StudySpec, parse_spec
from ridgeline.service import studies, workers
from ridgeline.service.errors import Unavailable
from ridgeline.service.protocol import (
    FUNCTIONS,
    DatasetInfo,
    DeviceInfo,
    RunEnded,
    RunOrder,
    SyncRequest,
    SyncResponse,
    WorkerRegistration,
)
from ridgeline.service.resources import Study
from ridgeline.service.settings import Settings
from ridgeline.service.store.session import Store, Transaction
from ridgeline.service.timekeeping import Timekeeper

FINGERPRINT = "ab" * 32
SETTINGS = Settings(lease_seconds=30, max_charges=3, _env_file=None)

LOG_RATE = {"type": "float", "low": 1e-4, "high": 1e-1, "log": True, "points": 3}
GRID_SPACE = {
    "learning_rate": LOG_RATE,
    "batch_size": {"type": "values", "values": [16, 32, 64]},
    "l2": {"type": "float", "low": 1e-4, "high": 1e-4 * 10, "log": True, "points": 2},
    "dropout": {"type": "values", "values": [0.0, 0.5]},
}


def spec(name: str = "s", **changes: Any) -> StudySpec:
    """A random study of six trials on the digits, with `changes`."""
    data = {
        "name": name,
        "task": {"name": "mlp", "dataset": "digits"},
        "space": {"learning_rate": LOG_RATE},
        "sampler": {"name": "random", "seed": 7},
        "budget": {"trials": 6, "epochs": 3},
        **changes,
    }
    return parse_spec(data)


def external(name: str = "s", **changes: Any) -> StudySpec:
    """A random study of four trials that a program of one's own trains."""
    return spec(
        name,
        **{
            "task": {"name": "external"},
            "space": {"x": {"type": "float", "low": 0, "high": 1}},
            "objective": {"metric": "score", "direction": "minimize"},
            "budget": {"trials": 4},
            **changes,
        },
    )


def grant_deadlines(store: Store) -> None:
    """To studies that have begun, as the api's maintenance does within a second."""
    Timekeeper(SETTINGS.lease_seconds).keep(store)


def post(store: Store, study: StudySpec) -> Study:
    with store.transaction() as tx:
        return studies.create(tx, study, owner=None, local_datasets=(), max_open=1_000)


def study_of(store: Store, name: str = "s") -> Study:
    with store.reading() as tx:
        return studies.get(tx, name)


class Counted:
    """Counts a store's writing transactions."""

    def __init__(self, store: Store, patch: pytest.MonkeyPatch) -> None:
        self.number = 0
        transaction = store.transaction

        @contextmanager
        def counting() -> Iterator[Transaction]:
            self.number += 1
            with transaction() as tx:
                yield tx

        patch.setattr(store, "transaction", counting)


@contextmanager
def cut_off_after(store: Store, num_transactions: int) -> Iterator[None]:
    """Let a store write so many times more and no longer, as if the api were killed there."""
    with pytest.MonkeyPatch.context() as patch:
        counted = Counted(store, patch)
        transaction = store.transaction

        def cut_off() -> AbstractContextManager[Transaction]:
            if counted.number == num_transactions:
                raise Unavailable("the api is killed here, say")
            return transaction()

        patch.setattr(store, "transaction", cut_off)
        yield


class FakeWorker:
    """A worker that trains nothing: its runs end as the test says."""

    def __init__(
        self,
        store: Store,
        *,
        num_slots: int = 1,
        num_devices: int = 1,
        queue: int = 0,
        fingerprint: str = FINGERPRINT,
        smallest_class: int | None = None,
        functions: tuple[str, ...] = (),
        datasets: tuple[DatasetInfo, ...] = (),
    ) -> None:
        self._store = store
        self._seq = 0
        self.num_places = num_slots + queue
        self.held: dict[tuple[int, int], RunOrder] = {}
        self.versions: dict[str, int] = {}
        """Of the pruning rules it has heard, by study."""
        dataset = DatasetInfo(
            name="digits",
            fingerprint=fingerprint,
            num_rows=1797,
            num_features=64,
            num_classes=10,
            has_test_part=False,
            smallest_class=smallest_class,
        )
        devices = tuple(
            DeviceInfo(
                name=f"cpu:{index}",
                kind="cpu",
                description="CPU",
                num_slots=max(1, num_slots),
            )
            for index in range(num_devices)
        )
        if functions:
            devices += (
                DeviceInfo(name=FUNCTIONS, kind=FUNCTIONS, description="processes", num_slots=2),
            )
        registration = WorkerRegistration(
            name="fake",
            devices=devices,
            tasks=("mlp", *functions),
            datasets=datasets or (dataset,),
        )
        with store.transaction() as tx:
            self.id = workers.register(tx, registration, owner=None, settings=SETTINGS).id

    def statement(self, **parts: Any) -> SyncRequest:
        """The next statement: what it holds, and `parts`."""
        self._seq += 1
        ended = {(end.run, end.attempt) for end in parts.get("ended", ())}
        held = [
            {"run": run, "attempt": attempt, "device": "cpu:0"}
            for run, attempt in self.held
            if (run, attempt) not in ended
        ]
        parts.setdefault("free_slots", {"cpu:0": self.num_places - len(held)})
        return SyncRequest.model_validate({"sync_seq": self._seq, "held": held, **parts})

    def send(self, statement: SyncRequest) -> SyncResponse:
        """Make the call; a test may drop the answer instead of passing it to `hear`."""
        return workers.sync(self._store, self.id, statement, settings=SETTINGS)

    def hear(self, statement: SyncRequest, answer: SyncResponse) -> None:
        for end in statement.ended:
            self.held.pop((end.run, end.attempt), None)
        for stop in answer.stop:
            self.held.pop((stop.run, stop.attempt), None)
        for order in answer.start:
            self.held[order.run, order.attempt] = order
        self.versions |= {rules.study: rules.version for rules in answer.rules}

    def sync(self, **parts: Any) -> SyncResponse:
        statement = self.statement(**parts)
        answer = self.send(statement)
        self.hear(statement, answer)
        return answer

    def end_all(self) -> SyncResponse:
        """End every held run as complete, with a value made of its configuration alone."""
        return self.sync(ended=[ended(order) for order in self.held.values()])


def value_of(order: RunOrder) -> float:
    return round(1.0 - abs(float(order.config["learning_rate"]) - 0.01), 6)


def ended(order: RunOrder, outcome: str = "complete", **changes: Any) -> RunEnded:
    values: dict[str, Any] = {"run": order.run, "attempt": order.attempt, "outcome": outcome}
    if outcome == "complete":
        metrics = {"validation_accuracy": value_of(order), "test_accuracy": 0.5}
        values |= {"value": value_of(order), "kept_epoch": 2, "metrics": metrics}
    return RunEnded(**{**values, "device_seconds": 1.0, **changes})
