"""A worker that trains in no time: it speaks the protocol of real ones, and nothing else."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ridgeline.service.client import Client
from ridgeline.service.protocol import (
    DatasetInfo,
    DeviceInfo,
    RunEnded,
    RunOrder,
    RunReport,
    SyncRequest,
    WorkerRegistration,
)

_DEVICE = "cpu:0"


@dataclass
class Worked:
    """What a worker has done, and how long it took."""

    num_runs: int = 0
    num_reports: int = 0
    seconds: float = 0.0
    sync_seconds: list[float] = field(default_factory=list)
    """Of each call, from sending it to having read the answer."""


class FakeWorker:
    """One device that takes up to `num_runs` runs; each gives its reports and its end at once."""

    def __init__(self, client: Client, *, num_runs: int, num_reports: int) -> None:
        self._client = client
        self._num_runs = num_runs
        self._num_reports = num_reports
        self._seq = 0
        device = DeviceInfo(name=_DEVICE, kind="cpu", description="none", num_slots=num_runs)
        digits = DatasetInfo(
            name="digits",
            fingerprint="ab" * 32,
            num_rows=1_797,
            num_features=64,
            num_classes=10,
            has_test_part=False,
        )
        self._id = client.register_worker(
            WorkerRegistration(name="fake", devices=(device,), tasks=("mlp",), datasets=(digits,))
        ).id

    def work(self) -> Worked:
        """Take runs and end them until there are none left."""
        done = Worked()
        began = time.perf_counter()
        orders = self._sync((), done)
        while orders:
            orders = self._sync(orders, done)
        done.seconds = time.perf_counter() - began
        return done

    def _sync(self, held: tuple[RunOrder, ...], done: Worked) -> tuple[RunOrder, ...]:
        """End the runs that it holds, for others."""
        self._seq += 1
        request = SyncRequest(
            sync_seq=self._seq,
            reports=tuple(
                RunReport(
                    run=order.run,
                    attempt=order.attempt,
                    epoch=epoch,
                    metrics=_metrics(order, epoch),
                )
                for order in held
                for epoch in range(1, self._num_reports + 1)
            ),
            ended=tuple(self._end(order) for order in held),
            free_slots={_DEVICE: self._num_runs},
        )
        began = time.perf_counter()
        answer = self._client.sync(self._id, request)
        done.sync_seconds.append(time.perf_counter() - began)
        assert not answer.refused
        done.num_runs += len(held)
        done.num_reports += len(request.reports)
        return answer.start

    def _end(self, order: RunOrder) -> RunEnded:
        metrics = _metrics(order, self._num_reports)
        return RunEnded(
            run=order.run,
            attempt=order.attempt,
            outcome="complete",
            value=metrics["validation_accuracy"],
            kept_epoch=self._num_reports,
            metrics={**metrics, "test_accuracy": 0.5},
            device_seconds=0.001,
            program="eager/width=1",
        )


def _metrics(order: RunOrder, epoch: int) -> dict[str, float]:
    """Better with every epoch, best at a learning rate of 0.01."""
    distance = abs(float(order.config["learning_rate"]) - 0.01)
    loss = distance + 1 / epoch
    return {
        "train_loss": loss,
        "validation_loss": loss * 1.1,
        "validation_accuracy": 1 / (1 + loss),
    }
