"""Checkpoints in a worker: sent and got beside its one call, in the end or not at all."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import select

from ridgeline.service import projection, studies
from ridgeline.service.api.app import create_app
from ridgeline.service.client import Client
from ridgeline.service.protocol import CheckpointInfo, DatasetInfo, RunOrder
from ridgeline.service.settings import Settings
from ridgeline.service.store.session import DatabaseClock, Store
from ridgeline.service.store.tables import reports
from ridgeline.service.worker.agent import Agent, device_specs
from ridgeline.service.worker.api import CallFailed, HttpApi
from ridgeline.service.worker.messages import Checkpoint
from ridgeline.service.worker.training import DeviceSpec, Trainer
from ridgeline.service.worker.transfers import Transfers
from tests.api.serving import serving
from tests.service.factory import FINGERPRINT, post, spec
from tests.worker.desk import SEGFAULT, Desk, began, report
from tests.worker.fakes import DEADLINE_SECONDS, HANG_SECONDS, FakeApi, order
from tests.worker.running import at_work, ended, new_agent, pid_of, told, wait_for_death
from tests.worker.trainers import PROGRAM, ScriptedBackend, ScriptedTrainer, state_of

INFO = CheckpointInfo(epoch=4, attempt=1, program="p", num_bytes=5, sha256="ab" * 32)


def saved(run: int, epoch: int, *, attempt: int = 1, content: bytes = b"state") -> Checkpoint:
    return Checkpoint((run, attempt), epoch, "p", content)


def resumed(run: int, attempt: int = 2) -> RunOrder:
    return order(run, attempt=attempt).model_copy(update={"checkpoint": INFO})


# ---- what is held


def test_a_checkpoint_is_sent_once_its_epochs_are_told() -> None:
    desk = Desk()
    desk.answer(order(1))
    desk.hear(began(1), report(1, 1))
    statement = desk.holdings.statement()
    desk.hear(report(1, 2), saved(1, 2))
    assert desk.holdings.checkpoints_to_send() == []
    assert len(statement.reports) == 1
    desk.answer()
    assert desk.holdings.checkpoints_to_send() == []  # its epoch was not in that statement
    desk.answer()
    assert desk.holdings.checkpoints_to_send() == [saved(1, 2)]
    assert desk.holdings.checkpoints_to_send() == []


def test_a_run_that_is_faster_than_the_api_sends_some() -> None:
    desk = Desk()
    desk.answer(order(1))
    desk.hear(began(1))
    sent = []
    for epoch in range(1, 31):
        desk.hear(report(1, epoch), saved(1, epoch))
        if epoch % 5 == 0:  # of those that are told by now, the newest
            desk.answer()
            sent += [one.epoch for one in desk.holdings.checkpoints_to_send()]
    assert sent == [5, 10, 15, 20, 25, 30]


def test_a_run_that_passes_epochs_during_each_call_sends_some() -> None:
    desk = Desk()
    desk.answer(order(1))
    desk.hear(began(1))
    sent = []
    for epoch in range(1, 8):
        desk.holdings.statement()  # on its way, without this epoch
        desk.hear(report(1, epoch), saved(1, epoch))
        desk.answer()
        sent += [one.epoch for one in desk.holdings.checkpoints_to_send()]
    assert sent == [1, 2, 3, 4, 5, 6]


def test_of_a_run_that_has_ended_none_is_sent() -> None:
    desk = Desk()
    desk.answer(order(1))
    desk.hear(began(1), report(1, 1), saved(1, 1))
    desk.holdings.release_all()
    desk.answer()
    assert desk.holdings.checkpoints_to_send() == []


def test_a_run_waits_for_its_checkpoint() -> None:
    desk = Desk(num_slots=2)
    desk.answer(resumed(1), order(2))
    assert desk.port.started == [(2, 1)]  # who has none is not kept
    assert [one.run for one in desk.holdings.checkpoints_to_fetch()] == [1]
    assert desk.holdings.checkpoints_to_fetch() == []
    assert desk.held() == [1, 2]
    checkpoint = saved(1, 4, attempt=2)
    desk.holdings.fetched((1, 2), checkpoint)
    assert desk.port.started == [(2, 1), (1, 2)]
    assert desk.port.given == [None, checkpoint]


def test_without_its_checkpoint_it_starts_from_nothing() -> None:
    desk = Desk()
    desk.answer(resumed(1))
    desk.holdings.fetched((1, 2), None)
    assert (desk.port.started, desk.port.given) == ([(1, 2)], [None])


def test_a_new_process_is_given_it_again() -> None:
    desk = Desk()
    desk.answer(resumed(1))
    desk.hear(SEGFAULT)  # while the checkpoint is on the way
    desk.hear(desk.ready)
    assert desk.port.started == []
    checkpoint = saved(1, 4, attempt=2)
    desk.holdings.fetched((1, 2), checkpoint)
    desk.hear(SEGFAULT, desk.ready)
    assert desk.port.given == [checkpoint, checkpoint]


def stop_it(desk: Desk) -> None:
    desk.answer(stop=((1, 2),))


def drop_it(desk: Desk) -> None:
    desk.holdings.drop_all()


def release_it(desk: Desk) -> None:
    desk.holdings.release_all()


@pytest.mark.parametrize("end", [stop_it, drop_it, release_it])
def test_a_run_that_ends_while_its_checkpoint_is_on_the_way(end: Callable[[Desk], None]) -> None:
    desk = Desk()
    desk.answer(resumed(1))
    end(desk)
    assert desk.holdings.checkpoints_to_fetch() == []
    desk.holdings.fetched((1, 2), saved(1, 4, attempt=2))
    assert desk.port.started == []


# ---- on the way


class SlowApi(FakeApi):
    """Keeps each checkpoint waiting until it is told to take it."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[Checkpoint] = []
        self.arrived = threading.Semaphore(0)
        self.take = threading.Semaphore(0)

    def put_checkpoint(self, worker_id: str, checkpoint: Checkpoint) -> None:
        self.arrived.release()
        assert self.take.acquire(timeout=DEADLINE_SECONDS)
        self.taken.append(checkpoint)


def test_the_newest_of_a_run_is_sent_instead_of_older_ones() -> None:
    api = SlowApi()
    transfers = Transfers(api, lambda: None)
    transfers.start()
    transfers.send("w", saved(1, 1))
    assert api.arrived.acquire(timeout=DEADLINE_SECONDS)
    for epoch in (2, 3, 4):
        transfers.send("w", saved(1, epoch))
        transfers.send("w", saved(2, epoch))
    for _ in range(2):
        api.take.release()
        assert api.arrived.acquire(timeout=DEADLINE_SECONDS)
    api.take.release()
    transfers.send("w", saved(3, 1))
    assert api.arrived.acquire(timeout=DEADLINE_SECONDS)
    assert [(*one.key, one.epoch) for one in api.taken] == [(1, 1, 1), (1, 1, 4), (2, 1, 4)]
    api.take.release()
    transfers.stop()


def test_what_waits_to_be_sent_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ridgeline.service.worker.transfers.MAX_QUEUED_BYTES", 25)
    api = SlowApi()
    transfers = Transfers(api, lambda: None)
    for run in (1, 2, 3, 4):
        transfers.send("w", saved(run, 1, content=bytes(10)))
    transfers.send("w", saved(5, 1, content=bytes(100)))  # one alone may be larger
    transfers.start()
    assert api.arrived.acquire(timeout=DEADLINE_SECONDS)
    transfers.send("w", saved(6, 1))
    api.take.release()
    assert api.arrived.acquire(timeout=DEADLINE_SECONDS)
    assert [one.key[0] for one in api.taken] == [5]
    api.take.release()
    transfers.stop()


class FlakyApi(FakeApi):
    """Fails so many times to give a checkpoint."""

    def __init__(self, num_failures: int, failure: Exception) -> None:
        super().__init__()
        self.num_failures, self.failure = num_failures, failure

    def get_checkpoint(self, worker_id: str, order: RunOrder) -> Checkpoint:
        self.num_failures -= 1
        if self.num_failures >= 0:
            raise self.failure
        return saved(order.run, 4, attempt=order.attempt)


@pytest.mark.parametrize(
    ("num_failures", "failure", "is_got"),
    [
        (2, CallFailed(503, "the store is away"), True),
        (2, CallFailed(None, "nobody answers"), True),
        (2, RuntimeError("something unforeseen"), True),
        (3, CallFailed(503, "the store is away"), False),
        (1, CallFailed(404, "there is none"), False),
        (1, CallFailed(409, "the run is somebody else's"), False),
    ],
)
def test_getting_one_is_tried_again_where_that_may_help(
    num_failures: int, failure: Exception, is_got: bool
) -> None:
    woken = threading.Event()
    api = FlakyApi(num_failures, failure)
    transfers = Transfers(api, woken.set, retry_delays_seconds=(0.0, 0.0))
    transfers.start()
    transfers.fetch("w", resumed(1))
    assert woken.wait(DEADLINE_SECONDS)
    assert transfers.fetched() == [((1, 2), saved(1, 4, attempt=2) if is_got else None)]
    assert transfers.fetched() == []
    transfers.stop()


# ---- with real processes


def lingering(api: FakeApi, run: int, *, epochs: int, save_every: int, **task: object) -> None:
    api.add(run, epochs=epochs, save_every=save_every, end="linger", **task)


@pytest.mark.slow
def test_a_run_goes_on_where_its_process_died() -> None:
    api = FakeApi()
    lingering(api, 1, epochs=6, save_every=4)
    with at_work(new_agent(api)):
        api.wait_until(lambda: (1, 4) in api.sent and 6 in api.runs[1].epochs)
        first = pid_of(api, 1)
        os.kill(first, signal.SIGKILL)
        wait_for_death(first)
        api.wait_until(lambda: api.runs[1].attempt == 2 and 6 in api.runs[1].epochs)
        pids = {epoch: int(metrics["pid"]) for epoch, metrics in api.runs[1].epochs.items()}
        assert [pids[epoch] == first for epoch in range(1, 7)] == [True] * 4 + [False] * 2
        (worker,) = api.workers.values()
        assert worker.told_epochs == {(1, 1): 6, (1, 2): 6}
        losses, _ = told(api, 1)
        assert losses == {epoch: 1 / epoch for epoch in range(1, 7)}


@pytest.mark.slow
def test_no_call_waits_for_checkpoints(caplog: pytest.LogCaptureFixture) -> None:
    api = FakeApi()
    api.holds_transfers_up.clear()
    lingering(api, 1, epochs=2, save_every=1)
    with at_work(new_agent(api)):
        api.wait_until(lambda: 2 in api.runs[1].epochs)
        api.add(2)
        api.wait_until(lambda: ended(api, 2) == ["complete"])
        api.lose("w0")  # the run comes back, and has no checkpoint
        api.wait_until(lambda: api.runs[1].attempt == 2 and 2 in api.runs[1].epochs)
        assert api.sent == []
        api.holds_transfers_up.set()
        api.wait_until(lambda: api.sent)
    assert not [one for one in caplog.records if "checkpoints" in one.getMessage()]


@pytest.mark.slow
def test_an_api_that_takes_none_is_complained_of_once(caplog: pytest.LogCaptureFixture) -> None:
    api = FakeApi()
    api.transfer_failure = CallFailed(413, "the file is larger than 9 bytes")
    for run in (1, 2, 3):
        api.add(run, epochs=9, save_every=1)
    with caplog.at_level(logging.WARNING), at_work(new_agent(api)):
        api.wait_until(lambda: all(ended(api, run) == ["complete"] for run in (1, 2, 3)))
        lingering(api, 4, epochs=9, save_every=1)
        api.wait_until(lambda: 9 in api.runs[4].epochs)
        api.transfer_failure = None
        pid = pid_of(api, 4)
        os.kill(pid, signal.SIGKILL)
        api.wait_until(lambda: (4, 9) in api.sent)
    complaints = [one for one in caplog.records if "checkpoints cannot be sent" in one.getMessage()]
    assert len(complaints) <= 1


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_got_costs_its_epochs() -> None:
    api = FakeApi()
    lingering(api, 1, epochs=3, save_every=3)
    with at_work(new_agent(api)):
        api.wait_until(lambda: (1, 3) in api.sent)
        api.transfer_failure = CallFailed(404, "run 1 has no checkpoint")
        os.kill(pid_of(api, 1), signal.SIGKILL)
        (worker,) = api.workers.values()
        api.wait_until(lambda: worker.told_epochs.get((1, 2)) == 3)
        assert api.runs[1].order.checkpoint is not None


# ---- with the real api


class SavingTrainer(ScriptedTrainer):
    """Trains six epochs of any run and saves every second; its first attempt does not end."""

    def add(self, order: RunOrder, checkpoint: Checkpoint | None = None) -> None:
        if order.attempt > 1:
            assert checkpoint is not None
            assert checkpoint.content == state_of(order.run, checkpoint.epoch)
        end = "linger" if order.attempt == 1 else "complete"
        task = {"epochs": 6, "save_every": 2, "end": end}
        super().add(order.model_copy(update={"task": task}), checkpoint)


class SavingBackend(ScriptedBackend):
    def datasets(self) -> tuple[DatasetInfo, ...]:
        return (
            DatasetInfo(
                name="digits",
                fingerprint=FINGERPRINT,
                num_rows=1797,
                num_features=64,
                num_classes=10,
                has_test_part=False,
            ),
        )

    def trainer(self, device: str, spec: DeviceSpec) -> Trainer:
        return SavingTrainer()


def agent_of(client: Client) -> Agent:
    return Agent(
        HttpApi(client),
        name="test",
        specs=device_specs(None, None, 1)[:1],
        backend=SavingBackend(),
        hang_seconds=HANG_SECONDS,
        function_slots=None,
        clock=time.monotonic,
        random=Random(0),
    )


@pytest.mark.slow
def test_a_run_goes_on_in_another_worker(migrated_url: str, tmp_path: Path) -> None:
    """Two workers, two apis on one database, and one artifact store at a URL."""
    settings = Settings(_env_file=None, artifacts=f"file://{tmp_path / 'artifacts'}")
    first, second = (
        Store(migrated_url, clock=DatabaseClock(), project=projection.project) for _ in range(2)
    )
    post(first, spec(budget={"trials": 1, "epochs": 6}))

    def is_saved() -> bool:
        with first.reading() as tx:
            found = tx.artifacts.newest_checkpoints([1])
        return bool(found) and found[1].epoch == 6

    def is_complete() -> bool:
        with second.reading() as tx:
            return studies.get(tx, "s").state == "COMPLETED"

    for store, is_done in ((first, is_saved), (second, is_complete)):
        with (
            serving(create_app(settings, store)) as url,
            Client(url) as client,
            at_work(agent_of(client)),
        ):
            deadline = time.monotonic() + DEADLINE_SECONDS
            while not is_done():
                assert time.monotonic() < deadline
    with second.reading() as tx:
        (run,) = tx.runs.get([1]).values()
        assert (run.state, run.attempt, run.program) == ("COMPLETE", 2, PROGRAM)
        query = select(reports.c.epoch, reports.c.attempt).order_by(reports.c.epoch)
        found = [tuple(row) for row in tx.connection.execute(query)]
        assert found == [(epoch, 1) for epoch in range(1, 7)]
        assert tx.artifacts.whole() == []
    for store in (first, second):
        store.close()
