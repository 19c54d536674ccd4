"""Checkpoints of runs: kept whole or not at all, until a newer one is, and never past their run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select

from ridgeline.service import checkpoints, projection, studies, trials, workers
from ridgeline.service.artifacts.base import ArtifactStore, Content, Missing
from ridgeline.service.artifacts.folder import FolderArtifacts
from ridgeline.service.checkpoints import DRAFT_SECONDS, Holder
from ridgeline.service.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    ServiceError,
    StaleAttempt,
    Unavailable,
)
from ridgeline.service.external_protocol import SuggestRequest
from ridgeline.service.protocol import RunOrder, RunReport
from ridgeline.service.store.session import Store
from ridgeline.service.store.tables import artifacts as rl_artifacts
from ridgeline.service.store.tables import reports
from tests.conftest import ManualClock
from tests.service.factory import SETTINGS, FakeWorker, cut_off_after, ended, external, post, spec

PROGRAM = "eager/1"


@pytest.fixture
def artifacts(tmp_path: Path) -> FolderArtifacts:
    return FolderArtifacts(tmp_path / "artifacts")


@pytest.fixture
def worker(store: Store) -> FakeWorker:
    """One that has the first run of a study."""
    post(store, spec())
    worker = FakeWorker(store)
    worker.sync()
    return worker


def order_of(worker: FakeWorker) -> RunOrder:
    (order,) = worker.held.values()
    return order


def report(worker: FakeWorker, *epochs: int, program: str = PROGRAM, salt: float = 0.0) -> None:
    order = order_of(worker)
    key = {"run": order.run, "attempt": order.attempt}
    worker.sync(
        held=[{**key, "device": "cpu:0", "program": program}],
        reports=[
            RunReport(**key, epoch=epoch, metrics={"validation_accuracy": epoch / 10 + salt})
            for epoch in epochs
        ],
    )


def data_of(epoch: int) -> bytes:
    return f"the state after epoch {epoch}".encode() * 1_000


def holder_of(worker: FakeWorker) -> Holder:
    order = order_of(worker)
    return Holder(worker.id, order.run, order.attempt)


def send(
    store: Store,
    artifacts: ArtifactStore,
    holder: Holder,
    epoch: int,
    *,
    program: str = PROGRAM,
    meanwhile: Callable[[], object] = lambda: None,
) -> bool:
    """Send a checkpoint; `meanwhile` happens while it arrives.  Whether it was there before."""
    data = data_of(epoch)

    def chunks() -> Iterator[bytes]:
        yield data[:100]
        meanwhile()
        yield data[100:]

    content = Content.of(data)
    row, is_there = checkpoints.announce(
        store, holder, epoch=epoch, program=program, content=content
    )
    if not is_there:
        checkpoints.keep(store, artifacts, holder, row, chunks())
    return is_there


def got(store: Store, artifacts: ArtifactStore, worker: FakeWorker) -> int:
    """The epoch of the checkpoint that a worker gets; its content is checked."""
    row, file = checkpoints.newest(store, artifacts, holder_of(worker))
    with file:
        assert file.read() == data_of(row.epoch)
    return row.epoch


def known(store: Store, run: int) -> dict[int, tuple[float, int]]:
    """What is known of a run's epochs: value, and the attempt that told it."""
    columns = reports.c.epoch, reports.c.metrics, reports.c.attempt
    query = select(*columns).where(reports.c.run_id == run).order_by(reports.c.epoch)
    with store.reading() as tx:
        return {
            epoch: (metrics["validation_accuracy"], attempt)
            for epoch, metrics, attempt in tx.connection.execute(query)
        }


def epochs(store: Store, run: int) -> list[int]:
    return list(known(store, run))


def swept(store: Store, artifacts: ArtifactStore) -> list[str]:
    """The files that are left after a sweep, as run-attempt-epoch."""
    while checkpoints.sweep(store, artifacts):
        pass
    return sorted(map(_name, artifacts.keys()))


def _name(key: str) -> str:
    return key.removeprefix("checkpoints/").rpartition("-")[0]


def rows(store: Store) -> list[tuple[int | None, str]]:
    """(epoch, state) of all artifacts."""
    with store.reading() as tx:
        query = select(rl_artifacts.c.epoch, rl_artifacts.c.state).order_by(rl_artifacts.c.epoch)
        return [(row[0], row[1]) for row in tx.connection.execute(query)]


def lose(store: Store, clock: ManualClock) -> None:
    clock.advance(SETTINGS.lease_seconds + 1)
    assert workers.expire(store) == 1


def successor(store: Store, clock: ManualClock) -> FakeWorker:
    """The worker that gets the run of one that is lost."""
    lose(store, clock)
    other = FakeWorker(store)
    other.sync()
    return other


def test_a_run_goes_on_from_its_checkpoint(
    store: Store, clock: ManualClock, artifacts: FolderArtifacts, worker: FakeWorker
) -> None:
    run = order_of(worker).run
    assert order_of(worker).checkpoint is None
    report(worker, 1, 2)
    send(store, artifacts, holder_of(worker), 2)
    report(worker, 3)
    lose(store, clock)
    assert epochs(store, run) == [1, 2]
    other = FakeWorker(store)
    other.sync()
    order = order_of(other)
    assert (order.run, order.attempt) == (run, 2)
    assert order.checkpoint is not None
    assert order.checkpoint.model_dump() == {
        "epoch": 2,
        "attempt": 1,
        "program": PROGRAM,
        "num_bytes": len(data_of(2)),
        "sha256": Content.of(data_of(2)).sha256,
    }
    assert got(store, artifacts, other) == 2
    report(other, 3)
    send(store, artifacts, holder_of(other), 3)
    assert known(store, run) == {1: (0.1, 1), 2: (0.2, 1), 3: (0.3, 2)}
    other.sync(ended=[ended(order)], free_slots={})
    assert swept(store, artifacts) == []


@pytest.mark.parametrize("outcome", ["released", "crashed", "out_of_memory", "timeout"])
def test_however_it_comes_back_it_keeps_its_checkpoint(
    store: Store, artifacts: FolderArtifacts, worker: FakeWorker, outcome: str
) -> None:
    order = order_of(worker)
    report(worker, 1)
    send(store, artifacts, holder_of(worker), 1)
    key = {"run": order.run, "attempt": order.attempt}
    late = RunReport(**key, epoch=2, metrics={"validation_accuracy": 0.2})
    worker.sync(reports=[late], ended=[ended(order, outcome, program=PROGRAM)], free_slots={})
    assert epochs(store, order.run) == [1]
    worker.sync()
    again = order_of(worker)
    assert (again.run, again.attempt) == (order.run, 2)
    assert again.checkpoint is not None
    with store.reading() as tx:
        assert tx.runs.get([order.run])[order.run].program == PROGRAM


def test_without_one_it_starts_from_nothing(
    store: Store, clock: ManualClock, artifacts: FolderArtifacts, worker: FakeWorker
) -> None:
    run = order_of(worker).run
    report(worker, 1, 2)
    lose(store, clock)
    assert epochs(store, run) == []
    other = FakeWorker(store)
    other.sync()
    assert order_of(other).checkpoint is None
    with pytest.raises(NotFound, match="has no checkpoint"):
        got(store, artifacts, other)


def test_told_again_in_the_same_program_changes_nothing(
    store: Store, clock: ManualClock, artifacts: FolderArtifacts, worker: FakeWorker
) -> None:
    """As of a worker that could not get the checkpoint, and started from nothing."""
    run = order_of(worker).run
    report(worker, 1, 2)
    send(store, artifacts, holder_of(worker), 2)
    other = successor(store, clock)
    report(other, 1, 2, 3)
    assert known(store, run) == {1: (0.1, 1), 2: (0.2, 1), 3: (0.3, 2)}


def test_in_another_program_it_begins_anew(
    store: Store, clock: ManualClock, artifacts: FolderArtifacts, worker: FakeWorker
) -> None:
    run = order_of(worker).run
    report(worker, 1, 2)
    send(store, artifacts, holder_of(worker), 2)
    other = successor(store, clock)
    report(other, 1, program="eager/2", salt=0.5)
    assert known(store, run) == {1: (0.6, 2)}
    assert swept(store, artifacts) == []
    report(other, 2, program="eager/2", salt=0.5)
    assert epochs(store, run) == [1, 2]  # it has begun anew once
    lose(store, clock)
    assert epochs(store, run) == []


def test_the_newest_two_are_kept(
    store: Store, artifacts: FolderArtifacts, worker: FakeWorker
) -> None:
    run = order_of(worker).run
    report(worker, 1, 2, 3)
    for epoch in (1, 2, 3):
        assert not send(store, artifacts, holder_of(worker), epoch)
        kept = [f"{run}-1-{number}" for number in (epoch - 1, epoch) if number]
        assert swept(store, artifacts) == kept
    assert send(store, artifacts, holder_of(worker), 3)  # said twice
    assert not send(store, artifacts, holder_of(worker), 1)  # the last to arrive
    assert swept(store, artifacts) == [f"{run}-1-2", f"{run}-1-3"]
    assert got(store, artifacts, worker) == 3


def test_the_one_before_is_used_where_the_newest_is_damaged(
    store: Store,
    clock: ManualClock,
    artifacts: FolderArtifacts,
    worker: FakeWorker,
    tmp_path: Path,
) -> None:
    run = order_of(worker).run
    report(worker, 1, 2, 3)
    for epoch in (1, 2):
        send(store, artifacts, holder_of(worker), epoch)
    other = successor(store, clock)
    (newest,) = (tmp_path / "artifacts" / "files" / "checkpoints").glob(f"{run}-1-2-*")
    newest.write_bytes(newest.read_bytes()[:-1])
    assert got(store, artifacts, other) == 1
    assert swept(store, artifacts) == [f"{run}-1-1"]
    report(other, 2, 3)
    assert known(store, run) == {1: (0.1, 1), 2: (0.2, 1), 3: (0.3, 2)}
    (before,) = (tmp_path / "artifacts" / "files" / "checkpoints").glob(f"{run}-1-1-*")
    before.unlink()
    with pytest.raises(NotFound, match="has no checkpoint"):
        got(store, artifacts, other)
    lose(store, clock)
    assert epochs(store, run) == []


def test_who_may_not_send_one(
    store: Store, clock: ManualClock, artifacts: FolderArtifacts, worker: FakeWorker
) -> None:
    report(worker, 1)
    first = holder_of(worker)

    def refused(holder: Holder, epoch: int = 1, program: str = PROGRAM) -> ServiceError:
        with pytest.raises(ServiceError) as raised:
            send(store, artifacts, holder, epoch, program=program)
        if (epoch, program) == (1, PROGRAM):
            with pytest.raises(type(raised.value)):
                checkpoints.newest(store, artifacts, holder)
        return raised.value

    assert isinstance(refused(Holder("nobody", first.run_id, 1)), NotFound)
    assert isinstance(refused(Holder(worker.id, 10**6, 1)), NotFound)
    assert isinstance(refused(Holder(worker.id, first.run_id, 2)), StaleAttempt)
    stranger = FakeWorker(store)
    assert isinstance(refused(Holder(stranger.id, first.run_id, 1)), StaleAttempt)
    assert "not reported yet" in refused(first, epoch=2).detail
    assert "is trained by eager/1" in refused(first, program="eager/2").detail
    lose(store, clock)
    assert "is LOST; register again" in refused(first).detail
    again = FakeWorker(store)
    again.sync()
    report(again, 1)
    second = holder_of(again)
    assert isinstance(refused(Holder(again.id, first.run_id, 1)), StaleAttempt)
    with store.transaction() as tx:
        studies.apply_verb(tx, "s", "cancel")
    assert "is FAIL (cancelled)" in refused(second).detail
    assert rows(store) == []


def test_one_of_a_program_of_somebodys_own(store: Store, artifacts: FolderArtifacts) -> None:
    post(store, external())
    trials.suggest(store, "s", SuggestRequest(count=1))
    with pytest.raises(StaleAttempt):
        send(store, artifacts, Holder(FakeWorker(store).id, 1, 1), 1)


@pytest.mark.parametrize("end", ["it completes", "it is lost", "its study is deleted"])
def test_one_that_arrives_while_its_run_ends_is_not_kept(
    store: Store,
    clock: ManualClock,
    artifacts: FolderArtifacts,
    worker: FakeWorker,
    migrated_url: str,
    end: str,
) -> None:
    """By another api on the same database and artifact store."""
    order = order_of(worker)
    report(worker, 1, 2)
    send(store, artifacts, holder_of(worker), 1)
    other_api = Store(migrated_url, clock=clock, project=projection.project)

    def meanwhile() -> None:
        if end == "it completes":
            worker.sync(ended=[ended(order)], free_slots={})
        elif end == "it is lost":
            lose(other_api, clock)
        else:
            with other_api.transaction() as tx:
                studies.apply_verb(tx, "s", "cancel")
                studies.delete(tx, "s")
        checkpoints.sweep(other_api, artifacts)

    with pytest.raises((StaleAttempt, Conflict, NotFound)):
        send(store, artifacts, holder_of(worker), 2, meanwhile=meanwhile)
    other_api.close()
    kept = [f"{order.run}-1-1"] if end == "it is lost" else []
    assert swept(store, artifacts) == kept
    assert rows(store) == [(1, "WHOLE")] * len(kept)


def test_newer_ones_that_overtake_stay_the_newest(
    store: Store, artifacts: FolderArtifacts, worker: FakeWorker
) -> None:
    report(worker, 1, 2, 3)

    def meanwhile() -> None:
        for epoch in (2, 3):
            send(store, artifacts, holder_of(worker), epoch)

    send(store, artifacts, holder_of(worker), 1, meanwhile=meanwhile)
    assert got(store, artifacts, worker) == 3
    run = order_of(worker).run
    assert swept(store, artifacts) == [f"{run}-1-2", f"{run}-1-3"]


def test_many_at_once_through_two_apis(
    store: Store,
    clock: ManualClock,
    artifacts: FolderArtifacts,
    worker: FakeWorker,
    migrated_url: str,
) -> None:
    """While both apis sweep, the newest whole one is there at any time, and in the end two are."""
    last = 12
    report(worker, *range(1, last + 1))
    holder, run = holder_of(worker), order_of(worker).run
    send(store, artifacts, holder, 1)
    other_api = Store(migrated_url, clock=clock, project=projection.project)
    apis = [store, other_api]

    def send_one(epoch: int) -> int:
        send(apis[epoch % 2], artifacts, holder, epoch)
        checkpoints.sweep(apis[(epoch // 2) % 2], artifacts)
        row, file = checkpoints.newest(apis[epoch % 2], artifacts, holder)
        with file:
            assert file.read() == data_of(row.epoch)
        assert row.epoch >= epoch
        return row.epoch

    with ThreadPoolExecutor(4) as threads:
        seen = list(threads.map(send_one, range(2, last + 1)))
    assert max(seen) == last
    assert swept(store, artifacts) == [f"{run}-1-{last - 1}", f"{run}-1-{last}"]
    other_api.close()


def test_what_is_not_as_announced_is_not_kept(
    store: Store, artifacts: FolderArtifacts, worker: FakeWorker
) -> None:
    report(worker, 1)
    holder = holder_of(worker)
    content = Content.of(data_of(1))
    row, _ = checkpoints.announce(store, holder, epoch=1, program=PROGRAM, content=content)
    with pytest.raises(InvalidInput, match="content-digest: is not that of the body"):
        checkpoints.keep(store, artifacts, holder, row, [b"something else"])
    assert swept(store, artifacts) == []
    assert rows(store) == []


@pytest.mark.parametrize("num_transactions", [0, 1])
def test_an_api_that_dies_leaves_nothing_for_long(
    store: Store,
    clock: ManualClock,
    artifacts: FolderArtifacts,
    worker: FakeWorker,
    num_transactions: int,
) -> None:
    """Before the file arrives, or between the file and its row."""
    report(worker, 1, 2)
    run = order_of(worker).run
    send(store, artifacts, holder_of(worker), 1)
    holder = holder_of(worker)
    content = Content.of(data_of(2))
    row, _ = checkpoints.announce(store, holder, epoch=2, program=PROGRAM, content=content)
    if num_transactions:
        with cut_off_after(store, 0), pytest.raises(Unavailable):
            checkpoints.keep(store, artifacts, holder, row, [data_of(2)])
        assert len(list(artifacts.keys())) == 2
    assert swept(store, artifacts) == [f"{run}-1-1", f"{run}-1-2"][: num_transactions + 1]
    assert rows(store) == [(1, "WHOLE"), (2, "DRAFT")]
    assert got(store, artifacts, worker) == 1
    clock.advance(DRAFT_SECONDS + 1)
    assert swept(store, artifacts) == [f"{run}-1-1"]
    assert rows(store) == [(1, "WHOLE")]


@pytest.mark.parametrize("is_swept", [False, True])
def test_one_that_comes_after_its_draft_was_given_up(
    store: Store,
    clock: ManualClock,
    artifacts: FolderArtifacts,
    worker: FakeWorker,
    is_swept: bool,
) -> None:
    report(worker, 1)

    def meanwhile() -> None:
        clock.advance(DRAFT_SECONDS + 1)
        if is_swept:
            checkpoints.sweep(store, artifacts)
        else:
            with store.transaction() as tx:
                tx.artifacts.doom_drafts(tx.now - DRAFT_SECONDS)

    with pytest.raises(Conflict, match="too late"):
        send(store, artifacts, holder_of(worker), 1, meanwhile=meanwhile)
    assert swept(store, artifacts) == []
    assert rows(store) == []


class Stubborn(FolderArtifacts):
    """Cannot delete the files of one epoch."""

    def delete(self, key: str) -> None:
        if "-1-1-" in key:
            raise Unavailable("no permission, say")
        super().delete(key)


def test_a_file_that_cannot_be_deleted_keeps_no_other(
    store: Store, artifacts: FolderArtifacts, worker: FakeWorker, tmp_path: Path
) -> None:
    order = order_of(worker)
    report(worker, 1, 2)
    for epoch in (1, 2):
        send(store, artifacts, holder_of(worker), epoch)
    worker.sync(ended=[ended(order)], free_slots={})
    with pytest.raises(Unavailable):
        checkpoints.sweep(store, Stubborn(tmp_path / "artifacts"))
    assert rows(store) == [(1, "DOOMED")]
    assert swept(store, artifacts) == []
    assert rows(store) == []


def test_all_of_a_deleted_study_goes(
    store: Store, artifacts: FolderArtifacts, worker: FakeWorker
) -> None:
    report(worker, 1)
    send(store, artifacts, holder_of(worker), 1)
    with store.transaction() as tx:
        studies.apply_verb(tx, "s", "cancel")
        studies.delete(tx, "s")
    assert rows(store) == [(1, "DOOMED")]
    (key,) = artifacts.keys()
    assert swept(store, artifacts) == []
    assert rows(store) == []
    with pytest.raises(Missing):
        artifacts.get(key, Content.of(data_of(1)))
